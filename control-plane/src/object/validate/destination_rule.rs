//! Destination rules.

use std::collections::HashSet;

use mesh_api::crd::{
    ClientTls, ClientTlsMode, ConnectionPoolSettings, DestinationRule, H2Upgrade, HashSettings,
    LoadBalancerSettings, LocalitySettings, OutlierSettings, PortTrafficPolicy, SimpleBalancer,
    Subset, Time, TrafficPolicy, TunnelSettings,
};

use super::{
    InvalidObject, Problem, at_most, each, match_labels, port,
    traffic::{export_to, time, times},
};
use crate::object::is_name;

/// Most subsets and ports of a rule, as the API limits the latter.
const MAX_ENTRIES: usize = 4096;
/// Table sizes of maglev are less than this.
const MAX_TABLE_SIZE: u64 = 5_000_011;

/// Largest ring that may be asked for, as Envoy limits it.
const MAX_RING_SIZE: u64 = 8 << 20;
/// Largest exponent by which the share of a new endpoint grows: with more it is all of it at once.
const MAX_AGGRESSION: f64 = 1000.0;

/// Checks the specification of a destination rule.
pub(super) fn check(spec: &DestinationRule) -> Result<(), InvalidObject> {
    if spec.host.is_empty() {
        return Err(Problem::Missing("name a service").at("host"));
    }
    if spec.host.strip_prefix('*').unwrap_or(&spec.host).contains('*') {
        let form = "a host name such as reviews or *.example.com";
        return Err(Problem::Form { value: spec.host.escape_debug().to_string(), form }.at("host"));
    }
    export_to(&spec.export_to)?;
    if let Some(selector) = &spec.workload_selector {
        match_labels("workloadSelector.matchLabels", &selector.match_labels)?;
        let others = |namespace: &String| matches!(namespace.as_str(), "*" | "~");
        if spec.export_to.len() > 1 || spec.export_to.iter().any(others) {
            return Err(Problem::Conflict("namespaces other than its own").at("workloadSelector"));
        }
    }
    if let Some(policy) = &spec.traffic_policy {
        check_policy(policy).map_err(|error| error.within("trafficPolicy"))?;
    }
    at_most("subsets", spec.subsets.len(), MAX_ENTRIES)?;
    each("subsets", &spec.subsets, check_subset)?;
    let mut seen = HashSet::new();
    match spec.subsets.iter().position(|subset| !seen.insert(&subset.name)) {
        Some(i) => {
            let name = spec.subsets[i].name.clone();
            Err(Problem::Duplicate(name).at(&format!("subsets[{i}].name")))
        }
        None => Ok(()),
    }
}

fn check_subset(subset: &Subset) -> Result<(), InvalidObject> {
    let valid = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    if subset.name.is_empty() {
        return Err(Problem::Missing("name the subset").at("name"));
    }
    if subset.name.len() > 63 || !subset.name.bytes().all(valid) {
        let form = "at most 63 letters, digits, '-', '.' and '_'";
        let value = subset.name.escape_debug().to_string();
        return Err(Problem::Form { value, form }.at("name"));
    }
    match_labels("labels", &subset.labels)?;
    match &subset.traffic_policy {
        Some(policy) => check_policy(policy).map_err(|error| error.within("trafficPolicy")),
        None => Ok(()),
    }
}

fn check_policy(policy: &TrafficPolicy) -> Result<(), InvalidObject> {
    if *policy == TrafficPolicy::default() {
        return Err(Problem::Missing("set one of its fields, or remove it").at(""));
    }
    if let Some(tunnel) = &policy.tunnel {
        if policy.proxy_protocol.is_some() {
            return Err(Problem::Conflict("tunnel").at("proxyProtocol"));
        }
        check_tunnel(tunnel).map_err(|error| error.within("tunnel"))?;
    }
    if let Some(percent) = policy.retry_budget.and_then(|budget| budget.percent) {
        share("retryBudget.percent", percent.0)?;
    }
    check_blocks(&PortTrafficPolicy {
        load_balancer: policy.load_balancer.clone(),
        connection_pool: policy.connection_pool.clone(),
        outlier_detection: policy.outlier_detection.clone(),
        tls: policy.tls.clone(),
        ..PortTrafficPolicy::default()
    })?;
    at_most("portLevelSettings", policy.port_level_settings.len(), MAX_ENTRIES)?;
    each("portLevelSettings", &policy.port_level_settings, |settings| {
        port(settings.port.number).map_err(|problem| problem.at("port.number"))?;
        if *settings == (PortTrafficPolicy { port: settings.port, ..PortTrafficPolicy::default() })
        {
            return Err(Problem::Missing("set one of its fields, or remove the entry").at(""));
        }
        check_blocks(settings)
    })
}

fn check_tunnel(tunnel: &TunnelSettings) -> Result<(), InvalidObject> {
    if !matches!(tunnel.protocol.as_str(), "" | "CONNECT" | "POST") {
        let value = tunnel.protocol.escape_debug().to_string();
        return Err(Problem::Unknown { value, known: "CONNECT and POST" }.at("protocol"));
    }
    if tunnel.target_host.is_empty() {
        return Err(Problem::Missing("name the host that the proxy connects to").at("targetHost"));
    }
    port(tunnel.target_port).map_err(|problem| problem.at("targetPort"))
}

fn check_blocks(policy: &PortTrafficPolicy) -> Result<(), InvalidObject> {
    if let Some(settings) = &policy.load_balancer {
        check_balancer(settings).map_err(|error| error.within("loadBalancer"))?;
    }
    if let Some(settings) = &policy.connection_pool {
        check_pool(settings).map_err(|error| error.within("connectionPool"))?;
    }
    if let Some(settings) = &policy.outlier_detection {
        check_outliers(settings).map_err(|error| error.within("outlierDetection"))?;
    }
    match &policy.tls {
        Some(tls) => check_tls(tls).map_err(|error| error.within("tls")),
        None => Ok(()),
    }
}

fn check_balancer(settings: &LoadBalancerSettings) -> Result<(), InvalidObject> {
    if let Some(hash) = &settings.consistent_hash {
        if settings.simple.is_some() {
            return Err(Problem::Conflict("simple").at("consistentHash"));
        }
        check_hash(hash).map_err(|error| error.within("consistentHash"))?;
    }
    if settings.locality_lb_setting.is_some() && settings.zone_aware_lb_setting.is_some() {
        return Err(Problem::Conflict("localityLbSetting").at("zoneAwareLbSetting"));
    }
    if let Some(locality) = &settings.locality_lb_setting {
        check_locality(locality).map_err(|error| error.within("localityLbSetting"))?;
    }
    if let Some(duration) = settings.warmup_duration_secs {
        time("warmupDurationSecs", duration)?;
    }
    let Some(warmup) = &settings.warmup else { return Ok(()) };
    if matches!(settings.simple, Some(SimpleBalancer::Random | SimpleBalancer::Passthrough)) {
        return Err(Problem::Needs("ROUND_ROBIN or LEAST_REQUEST").at("warmup"));
    }
    let Some(duration) = warmup.duration else {
        return Err(Problem::Missing("say how long").at("warmup.duration"));
    };
    time("warmup.duration", duration)?;
    share("warmup.minimumPercent", warmup.minimum_percent.unwrap_or_default().0)?;
    match warmup.aggression {
        Some(aggression) if !(1.0..=MAX_AGGRESSION).contains(&aggression.0) => {
            let value = aggression.to_string();
            Err(Problem::Form { value, form: "1 to 1000" }.at("warmup.aggression"))
        }
        Some(_) | None => Ok(()),
    }
}

fn check_hash(hash: &HashSettings) -> Result<(), InvalidObject> {
    let keys = [
        hash.http_header_name.is_some(),
        hash.http_cookie.is_some(),
        hash.use_source_ip.is_some(),
        hash.http_query_parameter_name.is_some(),
    ];
    match keys.into_iter().filter(|is_there| *is_there).count() {
        0 => {
            let missing = "set it, httpCookie, useSourceIp or httpQueryParameterName";
            return Err(Problem::Missing(missing).at("httpHeaderName"));
        }
        1 => {}
        _ => return Err(Problem::Conflict("other keys").at("")),
    }
    if hash.http_cookie.as_ref().is_some_and(|cookie| cookie.name.is_empty()) {
        return Err(Problem::Missing("name the cookie").at("httpCookie.name"));
    }
    let ring = hash.ring_hash.map(|ring| ring.minimum_ring_size);
    for (field, size) in [
        ("minimumRingSize", hash.minimum_ring_size),
        ("ringHash.minimumRingSize", ring.unwrap_or_default()),
    ] {
        if size > MAX_RING_SIZE {
            return Err(
                Problem::Form { value: size.to_string(), form: "at most 8388608" }.at(field)
            );
        }
    }
    match (&hash.ring_hash, hash.maglev) {
        (Some(_), Some(_)) => Err(Problem::Conflict("ringHash").at("maglev")),
        (_, Some(maglev)) if !is_prime(maglev.table_size) => {
            let value = maglev.table_size.to_string();
            Err(Problem::Form { value, form: "a prime less than 5000011" }.at("maglev.tableSize"))
        }
        (_, Some(_) | None) => Ok(()),
    }
}

fn is_prime(number: u64) -> bool {
    let has_divisor = || (2..=number.isqrt()).any(|divisor| number.is_multiple_of(divisor));
    (2..MAX_TABLE_SIZE).contains(&number) && !has_divisor()
}

pub(super) fn check_locality(locality: &LocalitySettings) -> Result<(), InvalidObject> {
    let LocalitySettings { distribute, failover, failover_priority, .. } = locality;
    let fails_over = !failover.is_empty() || !failover_priority.is_empty();
    if fails_over && !distribute.is_empty() {
        return Err(Problem::Conflict("failover and failoverPriority").at("distribute"));
    }
    each("distribute", distribute, |entry| {
        let sum: u64 = entry.to.values().copied().map(u64::from).sum();
        if sum == 100 {
            return Ok(());
        }
        Err(Problem::Form { value: sum.to_string(), form: "shares with the sum 100" }.at("to"))
    })?;
    each("failover", failover, |entry| {
        if entry.from.is_empty() || entry.to.is_empty() {
            return Err(Problem::Missing("name both regions").at("from"));
        }
        if entry.from == entry.to {
            return Err(Problem::Form { value: entry.to.clone(), form: "another region" }.at("to"));
        }
        Ok(())
    })
}

fn check_pool(settings: &ConnectionPoolSettings) -> Result<(), InvalidObject> {
    let ConnectionPoolSettings { tcp, http } = settings;
    let numbers = [
        ("tcp.maxConnections", tcp.max_connections),
        ("http.http1MaxPendingRequests", http.http1_max_pending_requests),
        ("http.http2MaxRequests", http.http2_max_requests),
        ("http.maxRequestsPerConnection", http.max_requests_per_connection),
        ("http.maxRetries", http.max_retries),
        ("http.maxConcurrentStreams", http.max_concurrent_streams),
    ];
    numbers.into_iter().try_for_each(|(field, number)| count(field, number))?;
    if let Some(timeout) = tcp.connect_timeout {
        time("tcp.connectTimeout", timeout)?;
    }
    times("tcp.idleTimeout", tcp.idle_timeout)?;
    times("http.idleTimeout", http.idle_timeout)?;
    times("tcp.maxConnectionDuration", tcp.max_connection_duration)?;
    if let Some(keepalive) = tcp.tcp_keepalive {
        times("tcp.tcpKeepalive.time", keepalive.time)?;
        times("tcp.tcpKeepalive.interval", keepalive.interval)?;
    }
    if let Some(keepalive) = http.http2_keep_alive {
        needed("http.http2KeepAlive.interval", keepalive.interval)?;
        needed("http.http2KeepAlive.timeout", keepalive.timeout)?;
    }
    if http.use_client_protocol && http.h2_upgrade_policy == H2Upgrade::Upgrade {
        return Err(Problem::Conflict("h2UpgradePolicy UPGRADE").at("http.useClientProtocol"));
    }
    Ok(())
}

fn check_outliers(settings: &OutlierSettings) -> Result<(), InvalidObject> {
    count("consecutiveErrors", settings.consecutive_errors)?;
    for (field, percent) in [
        ("maxEjectionPercent", settings.max_ejection_percent),
        ("minHealthPercent", settings.min_health_percent),
    ] {
        if !(0..=100).contains(&percent) {
            return Err(Problem::Form { value: percent.to_string(), form: "0 to 100" }.at(field));
        }
    }
    for (field, given) in
        [("interval", settings.interval), ("baseEjectionTime", settings.base_ejection_time)]
    {
        if let Some(given) = given {
            time(field, given)?;
        }
    }
    let splits = settings.split_external_local_origin_errors;
    if !splits && settings.consecutive_local_origin_failures.unwrap_or_default() > 0 {
        let other = "splitExternalLocalOriginErrors";
        return Err(Problem::Needs(other).at("consecutiveLocalOriginFailures"));
    }
    let is_status = |code: &u32| (100..600).contains(code);
    let codes = &settings.outlier_detection_http_error_codes;
    match codes.iter().position(|code| !is_status(code)) {
        Some(i) => {
            let field = format!("outlierDetectionHttpErrorCodes[{i}]");
            let value = codes[i].to_string();
            Err(Problem::Form { value, form: "a status from 100 to 599" }.at(&field))
        }
        None => Ok(()),
    }
}

fn check_tls(tls: &ClientTls) -> Result<(), InvalidObject> {
    let by_file = !tls.client_certificate.is_empty() && !tls.private_key.is_empty();
    let has_files = [&tls.client_certificate, &tls.private_key, &tls.ca_certificates]
        .iter()
        .any(|path| !path.is_empty());
    match tls.mode {
        ClientTlsMode::Simple | ClientTlsMode::Mutual if !tls.credential_name.is_empty() => {
            if has_files || !tls.ca_crl.is_empty() {
                return Err(Problem::Conflict("paths of files").at("credentialName"));
            }
            if !is_name(&tls.credential_name) {
                let value = tls.credential_name.escape_debug().to_string();
                let form = "the name of a secret in the namespace of the waypoint";
                return Err(Problem::Form { value, form }.at("credentialName"));
            }
            Ok(())
        }
        ClientTlsMode::Mutual if !by_file => {
            let missing = "set it together with privateKey, or set credentialName";
            Err(Problem::Missing(missing).at("clientCertificate"))
        }
        ClientTlsMode::IstioMutual if has_files || !tls.credential_name.is_empty() => {
            Err(Problem::Conflict("certificates other than those of the mesh").at("mode"))
        }
        ClientTlsMode::Disable
        | ClientTlsMode::Simple
        | ClientTlsMode::Mutual
        | ClientTlsMode::IstioMutual => Ok(()),
    }
}

fn count(field: &str, number: i64) -> Result<(), InvalidObject> {
    if i32::try_from(number).is_ok_and(|number| number >= 0) {
        return Ok(());
    }
    Err(Problem::Form { value: number.to_string(), form: "0 to 2147483647" }.at(field))
}

/// Checks a time that has to be given.
fn needed(field: &str, given: Option<Time>) -> Result<(), InvalidObject> {
    let missing = || Problem::Missing("say how long").at(field);
    time(field, given.ok_or_else(missing)?)
}

fn share(field: &str, percent: f64) -> Result<(), InvalidObject> {
    if (0.0..=100.0).contains(&percent) {
        return Ok(());
    }
    Err(Problem::Form { value: percent.to_string(), form: "0 to 100" }.at(field))
}
