//! The parts of a policy on the wire.

use std::time::Duration;

use mesh_api::{
    crd::{
        self, ClientTls, ClientTlsMode, ConnectionPoolSettings, H2Upgrade, HashSettings,
        LoadBalancerSettings, LocalityFailover, OutlierSettings, ProxyVersion, RetryBudgetSettings,
        SimpleBalancer, Time, TrafficPolicy,
    },
    proto::l7::{
        ConnectionPool, ConsistentHash, CookieAttribute, HashCookie, Http2Keepalive, HttpVersion,
        LoadBalancer, LocalityPreference, LocalityShare, OutlierDetection, RegionFailover,
        RetryBudget, SimpleAlgorithm, TcpKeepalive, UpstreamTls, Variant, Warmup,
        consistent_hash::{Key, Table},
        load_balancer::Algorithm,
        upstream_tls::Mode,
    },
};

use super::super::virtual_service::traffic::duration;

/// Least size of a ring where none is given.
const RING_SIZE: u32 = 1024;
/// Share of requests that a new endpoint begins with, in percent, where none is given.
const WARMUP_PERCENT: f64 = 10.0;
/// Errors in a row after which an endpoint is avoided, where none are given.
const CONSECUTIVE_ERRORS: u32 = 5;
/// Time between looks at endpoints, where none is given.
const INTERVAL: Time = Time(Duration::from_secs(10));
/// Time for which an endpoint is avoided at first, where none is given.
const EJECTION_TIME: Time = Time(Duration::from_secs(30));
/// How many endpoints of a hundred are avoided at most, where none is given.
const EJECTION_PERCENT: u32 = 10;
/// Retries for a hundred requests, where none are given.
const BUDGET_PERCENT: f64 = 20.0;
/// Retries that there may be in any case, where none are given.
const BUDGET_MINIMUM: u32 = 3;

/// Returns the parts of a policy.
pub(super) fn lower(policy: &TrafficPolicy) -> Variant {
    Variant {
        load_balancer: policy.load_balancer.as_ref().map(load_balancer),
        connection_pool: policy.connection_pool.as_ref().map(connection_pool),
        outlier_detection: policy.outlier_detection.as_ref().map(outlier_detection),
        tls: policy.tls.as_ref().and_then(upstream_tls),
        retry_budget: policy.retry_budget.map(retry_budget),
        proxy_protocol: policy.proxy_protocol.map_or(0, |protocol| match protocol.version {
            ProxyVersion::V1 => 1,
            ProxyVersion::V2 => 2,
        }),
        ..Variant::default()
    }
}

fn load_balancer(written: &LoadBalancerSettings) -> LoadBalancer {
    let hash = written.consistent_hash.as_ref().and_then(consistent_hash);
    let simple = match written.simple {
        Some(SimpleBalancer::Random) => SimpleAlgorithm::Random,
        Some(SimpleBalancer::Passthrough) => SimpleAlgorithm::Passthrough,
        Some(SimpleBalancer::RoundRobin) => SimpleAlgorithm::RoundRobin,
        Some(
            SimpleBalancer::Unspecified | SimpleBalancer::LeastConn | SimpleBalancer::LeastRequest,
        )
        | None => SimpleAlgorithm::LeastRequest,
    };
    let warms_up = hash.is_none()
        && matches!(simple, SimpleAlgorithm::RoundRobin | SimpleAlgorithm::LeastRequest);
    let algorithm =
        hash.map_or_else(|| Algorithm::Simple(simple.into()), Algorithm::ConsistentHash);
    LoadBalancer {
        algorithm: Some(algorithm),
        locality: locality(written),
        warmup: warmup(written).filter(|_| warms_up),
    }
}

fn consistent_hash(written: &HashSettings) -> Option<ConsistentHash> {
    let header = written.http_header_name.as_ref();
    let header = header.map(|name| Key::Header(name.to_ascii_lowercase()));
    let cookie = written.http_cookie.as_ref().map(|cookie| {
        Key::Cookie(HashCookie {
            name: cookie.name.clone(),
            path: cookie.path.clone(),
            ttl: cookie.ttl.map(duration),
            attributes: cookie.attributes.iter().map(attribute).collect(),
        })
    });
    let source = written.use_source_ip.filter(|uses| *uses).map(Key::SourceIp);
    let query = written.http_query_parameter_name.clone().map(Key::QueryParameter);
    let size = |size: u64| u32::try_from(size).unwrap_or(u32::MAX);
    let ring = written.ring_hash.map_or(written.minimum_ring_size, |ring| ring.minimum_ring_size);
    let table = match (written.maglev, ring) {
        (Some(maglev), _) => Table::MaglevTableSize(size(maglev.table_size)),
        (None, 0) => Table::MinimumRingSize(RING_SIZE),
        (None, ring) => Table::MinimumRingSize(size(ring)),
    };
    let key = header.or(cookie).or(source).or(query)?;
    Some(ConsistentHash { key: Some(key), table: Some(table) })
}

fn attribute(written: &crd::CookieAttribute) -> CookieAttribute {
    CookieAttribute { name: written.name.clone(), value: written.value.clone() }
}

fn locality(written: &LoadBalancerSettings) -> Option<LocalityPreference> {
    let failovers = |failovers: &[LocalityFailover]| {
        let failovers = failovers.iter();
        failovers
            .map(|failover| RegionFailover { from: failover.from.clone(), to: failover.to.clone() })
            .collect()
    };
    if let Some(locality) = &written.locality_lb_setting {
        let distribute = locality.distribute.iter();
        return Some(LocalityPreference {
            distribute: distribute
                .map(|entry| LocalityShare { from: entry.from.clone(), to: entry.to.clone() })
                .collect(),
            failover: failovers(&locality.failover),
            failover_priority: locality.failover_priority.clone(),
            disabled: locality.enabled == Some(false),
        });
    }
    // A waypoint is in no zone of its own, so that only the order of localities is left of it.
    let zones = written.zone_aware_lb_setting.as_ref()?;
    Some(LocalityPreference {
        distribute: Vec::new(),
        failover: failovers(&zones.failover),
        failover_priority: zones.failover_priority.clone(),
        disabled: zones.enabled == Some(false),
    })
}

fn warmup(written: &LoadBalancerSettings) -> Option<Warmup> {
    let settings = written.warmup.as_ref();
    let time = settings.and_then(|warmup| warmup.duration).or(written.warmup_duration_secs)?;
    let given = |value: Option<mesh_api::crd::Decimal>| value.map(|value| value.0);
    let minimum = settings.and_then(|warmup| given(warmup.minimum_percent));
    let aggression = settings.and_then(|warmup| given(warmup.aggression));
    Some(Warmup {
        duration: Some(duration(time)),
        minimum_percent: Some(minimum.unwrap_or(WARMUP_PERCENT)),
        aggression: aggression.unwrap_or(1.0),
    })
}

fn connection_pool(written: &ConnectionPoolSettings) -> ConnectionPool {
    let ConnectionPoolSettings { tcp, http } = written;
    let number = |number: i64| u32::try_from(number).unwrap_or_default();
    let version = if http.use_client_protocol {
        HttpVersion::AsClient
    } else if http.h2_upgrade_policy == H2Upgrade::Upgrade {
        HttpVersion::AlwaysHttp2
    } else {
        HttpVersion::ByPort
    };
    ConnectionPool {
        max_connections: number(tcp.max_connections),
        max_pending_requests: number(http.http1_max_pending_requests),
        max_requests: number(http.http2_max_requests),
        max_retries: number(http.max_retries),
        max_requests_per_connection: number(http.max_requests_per_connection),
        connect_timeout: tcp.connect_timeout.map(duration),
        idle_timeout: http.idle_timeout.or(tcp.idle_timeout).map(duration),
        tcp_idle_timeout: tcp.idle_timeout.map(duration),
        max_connection_duration: tcp.max_connection_duration.map(duration),
        max_concurrent_streams: number(http.max_concurrent_streams),
        http_version: version.into(),
        tcp_keepalive: tcp.tcp_keepalive.map(|given| TcpKeepalive {
            probes: given.probes,
            time: given.time.map(duration),
            interval: given.interval.map(duration),
        }),
        http2_keepalive: http.http2_keep_alive.map(|given| Http2Keepalive {
            interval: given.interval.map(duration),
            timeout: given.timeout.map(duration),
        }),
    }
}

fn outlier_detection(written: &OutlierSettings) -> OutlierDetection {
    let number = |number: i64| u32::try_from(number).unwrap_or_default();
    let splits = written.split_external_local_origin_errors;
    let local = written.consecutive_local_origin_failures.unwrap_or(CONSECUTIVE_ERRORS);
    let gateway = written.consecutive_gateway_errors;
    OutlierDetection {
        consecutive_5xx: written.consecutive_5xx_errors.unwrap_or(CONSECUTIVE_ERRORS),
        consecutive_gateway_errors: gateway.unwrap_or_else(|| number(written.consecutive_errors)),
        split_local_errors: splits,
        consecutive_local_failures: if splits { local } else { 0 },
        interval: Some(duration(written.interval.unwrap_or(INTERVAL))),
        base_ejection_time: Some(duration(written.base_ejection_time.unwrap_or(EJECTION_TIME))),
        max_ejection_percent: match number(written.max_ejection_percent) {
            0 => EJECTION_PERCENT,
            percent => percent,
        },
        min_health_percent: number(written.min_health_percent),
        error_statuses: written.outlier_detection_http_error_codes.clone(),
    }
}

/// Returns TLS of the application; that of the mesh is there in any case.
fn upstream_tls(written: &ClientTls) -> Option<UpstreamTls> {
    let mode = match written.mode {
        ClientTlsMode::Disable => Mode::Disable,
        ClientTlsMode::Simple => Mode::Simple,
        ClientTlsMode::Mutual => Mode::Mutual,
        ClientTlsMode::IstioMutual => return None,
    };
    Some(UpstreamTls {
        mode: mode.into(),
        sni: written.sni.clone(),
        subject_alt_names: written.subject_alt_names.clone(),
        skip_verification: written.insecure_skip_verify == Some(true),
        ca_certificates: written.ca_certificates.clone(),
        client_certificate: written.client_certificate.clone(),
        private_key: written.private_key.clone(),
        credential_name: written.credential_name.clone(),
        revocation_list: written.ca_crl.clone(),
    })
}

fn retry_budget(written: RetryBudgetSettings) -> RetryBudget {
    RetryBudget {
        percent: Some(written.percent.map_or(BUDGET_PERCENT, |percent| percent.0)),
        min_concurrency: match written.min_retry_concurrency {
            0 => BUDGET_MINIMUM,
            number => number,
        },
    }
}
