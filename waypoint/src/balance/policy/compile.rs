//! Checks what the control plane says, and fills in what it does not say.

use std::{fmt, time::Duration};

use mesh_api::proto::l7::{self, consistent_hash, load_balancer};

use super::{
    Algorithm, ConnectionPool, ConsistentHash, HashCookie, HashKey, HashTable, Http2Keepalive,
    HttpVersion, Keepalive, LocalityPolicy, OutlierDetection, Policy, RetryBudget, Warmup,
};

/// Points on a ring unless more are asked for.
const DEFAULT_RING_SIZE: u32 = 1024;

/// Points on a ring that may be asked for: 96 MiB.
const MAX_RING_SIZE: u32 = 8 << 20;

/// Entries of a Maglev table unless a number is given; it is prime.
const DEFAULT_MAGLEV_SIZE: u32 = 65_537;

/// Entries of a Maglev table that may be asked for: 20 MB.
const MAX_MAGLEV_SIZE: u32 = 5_000_011;

/// Part of its share that a new endpoint gets at once, in percent.
const DEFAULT_WARMUP_PERCENT: f64 = 10.0;

/// Exponent of the growth of a new endpoint's share, inverted.
const DEFAULT_AGGRESSION: f64 = 1.0;

/// Requests without an answer that have an endpoint spared, where those count on their own.
const DEFAULT_LOCAL_FAILURES: u32 = 5;

/// Time between two looks at which endpoints to use again.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(10);

/// Time for which an endpoint is spared first.
const DEFAULT_EJECTION_TIME: Duration = Duration::from_secs(30);

/// Share of endpoints that may be spared.
const DEFAULT_EJECTION_PERCENT: u32 = 10;

/// Retries for a hundred requests.
const DEFAULT_BUDGET_PERCENT: f64 = 20.0;

/// Retries that are always allowed.
const DEFAULT_MIN_RETRIES: u32 = 3;

/// Least and longest time of a probe of a connection that Linux takes: whole seconds of 15 bits.
const MIN_KEEPALIVE: Duration = Duration::from_secs(1);
const MAX_KEEPALIVE: Duration = Duration::from_secs(32_767);

/// Shortest time between two probes of HTTP/2: the answers must not look like a flood.
const MIN_HTTP2_INTERVAL: Duration = Duration::from_secs(1);

/// Most probes of a connection that Linux takes.
const MAX_PROBES: u32 = 127;

/// A policy that cannot be meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {problem}")]
pub struct InvalidPolicy {
    /// Path of the field in the message `Variant`.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// It is required.
    #[error("is missing")]
    Missing,
    /// It is a duration that is less than nothing, or longer than can be told.
    #[error("is not a duration that can pass")]
    Duration,
    /// It is outside of what is sensible.
    #[error("is {value}, not between {} and {}", .between.0, .between.1)]
    Range {
        /// What it is.
        value: Number,
        /// The least and the most that it can be.
        between: (u32, u32),
    },
    /// It is the number of no known choice.
    #[error("is {0}, which names none of its choices")]
    Choice(i32),
    /// It has to be prime.
    #[error("is {0}, which is not prime")]
    NotPrime(u32),
    /// It goes without what else is said.
    #[error("is given beside what it excludes")]
    BesideOthers,
}

/// A number as it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Number(String);

// === impl Number ===

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl Policy ===

impl TryFrom<&l7::Variant> for Policy {
    type Error = InvalidPolicy;

    fn try_from(variant: &l7::Variant) -> Result<Self, InvalidPolicy> {
        let balancer = variant.load_balancer.as_ref();
        let algorithm = balancer.and_then(|balancer| balancer.algorithm.as_ref());
        let locality = balancer.and_then(|balancer| balancer.locality.as_ref());
        let warmup = balancer.and_then(|balancer| balancer.warmup.as_ref());
        let pool = variant.connection_pool.as_ref().map(ConnectionPool::try_from).transpose()?;
        let outlier = variant.outlier_detection.as_ref();
        Ok(Self {
            subset: variant.labels.clone(),
            algorithm: algorithm.map(Algorithm::try_from).transpose()?,
            locality: locality.map(LocalityPolicy::compile).transpose()?,
            warmup: warmup.map(Warmup::try_from).transpose()?,
            pool: pool.unwrap_or_default(),
            outlier: outlier.map(OutlierDetection::try_from).transpose()?,
            retry_budget: variant.retry_budget.map(RetryBudget::try_from).transpose()?,
        })
    }
}

// === impl Algorithm ===

impl TryFrom<&load_balancer::Algorithm> for Algorithm {
    type Error = InvalidPolicy;

    fn try_from(algorithm: &load_balancer::Algorithm) -> Result<Self, InvalidPolicy> {
        match algorithm {
            load_balancer::Algorithm::Simple(number) => {
                let field = "load_balancer.simple";
                let choice = l7::SimpleAlgorithm::try_from(*number);
                Ok(match choice.map_err(|_| invalid(field, Problem::Choice(*number)))? {
                    l7::SimpleAlgorithm::LeastRequest => Self::LeastRequest,
                    l7::SimpleAlgorithm::RoundRobin => Self::RoundRobin,
                    l7::SimpleAlgorithm::Random => Self::Random,
                    l7::SimpleAlgorithm::Passthrough => Self::Passthrough,
                })
            }
            load_balancer::Algorithm::ConsistentHash(hash) => Ok(Self::Hash(hash.try_into()?)),
        }
    }
}

// === impl ConsistentHash ===

impl TryFrom<&l7::ConsistentHash> for ConsistentHash {
    type Error = InvalidPolicy;

    fn try_from(hash: &l7::ConsistentHash) -> Result<Self, InvalidPolicy> {
        Ok(Self { key: key(hash.key.as_ref())?, table: table(hash.table.as_ref())? })
    }
}

fn key(key: Option<&consistent_hash::Key>) -> Result<HashKey, InvalidPolicy> {
    use consistent_hash::Key;
    let named = |name: &str, field| {
        let missing = name.is_empty().then(|| invalid(field, Problem::Missing));
        missing.map_or_else(|| Ok(name.into()), Err)
    };
    match key {
        Some(Key::Header(name)) => {
            Ok(HashKey::Header(named(name, "load_balancer.consistent_hash.header")?))
        }
        Some(Key::QueryParameter(name)) => {
            let field = "load_balancer.consistent_hash.query_parameter";
            Ok(HashKey::QueryParameter(named(name, field)?))
        }
        Some(Key::Cookie(cookie)) => Ok(HashKey::Cookie(HashCookie {
            name: named(&cookie.name, "load_balancer.consistent_hash.cookie.name")?,
            path: cookie.path.as_str().into(),
            ttl: duration(cookie.ttl.as_ref(), "load_balancer.consistent_hash.cookie.ttl")?,
            attributes: cookie
                .attributes
                .iter()
                .map(|attribute| (attribute.name.as_str().into(), attribute.value.as_str().into()))
                .collect(),
        })),
        Some(Key::SourceIp(true)) => Ok(HashKey::SourceIp),
        Some(Key::SourceIp(false)) | None => {
            Err(invalid("load_balancer.consistent_hash.key", Problem::Missing))
        }
    }
}

fn table(table: Option<&consistent_hash::Table>) -> Result<HashTable, InvalidPolicy> {
    match table {
        None | Some(consistent_hash::Table::MinimumRingSize(0)) => {
            Ok(HashTable::Ring { minimum: DEFAULT_RING_SIZE })
        }
        Some(consistent_hash::Table::MinimumRingSize(size)) => {
            let field = "load_balancer.consistent_hash.minimum_ring_size";
            Ok(HashTable::Ring { minimum: within(*size, (1, MAX_RING_SIZE), field)? })
        }
        Some(consistent_hash::Table::MaglevTableSize(0)) => {
            Ok(HashTable::Maglev { size: DEFAULT_MAGLEV_SIZE })
        }
        Some(consistent_hash::Table::MaglevTableSize(size)) => {
            let field = "load_balancer.consistent_hash.maglev_table_size";
            let size = within(*size, (2, MAX_MAGLEV_SIZE), field)?;
            let is_prime = (2..=size.isqrt()).all(|divisor| size % divisor != 0);
            is_prime
                .then_some(HashTable::Maglev { size })
                .ok_or_else(|| invalid(field, Problem::NotPrime(size)))
        }
    }
}

// === impl Warmup ===

impl TryFrom<&l7::Warmup> for Warmup {
    type Error = InvalidPolicy;

    fn try_from(warmup: &l7::Warmup) -> Result<Self, InvalidPolicy> {
        let time = positive(warmup.duration.as_ref(), "load_balancer.warmup.duration")?;
        let percent = warmup.minimum_percent.unwrap_or(DEFAULT_WARMUP_PERCENT);
        let percent = within_percent(percent, "load_balancer.warmup.minimum_percent")?;
        let field = "load_balancer.warmup.aggression";
        let aggression = or_default(warmup.aggression, DEFAULT_AGGRESSION);
        Ok(Self {
            duration: time
                .ok_or_else(|| invalid("load_balancer.warmup.duration", Problem::Missing))?,
            minimum: percent / 100.0,
            // Below one it would have no end; the most that is of any use is far below this.
            aggression: within_float(aggression, (1, 1000), field)?,
        })
    }
}

// === impl ConnectionPool ===

impl TryFrom<&l7::ConnectionPool> for ConnectionPool {
    type Error = InvalidPolicy;

    fn try_from(pool: &l7::ConnectionPool) -> Result<Self, InvalidPolicy> {
        let default = Self::default();
        let limit = |given: u32| if given == 0 { u32::MAX } else { given };
        let field = "connection_pool.http_version";
        let version = l7::HttpVersion::try_from(pool.http_version)
            .map_err(|_| invalid(field, Problem::Choice(pool.http_version)))?;
        let connect = positive(pool.connect_timeout.as_ref(), "connection_pool.connect_timeout")?;
        // Zero is said by those who want none.
        let unless_zero = |given: Duration| Some(given).filter(|given| !given.is_zero());
        let idle = duration(pool.idle_timeout.as_ref(), "connection_pool.idle_timeout")?;
        let tcp_idle = pool.tcp_idle_timeout.as_ref();
        let tcp_idle = duration(tcp_idle, "connection_pool.tcp_idle_timeout")?;
        let longest = pool.max_connection_duration.as_ref();
        Ok(Self {
            max_connections: limit(pool.max_connections),
            max_pending_requests: limit(pool.max_pending_requests),
            max_requests: limit(pool.max_requests),
            max_retries: limit(pool.max_retries),
            max_requests_per_connection: Some(pool.max_requests_per_connection)
                .filter(|requests| *requests > 0),
            connect_timeout: connect.unwrap_or(default.connect_timeout),
            idle_timeout: idle.map_or(default.idle_timeout, unless_zero),
            tcp_idle_timeout: tcp_idle.map_or(default.tcp_idle_timeout, unless_zero),
            max_connection_duration: positive(longest, "connection_pool.max_connection_duration")?,
            max_concurrent_streams: match pool.max_concurrent_streams {
                0 => default.max_concurrent_streams,
                given => given.min(default.max_concurrent_streams),
            },
            http_version: match version {
                l7::HttpVersion::ByPort => HttpVersion::ByPort,
                l7::HttpVersion::AlwaysHttp2 => HttpVersion::AlwaysHttp2,
                l7::HttpVersion::AsClient => HttpVersion::AsClient,
            },
            keepalive: pool.tcp_keepalive.as_ref().map(Keepalive::try_from).transpose()?,
            http2_keepalive: pool
                .http2_keepalive
                .as_ref()
                .map(Http2Keepalive::try_from)
                .transpose()?,
        })
    }
}

// === impl Http2Keepalive ===

impl TryFrom<&l7::Http2Keepalive> for Http2Keepalive {
    type Error = InvalidPolicy;

    fn try_from(keepalive: &l7::Http2Keepalive) -> Result<Self, InvalidPolicy> {
        let needed = |given: Option<&prost_types::Duration>, field| {
            positive(given, field)?.ok_or_else(|| invalid(field, Problem::Missing))
        };
        let field = "connection_pool.http2_keepalive.interval";
        let interval = needed(keepalive.interval.as_ref(), field)?;
        let timeout =
            needed(keepalive.timeout.as_ref(), "connection_pool.http2_keepalive.timeout")?;
        Ok(Self { interval: interval.max(MIN_HTTP2_INTERVAL), timeout })
    }
}

// === impl Keepalive ===

impl TryFrom<&l7::TcpKeepalive> for Keepalive {
    type Error = InvalidPolicy;

    fn try_from(keepalive: &l7::TcpKeepalive) -> Result<Self, InvalidPolicy> {
        let time = positive(keepalive.time.as_ref(), "connection_pool.tcp_keepalive.time")?;
        let interval = keepalive.interval.as_ref();
        let interval = positive(interval, "connection_pool.tcp_keepalive.interval")?;
        let seconds = |time: Duration| time.clamp(MIN_KEEPALIVE, MAX_KEEPALIVE);
        Ok(Self {
            probes: Some(keepalive.probes.min(MAX_PROBES)).filter(|probes| *probes > 0),
            time: time.map(seconds),
            interval: interval.map(seconds),
        })
    }
}

// === impl OutlierDetection ===

impl TryFrom<&l7::OutlierDetection> for OutlierDetection {
    type Error = InvalidPolicy;

    fn try_from(outlier: &l7::OutlierDetection) -> Result<Self, InvalidPolicy> {
        let counted = |given: u32| (given > 0).then_some(given);
        let interval = positive(outlier.interval.as_ref(), "outlier_detection.interval")?;
        let field = "outlier_detection.base_ejection_time";
        let base = positive(outlier.base_ejection_time.as_ref(), field)?;
        let max = counted(outlier.max_ejection_percent).unwrap_or(DEFAULT_EJECTION_PERCENT);
        let min = outlier.min_health_percent;
        let statuses = outlier.error_statuses.iter().map(|status| {
            let status = within(*status, (100, 599), "outlier_detection.error_statuses")?;
            Ok(u16::try_from(status).unwrap_or_default())
        });
        let mut statuses = statuses.collect::<Result<Vec<_>, _>>()?;
        statuses.sort_unstable();
        let local = counted(outlier.consecutive_local_failures).unwrap_or(DEFAULT_LOCAL_FAILURES);
        Ok(Self {
            consecutive_errors: counted(outlier.consecutive_5xx),
            consecutive_gateway_errors: counted(outlier.consecutive_gateway_errors),
            consecutive_local_failures: outlier.split_local_errors.then_some(local),
            interval: interval.unwrap_or(DEFAULT_INTERVAL),
            base_ejection_time: base.unwrap_or(DEFAULT_EJECTION_TIME),
            max_ejection_percent: within(max, PERCENT, "outlier_detection.max_ejection_percent")?,
            min_health_percent: within(min, PERCENT, "outlier_detection.min_health_percent")?,
            error_statuses: statuses.into(),
        })
    }
}

// === impl RetryBudget ===

impl TryFrom<l7::RetryBudget> for RetryBudget {
    type Error = InvalidPolicy;

    fn try_from(budget: l7::RetryBudget) -> Result<Self, InvalidPolicy> {
        let percent = budget.percent.unwrap_or(DEFAULT_BUDGET_PERCENT);
        Ok(Self {
            percent: within_percent(percent, "retry_budget.percent")?,
            min_concurrency: match budget.min_concurrency {
                0 => DEFAULT_MIN_RETRIES,
                given => given,
            },
        })
    }
}

const PERCENT: (u32, u32) = (0, 100);

fn invalid(field: &'static str, problem: Problem) -> InvalidPolicy {
    InvalidPolicy { field, problem }
}

fn or_default(given: f64, default: f64) -> f64 {
    if given == 0.0 { default } else { given }
}

fn within(value: u32, between: (u32, u32), field: &'static str) -> Result<u32, InvalidPolicy> {
    let out_of_range = || Problem::Range { value: Number(value.to_string()), between };
    (between.0..=between.1)
        .contains(&value)
        .then_some(value)
        .ok_or_else(|| invalid(field, out_of_range()))
}

fn within_percent(value: f64, field: &'static str) -> Result<f64, InvalidPolicy> {
    within_float(value, PERCENT, field)
}

/// Returns `value`, unless it is not between the two: as no value is that is not a number.
fn within_float(
    value: f64,
    between: (u32, u32),
    field: &'static str,
) -> Result<f64, InvalidPolicy> {
    let out_of_range = || Problem::Range { value: Number(value.to_string()), between };
    (f64::from(between.0)..=f64::from(between.1))
        .contains(&value)
        .then_some(value)
        .ok_or_else(|| invalid(field, out_of_range()))
}

fn duration(
    given: Option<&prost_types::Duration>,
    field: &'static str,
) -> Result<Option<Duration>, InvalidPolicy> {
    let convert = |given: &prost_types::Duration| {
        Duration::try_from(*given).map_err(|_| invalid(field, Problem::Duration))
    };
    given.map(convert).transpose()
}

/// As [`duration`], where no time at all says nothing.
fn positive(
    given: Option<&prost_types::Duration>,
    field: &'static str,
) -> Result<Option<Duration>, InvalidPolicy> {
    Ok(duration(given, field)?.filter(|time| !time.is_zero()))
}
