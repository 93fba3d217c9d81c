use std::time::Duration;

use mesh_api::proto::l7::{self, consistent_hash, load_balancer};

use super::*;

fn seconds(seconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos: 0 }
}

fn balancer(balancer: l7::LoadBalancer) -> Result<Policy, InvalidPolicy> {
    let variant = l7::Variant { load_balancer: Some(balancer), ..Default::default() };
    Policy::try_from(&variant)
}

fn hash(
    key: Option<consistent_hash::Key>,
    table: Option<consistent_hash::Table>,
) -> Result<Policy, InvalidPolicy> {
    let hash = l7::ConsistentHash { key, table };
    let algorithm = Some(load_balancer::Algorithm::ConsistentHash(hash));
    balancer(l7::LoadBalancer { algorithm, ..Default::default() })
}

fn simple(number: i32) -> Result<Policy, InvalidPolicy> {
    let algorithm = Some(load_balancer::Algorithm::Simple(number));
    balancer(l7::LoadBalancer { algorithm, ..Default::default() })
}

fn pool(pool: l7::ConnectionPool) -> Result<ConnectionPool, InvalidPolicy> {
    let variant = l7::Variant { connection_pool: Some(pool), ..Default::default() };
    Policy::try_from(&variant).map(|policy| policy.pool)
}

fn outlier(outlier: l7::OutlierDetection) -> Result<OutlierDetection, InvalidPolicy> {
    let variant = l7::Variant { outlier_detection: Some(outlier), ..Default::default() };
    Policy::try_from(&variant).map(|policy| policy.outlier.unwrap())
}

fn locality(preference: l7::LocalityPreference) -> Result<LocalityPolicy, InvalidPolicy> {
    balancer(l7::LoadBalancer { locality: Some(preference), ..Default::default() })
        .map(|policy| policy.locality.unwrap())
}

fn warmup(warmup: l7::Warmup) -> Result<Warmup, InvalidPolicy> {
    balancer(l7::LoadBalancer { warmup: Some(warmup), ..Default::default() })
        .map(|policy| policy.warmup.unwrap())
}

fn budget(percent: Option<f64>, min_concurrency: u32) -> Result<RetryBudget, InvalidPolicy> {
    let retry_budget = Some(l7::RetryBudget { percent, min_concurrency });
    let policy = Policy::try_from(&l7::Variant { retry_budget, ..Default::default() });
    policy.map(|policy| policy.retry_budget.unwrap())
}

#[test]
fn who_says_nothing_gets_the_defaults() {
    assert_eq!(Policy::try_from(&l7::Variant::default()), Ok(Policy::default()));
    assert_eq!(Algorithm::default(), Algorithm::LeastRequest);
    let expected = ConnectionPool {
        max_connections: u32::MAX,
        max_pending_requests: u32::MAX,
        max_requests: u32::MAX,
        max_retries: u32::MAX,
        max_requests_per_connection: None,
        connect_timeout: Duration::from_secs(10),
        idle_timeout: Some(Duration::from_secs(50)),
        tcp_idle_timeout: Some(Duration::from_hours(1)),
        max_connection_duration: None,
        max_concurrent_streams: 2_147_483_647,
        http_version: HttpVersion::ByPort,
        keepalive: None,
        http2_keepalive: None,
    };
    assert_eq!(pool(l7::ConnectionPool::default()), Ok(expected));
    let expected = OutlierDetection {
        consecutive_errors: None,
        consecutive_gateway_errors: None,
        consecutive_local_failures: None,
        interval: Duration::from_secs(10),
        base_ejection_time: Duration::from_secs(30),
        max_ejection_percent: 10,
        min_health_percent: 0,
        error_statuses: [].into(),
    };
    assert_eq!(outlier(l7::OutlierDetection::default()), Ok(expected));
    assert_eq!(budget(None, 0), Ok(RetryBudget { percent: 20.0, min_concurrency: 3 }));
    assert_eq!(budget(Some(0.0), 1), Ok(RetryBudget { percent: 0.0, min_concurrency: 1 }));
    let given = l7::Warmup { duration: Some(seconds(60)), ..Default::default() };
    let expected = Warmup { duration: Duration::from_mins(1), minimum: 0.1, aggression: 1.0 };
    assert_eq!(warmup(given), Ok(expected));
}

#[test]
fn limits_are_as_given() {
    let given = l7::ConnectionPool {
        max_connections: 1,
        max_pending_requests: 2,
        max_requests: 3,
        max_retries: 4,
        max_requests_per_connection: 5,
        connect_timeout: Some(seconds(6)),
        idle_timeout: Some(seconds(0)),
        tcp_idle_timeout: Some(seconds(7)),
        max_connection_duration: Some(seconds(8)),
        max_concurrent_streams: 9,
        http_version: l7::HttpVersion::AsClient.into(),
        tcp_keepalive: Some(l7::TcpKeepalive {
            probes: 3,
            time: Some(seconds(20)),
            interval: Some(seconds(5)),
        }),
        http2_keepalive: Some(l7::Http2Keepalive {
            interval: Some(seconds(0)),
            timeout: Some(seconds(10)),
        }),
    };
    let field = "connection_pool.http2_keepalive.interval is missing";
    refused(&[(pool(given).err(), field)]);
    let given = l7::ConnectionPool {
        http2_keepalive: Some(l7::Http2Keepalive {
            interval: Some(prost_types::Duration { seconds: 0, nanos: 1_000_000 }),
            timeout: Some(seconds(10)),
        }),
        ..given
    };
    let expected = ConnectionPool {
        max_connections: 1,
        max_pending_requests: 2,
        max_requests: 3,
        max_retries: 4,
        max_requests_per_connection: Some(5),
        connect_timeout: Duration::from_secs(6),
        // None, for whoever says zero.
        idle_timeout: None,
        tcp_idle_timeout: Some(Duration::from_secs(7)),
        max_connection_duration: Some(Duration::from_secs(8)),
        max_concurrent_streams: 9,
        http_version: HttpVersion::AsClient,
        keepalive: Some(Keepalive {
            probes: Some(3),
            time: Some(Duration::from_secs(20)),
            interval: Some(Duration::from_secs(5)),
        }),
        // As short as it may be.
        http2_keepalive: Some(Http2Keepalive {
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(10),
        }),
    };
    assert_eq!(pool(given), Ok(expected));
}

#[test]
fn probes_are_such_as_the_system_takes() {
    let keepalive = |probes, time: prost_types::Duration| {
        let (time, interval) = (Some(time), Some(time));
        let tcp_keepalive = Some(l7::TcpKeepalive { probes, time, interval });
        pool(l7::ConnectionPool { tcp_keepalive, ..Default::default() }).unwrap().keepalive
    };
    let expected = |probes, seconds: Option<u64>| {
        let time = seconds.map(Duration::from_secs);
        Some(Keepalive { probes, time, interval: time })
    };
    let millisecond = prost_types::Duration { seconds: 0, nanos: 1_000_000 };
    assert_eq!(keepalive(0, seconds(0)), expected(None, None));
    assert_eq!(keepalive(1, millisecond), expected(Some(1), Some(1)));
    assert_eq!(keepalive(1_000, seconds(100_000)), expected(Some(127), Some(32_767)));
}

#[test]
fn algorithms_are_told_apart() {
    let cases = [
        (l7::SimpleAlgorithm::LeastRequest, Algorithm::LeastRequest),
        (l7::SimpleAlgorithm::RoundRobin, Algorithm::RoundRobin),
        (l7::SimpleAlgorithm::Random, Algorithm::Random),
        (l7::SimpleAlgorithm::Passthrough, Algorithm::Passthrough),
    ];
    for (given, expected) in cases {
        assert_eq!(simple(given.into()).map(|policy| policy.algorithm), Ok(Some(expected)));
    }
}

#[test]
fn hashes_have_a_key_and_a_table() {
    use consistent_hash::{Key, Table};
    let ring = |minimum| HashTable::Ring { minimum };
    let maglev = |size| HashTable::Maglev { size };
    let header = || (Key::Header("x-user".into()), HashKey::Header("x-user".into()));
    let query = (Key::QueryParameter("user".into()), HashKey::QueryParameter("user".into()));
    let cookie = l7::HashCookie {
        name: "user".into(),
        path: "/".into(),
        ttl: Some(seconds(0)),
        attributes: vec![l7::CookieAttribute { name: "SameSite".into(), value: "Lax".into() }],
    };
    let expected = HashCookie {
        name: "user".into(),
        path: "/".into(),
        ttl: Some(Duration::ZERO),
        attributes: [("SameSite".into(), "Lax".into())].into(),
    };
    let cases = [
        (header(), None, ring(1024)),
        (header(), Some(Table::MinimumRingSize(0)), ring(1024)),
        (query, Some(Table::MinimumRingSize(7)), ring(7)),
        ((Key::Cookie(cookie), HashKey::Cookie(expected)), None, ring(1024)),
        ((Key::SourceIp(true), HashKey::SourceIp), Some(Table::MaglevTableSize(0)), maglev(65_537)),
        (header(), Some(Table::MaglevTableSize(5_000_011)), maglev(5_000_011)),
    ];
    for ((given, key), table, expected) in cases {
        let policy = hash(Some(given), table).unwrap();
        let expected = ConsistentHash { key, table: expected };
        assert_eq!(policy.hash_key(), Some(&expected.key));
        assert_eq!(policy.algorithm, Some(Algorithm::Hash(expected)));
    }
}

#[test]
fn localities_are_shared_or_fail_over() {
    assert_eq!(
        locality(l7::LocalityPreference { disabled: true, ..Default::default() }),
        Ok(LocalityPolicy::Off)
    );
    let failover = vec![l7::RegionFailover { from: "a".into(), to: "b".into() }];
    let failover_priority = vec!["zone".into(), "version=v1".into()];
    let given = l7::LocalityPreference { failover, failover_priority, ..Default::default() };
    let expected = LocalityPolicy::Failover {
        regions: vec![RegionFailover { from: "a".into(), to: "b".into() }],
        labels: vec![
            PreferredLabel { key: "zone".into(), value: None },
            PreferredLabel { key: "version".into(), value: Some("v1".into()) },
        ],
    };
    assert_eq!(locality(given), Ok(expected));
    let to = [("*", 5), ("a/b/c", 20), ("a/*", 75), ("x", 0)];
    let to = to.map(|(to, weight)| (to.to_owned(), weight)).into();
    let distribute = vec![l7::LocalityShare { from: "a/*".into(), to }];
    let given = l7::LocalityPreference { distribute, ..Default::default() };
    let to = [("a/b/c", 20), ("a", 75), ("", 5)];
    let to = to.map(|(to, weight)| (LocalityPattern::new(to), weight)).into();
    let expected = vec![Distribution { from: LocalityPattern::new("a"), to }];
    assert_eq!(locality(given), Ok(LocalityPolicy::Distribute(expected)));
}

/// Checks the errors against what they say.
fn refused(cases: &[(Option<InvalidPolicy>, &str)]) {
    for (error, expected) in cases {
        assert_eq!(error.as_ref().map(InvalidPolicy::to_string).as_deref(), Some(*expected));
    }
}

#[test]
fn a_hash_that_cannot_be_meant_is_refused_with_its_field() {
    use consistent_hash::{Key, Table};
    let header = || Some(Key::Header("x".into()));
    let cookie = l7::HashCookie { ttl: Some(seconds(1)), ..Default::default() };
    let cases = [
        (simple(9).err(), "load_balancer.simple is 9, which names none of its choices"),
        (hash(None, None).err(), "load_balancer.consistent_hash.key is missing"),
        (
            hash(Some(Key::SourceIp(false)), None).err(),
            "load_balancer.consistent_hash.key is missing",
        ),
        (
            hash(Some(Key::Header(String::new())), None).err(),
            "load_balancer.consistent_hash.header is missing",
        ),
        (
            hash(Some(Key::QueryParameter(String::new())), None).err(),
            "load_balancer.consistent_hash.query_parameter is missing",
        ),
        (
            hash(Some(Key::Cookie(cookie)), None).err(),
            "load_balancer.consistent_hash.cookie.name is missing",
        ),
        (
            hash(header(), Some(Table::MinimumRingSize(9_000_000))).err(),
            "load_balancer.consistent_hash.minimum_ring_size is 9000000, not between 1 and 8388608",
        ),
        (
            hash(header(), Some(Table::MaglevTableSize(5_000_012))).err(),
            "load_balancer.consistent_hash.maglev_table_size is 5000012, not between 2 and 5000011",
        ),
        (
            hash(header(), Some(Table::MaglevTableSize(9))).err(),
            "load_balancer.consistent_hash.maglev_table_size is 9, which is not prime",
        ),
    ];
    refused(&cases);
}

#[test]
fn what_else_cannot_be_meant_is_refused_with_its_field() {
    let cases = [
        (warmup(l7::Warmup::default()).err(), "load_balancer.warmup.duration is missing"),
        (
            warmup(l7::Warmup {
                duration: Some(seconds(1)),
                minimum_percent: Some(101.0),
                aggression: 1.0,
            })
            .err(),
            "load_balancer.warmup.minimum_percent is 101, not between 0 and 100",
        ),
        (
            warmup(l7::Warmup {
                duration: Some(seconds(1)),
                minimum_percent: Some(1.0),
                aggression: f64::NAN,
            })
            .err(),
            "load_balancer.warmup.aggression is NaN, not between 1 and 1000",
        ),
        (
            pool(l7::ConnectionPool { connect_timeout: Some(seconds(-1)), ..Default::default() })
                .err(),
            "connection_pool.connect_timeout is not a duration that can pass",
        ),
        (
            pool(l7::ConnectionPool { http_version: 7, ..Default::default() }).err(),
            "connection_pool.http_version is 7, which names none of its choices",
        ),
        (
            outlier(l7::OutlierDetection { max_ejection_percent: 101, ..Default::default() }).err(),
            "outlier_detection.max_ejection_percent is 101, not between 0 and 100",
        ),
        (
            outlier(l7::OutlierDetection { min_health_percent: 101, ..Default::default() }).err(),
            "outlier_detection.min_health_percent is 101, not between 0 and 100",
        ),
        (
            outlier(l7::OutlierDetection { error_statuses: vec![600], ..Default::default() }).err(),
            "outlier_detection.error_statuses is 600, not between 100 and 599",
        ),
        (budget(Some(-1.0), 0).err(), "retry_budget.percent is -1, not between 0 and 100"),
        (
            locality(l7::LocalityPreference {
                distribute: vec![l7::LocalityShare::default()],
                failover_priority: vec!["zone".into()],
                ..Default::default()
            })
            .err(),
            "load_balancer.locality.distribute is given beside what it excludes",
        ),
    ];
    refused(&cases);
}

#[test]
fn new_endpoints_get_more_as_time_passes() {
    let warmup =
        |minimum, aggression| Warmup { duration: Duration::from_secs(100), minimum, aggression };
    let cases = [
        (warmup(0.1, 1.0), 0, 0.1),
        (warmup(0.1, 1.0), 5, 0.1),
        (warmup(0.1, 1.0), 50, 0.5),
        (warmup(0.1, 2.0), 25, 0.5),
        (warmup(0.1, 1.0), 100, 1.0),
        (warmup(0.1, 1.0), 1000, 1.0),
    ];
    for (warmup, age, expected) in cases {
        let factor = warmup.factor(Duration::from_secs(age));
        assert!((factor - expected).abs() < 1e-9, "{warmup:?} at {age}: {factor}");
    }
}

#[test]
fn a_subset_is_what_has_its_labels() {
    let labels = |labels: &[(&str, &str)]| -> Labels {
        labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let subset = |subset| Policy { subset, ..Default::default() };
    let endpoint: Labels = labels(&[("app", "web"), ("version", "v1")]);
    for (wanted, expected) in [
        (labels(&[]), true),
        (labels(&[("version", "v1")]), true),
        (labels(&[("version", "v2")]), false),
        (labels(&[("version", "v1"), ("zone", "a")]), false),
    ] {
        assert_eq!(subset(wanted.clone()).selects(&endpoint), expected, "{wanted:?}");
    }
}
