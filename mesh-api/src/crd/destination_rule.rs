//! `DestinationRule` of `networking.istio.io`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{
    WorkloadSelector,
    quantity::{Decimal, Time},
    virtual_service::PortSelector,
};

/// How a service is used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct DestinationRule {
    /// Host name of the service, perhaps with a wildcard.
    pub host: String,
    /// How it is used.
    pub traffic_policy: Option<TrafficPolicy>,
    /// Subsets of its endpoints.
    pub subsets: Vec<Subset>,
    /// Namespaces that see it.
    pub export_to: Vec<String>,
    /// Workloads whose proxies follow it.
    pub workload_selector: Option<WorkloadSelector>,
}

/// A subset of the endpoints of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Subset {
    /// Its name.
    pub name: String,
    /// Labels that its endpoints have.
    pub labels: BTreeMap<String, String>,
    /// How it is used.
    pub traffic_policy: Option<TrafficPolicy>,
}

/// How a service or a subset is used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct TrafficPolicy {
    /// How endpoints are chosen.
    pub load_balancer: Option<LoadBalancerSettings>,
    /// How many connections and requests there may be.
    pub connection_pool: Option<ConnectionPoolSettings>,
    /// Which endpoints are avoided.
    pub outlier_detection: Option<OutlierSettings>,
    /// TLS to the endpoints.
    pub tls: Option<ClientTls>,
    /// How single ports are used instead.
    pub port_level_settings: Vec<PortTrafficPolicy>,
    /// Through which proxy.
    pub tunnel: Option<TunnelSettings>,
    /// Which header connections begin with.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// How many retries there may be.
    pub retry_budget: Option<RetryBudgetSettings>,
}

/// How a port is used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct PortTrafficPolicy {
    /// The port.
    pub port: PortSelector,
    /// How endpoints are chosen.
    pub load_balancer: Option<LoadBalancerSettings>,
    /// How many connections and requests there may be.
    pub connection_pool: Option<ConnectionPoolSettings>,
    /// Which endpoints are avoided.
    pub outlier_detection: Option<OutlierSettings>,
    /// TLS to the endpoints.
    pub tls: Option<ClientTls>,
}

/// A proxy on the way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct TunnelSettings {
    /// `CONNECT` or `POST`.
    pub protocol: String,
    /// Host that it is asked for.
    pub target_host: String,
    /// Port that it is asked for.
    pub target_port: u32,
}

/// The header that connections begin with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProxyProtocol {
    /// Its version.
    pub version: ProxyVersion,
}

/// Version of the PROXY protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum ProxyVersion {
    /// As text.
    #[default]
    V1,
    /// As bytes.
    V2,
}

/// How many retries there may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct RetryBudgetSettings {
    /// For a hundred requests; 20 if absent.
    pub percent: Option<Decimal>,
    /// In any case; 3 if 0.
    pub min_retry_concurrency: u32,
    /// Over which time.
    pub budget_interval: Option<Time>,
}

/// How endpoints are chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct LoadBalancerSettings {
    /// By an algorithm without parameters.
    pub simple: Option<SimpleBalancer>,
    /// By a property of the request.
    pub consistent_hash: Option<HashSettings>,
    /// By where they are.
    pub locality_lb_setting: Option<LocalitySettings>,
    /// By where they are, in single zones.
    pub zone_aware_lb_setting: Option<ZoneAwareSettings>,
    /// Older form of `warmup`.
    pub warmup_duration_secs: Option<Time>,
    /// How new ones begin.
    pub warmup: Option<WarmupSettings>,
}

/// An algorithm without parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SimpleBalancer {
    /// The usual one.
    Unspecified,
    /// Older name of `LEAST_REQUEST`.
    LeastConn,
    /// At random.
    Random,
    /// The one that the client addressed.
    Passthrough,
    /// One after another.
    RoundRobin,
    /// The one with less requests of two.
    LeastRequest,
}

/// By a property of the request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct HashSettings {
    /// A header.
    pub http_header_name: Option<String>,
    /// A cookie.
    pub http_cookie: Option<CookieSettings>,
    /// The client's address.
    pub use_source_ip: Option<bool>,
    /// A parameter of the query.
    pub http_query_parameter_name: Option<String>,
    /// By a ring.
    pub ring_hash: Option<RingHash>,
    /// By a table.
    pub maglev: Option<Maglev>,
    /// Older form of the field of `ring_hash`.
    pub minimum_ring_size: u64,
}

/// A cookie.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CookieSettings {
    /// Its name.
    pub name: String,
    /// Its path.
    pub path: String,
    /// How long one lasts that is made.
    pub ttl: Option<Time>,
    /// Further attributes of one that is made.
    pub attributes: Vec<CookieAttribute>,
}

/// An attribute of a cookie.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CookieAttribute {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// A ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct RingHash {
    /// Its least size; 1024 if 0.
    pub minimum_ring_size: u64,
}

/// A table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Maglev {
    /// Its size, a prime.
    pub table_size: u64,
}

/// By where endpoints are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct LocalitySettings {
    /// Shares of localities.
    pub distribute: Vec<LocalityDistribution>,
    /// Regions that take over.
    pub failover: Vec<LocalityFailover>,
    /// Labels that near endpoints share with the proxy.
    pub failover_priority: Vec<String>,
    /// Whether it is on; it is if absent.
    pub enabled: Option<bool>,
}

/// By where endpoints are, in single zones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct ZoneAwareSettings {
    /// Whether it is on; it is if absent.
    pub enabled: Option<bool>,
    /// Regions that take over.
    pub failover: Vec<LocalityFailover>,
    /// Labels that near endpoints share with the proxy.
    pub failover_priority: Vec<String>,
    /// Fewest endpoints for which it is done.
    pub min_cluster_size: Option<u64>,
}

/// Where the traffic of a locality goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LocalityDistribution {
    /// The locality.
    pub from: String,
    /// Shares of others, in percent.
    pub to: BTreeMap<String, u32>,
}

/// Who takes over from a region.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LocalityFailover {
    /// The region.
    pub from: String,
    /// The other one.
    pub to: String,
}

/// How new endpoints begin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct WarmupSettings {
    /// For how long.
    pub duration: Option<Time>,
    /// With which share at least, in percent; 10 if absent.
    pub minimum_percent: Option<Decimal>,
    /// How the share grows; 1 if absent.
    pub aggression: Option<Decimal>,
}

/// How many connections and requests there may be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConnectionPoolSettings {
    /// For all traffic.
    pub tcp: TcpSettings,
    /// For HTTP.
    pub http: HttpSettings,
}

/// Limits for all traffic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct TcpSettings {
    /// Connections; 0 for no limit.
    pub max_connections: i64,
    /// Time to connect.
    pub connect_timeout: Option<Time>,
    /// Probes of connections.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// How long a connection lasts.
    pub max_connection_duration: Option<Time>,
    /// How long a connection lasts that is not used.
    pub idle_timeout: Option<Time>,
}

/// Probes of connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TcpKeepalive {
    /// How many.
    pub probes: u32,
    /// Time before the first one.
    pub time: Option<Time>,
    /// Time between them.
    pub interval: Option<Time>,
}

/// Limits for HTTP; 0 for none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpSettings {
    /// Requests that wait for a connection.
    pub http1_max_pending_requests: i64,
    /// Requests.
    pub http2_max_requests: i64,
    /// Requests of a connection.
    pub max_requests_per_connection: i64,
    /// Retries.
    pub max_retries: i64,
    /// How long a connection lasts that is not used.
    pub idle_timeout: Option<Time>,
    /// Whether HTTP/1.1 becomes HTTP/2.
    pub h2_upgrade_policy: H2Upgrade,
    /// Whether the client's version of HTTP is used.
    pub use_client_protocol: bool,
    /// Streams of a connection.
    pub max_concurrent_streams: i64,
    /// Probes of connections.
    pub http2_keep_alive: Option<Http2KeepAlive>,
}

/// Whether HTTP/1.1 becomes HTTP/2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum H2Upgrade {
    /// As the mesh does.
    #[default]
    Default,
    /// No.
    DoNotUpgrade,
    /// Yes.
    Upgrade,
}

/// Probes of HTTP/2 connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http2KeepAlive {
    /// Time between them.
    pub interval: Option<Time>,
    /// Time for the answer.
    pub timeout: Option<Time>,
}

/// Which endpoints are avoided.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct OutlierSettings {
    /// Older form of `consecutive_gateway_errors`.
    pub consecutive_errors: i64,
    /// Whether errors of connections count on their own.
    pub split_external_local_origin_errors: bool,
    /// Errors of connections; 5 if absent.
    pub consecutive_local_origin_failures: Option<u32>,
    /// 502, 503 and 504.
    pub consecutive_gateway_errors: Option<u32>,
    /// Statuses from 500; 5 if absent.
    #[serde(rename = "consecutive5xxErrors")]
    pub consecutive_5xx_errors: Option<u32>,
    /// Time between looks; 10 s if absent.
    pub interval: Option<Time>,
    /// For how long they are avoided at first; 30 s if absent.
    pub base_ejection_time: Option<Time>,
    /// How many of a hundred at most; 10 if 0.
    pub max_ejection_percent: i64,
    /// How many of a hundred are healthy, or all are used.
    pub min_health_percent: i64,
    /// Statuses that count.
    pub outlier_detection_http_error_codes: Vec<u32>,
}

/// TLS to endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct ClientTls {
    /// Whether, and how.
    pub mode: ClientTlsMode,
    /// Path of the certificate.
    pub client_certificate: String,
    /// Path of its key.
    pub private_key: String,
    /// Path of the roots.
    pub ca_certificates: String,
    /// Path of the list of revoked certificates.
    pub ca_crl: String,
    /// Name of a secret with all of them.
    pub credential_name: String,
    /// Names, one of which the endpoint has to present.
    pub subject_alt_names: Vec<String>,
    /// Name that is asked for.
    pub sni: String,
    /// Whether nothing is verified.
    pub insecure_skip_verify: Option<bool>,
}

/// Whether TLS is used to endpoints, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ClientTlsMode {
    /// It is not.
    #[default]
    Disable,
    /// The endpoint has a certificate.
    Simple,
    /// Both have a certificate.
    Mutual,
    /// Both have one of the mesh.
    IstioMutual,
}
