//! How the endpoints of a destination are used: checked, with every default filled in.

use std::{sync::Arc, time::Duration};

use super::endpoint::Labels;
use crate::limits::DEFAULT_TCP_IDLE_TIMEOUT;

mod compile;
mod locality;
#[cfg(test)]
mod tests;

pub use compile::{InvalidPolicy, Problem};
pub use locality::{Distribution, LocalityPattern, LocalityPolicy, PreferredLabel, RegionFailover};

/// Time for a connection to an endpoint to be made.
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Time after which an unused connection is closed: servers close theirs after a minute or more, and a
/// request should not meet that.
pub const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(50);

/// How one port and subset of a service is used.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {
    /// Labels that endpoints of the subset have.
    pub subset: Labels,
    /// How one of equals is chosen; [`Algorithm::LeastRequest`] unless the service says otherwise.
    pub algorithm: Option<Algorithm>,
    /// Which endpoints are preferred for where they are, if that is said.
    pub locality: Option<LocalityPolicy>,
    /// How new endpoints are eased in.
    pub warmup: Option<Warmup>,
    /// What connections and requests there may be.
    pub pool: ConnectionPool,
    /// When endpoints that fail are spared.
    pub outlier: Option<OutlierDetection>,
    /// What retries there may be, in place of [`ConnectionPool::max_retries`].
    pub retry_budget: Option<RetryBudget>,
}

/// How one of many equal endpoints is chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// The less busy one of two drawn by chance.
    #[default]
    LeastRequest,
    /// One after the other.
    RoundRobin,
    /// Any.
    Random,
    /// The one that the client addressed.
    Passthrough,
    /// Always the same one for the same key.
    Hash(ConsistentHash),
}

/// What keeps requests together, and how they are spread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsistentHash {
    /// What requests for the same endpoint have in common.
    pub key: HashKey,
    /// How keys are mapped to endpoints.
    pub table: HashTable,
}

/// What of a request is hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    /// The header of this name, in lower case.
    Header(Arc<str>),
    /// A cookie.
    Cookie(HashCookie),
    /// The address of the client.
    SourceIp,
    /// The first parameter of this name.
    QueryParameter(Arc<str>),
}

/// A cookie that names an endpoint by chance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashCookie {
    /// Its name.
    pub name: Arc<str>,
    /// Its path; empty for none.
    pub path: Arc<str>,
    /// How long a client without one is to keep the one that it gets: zero for the session. Absent:
    /// it gets none.
    pub ttl: Option<Duration>,
    /// Further attributes, with their values, of which some have none.
    pub attributes: Box<[(Box<str>, Box<str>)]>,
}

/// How keys are mapped to endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashTable {
    /// Points on a ring, at least so many.
    Ring {
        /// Number of points.
        minimum: u32,
    },
    /// A table of a size that is prime.
    Maglev {
        /// Number of entries.
        size: u32,
    },
}

/// How new endpoints are eased in: for [`Algorithm::LeastRequest`] and [`Algorithm::RoundRobin`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Warmup {
    /// Time until they get their full share.
    pub duration: Duration,
    /// Part of their share that they get at once.
    pub minimum: f64,
    /// Exponent by which their part grows with time, inverted.
    pub aggression: f64,
}

/// What connections and requests there may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionPool {
    /// Connections at once.
    pub max_connections: u32,
    /// Requests that wait for a connection.
    pub max_pending_requests: u32,
    /// Requests that have a connection.
    pub max_requests: u32,
    /// Requests that are being tried again.
    pub max_retries: u32,
    /// Requests on one connection, one after the other or not; `None` for any number.
    pub max_requests_per_connection: Option<u32>,
    /// Time for a connection to be made.
    pub connect_timeout: Duration,
    /// Time after which an unused connection is closed, if ever.
    pub idle_timeout: Option<Duration>,
    /// Time after which a connection that is not HTTP and gets nowhere is closed, if ever.
    pub tcp_idle_timeout: Option<Duration>,
    /// Time after which a connection is closed, if ever.
    pub max_connection_duration: Option<Duration>,
    /// Requests on one HTTP/2 connection at once.
    pub max_concurrent_streams: u32,
    /// Which HTTP is spoken.
    pub http_version: HttpVersion,
    /// How connections are probed that have a socket of their own, if they are. Those through
    /// tunnels have none, and tunnels are probed anyway.
    pub keepalive: Option<Keepalive>,
    /// How connections that speak HTTP/2 are probed, if they are.
    pub http2_keepalive: Option<Http2Keepalive>,
}

/// How connections that speak HTTP/2 are probed: those that do not answer in time are closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http2Keepalive {
    /// Time between two probes.
    pub interval: Duration,
    /// Time for the answer.
    pub timeout: Duration,
}

/// How connections are probed; what is absent is as the system does it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keepalive {
    /// Probes without an answer after which a connection is lost.
    pub probes: Option<u32>,
    /// Time without a byte before the first one.
    pub time: Option<Duration>,
    /// Time between two.
    pub interval: Option<Duration>,
}

/// Version of HTTP to endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HttpVersion {
    /// What the port is declared to speak.
    #[default]
    ByPort,
    /// HTTP/2.
    AlwaysHttp2,
    /// What the client speaks.
    AsClient,
}

/// When endpoints that fail are spared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutlierDetection {
    /// Errors in a row.
    pub consecutive_errors: Option<u32>,
    /// Answers 502, 503 and 504 in a row.
    pub consecutive_gateway_errors: Option<u32>,
    /// Requests in a row that got no answer. Absent: they count as errors.
    pub consecutive_local_failures: Option<u32>,
    /// Time between two looks at which endpoints to use again.
    pub interval: Duration,
    /// Time for which an endpoint is spared, for each time that it was.
    pub base_ejection_time: Duration,
    /// Share of endpoints that may be spared, in percent; one always may.
    pub max_ejection_percent: u32,
    /// Share of usable endpoints below which all are used, in percent.
    pub min_health_percent: u32,
    /// Statuses that are errors, ascending; empty for those from 500.
    pub error_statuses: Box<[u16]>,
}

/// What retries there may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryBudget {
    /// For so many requests at once, in percent.
    pub percent: f64,
    /// But so many in any case.
    pub min_concurrency: u32,
}

// === impl Policy ===

impl Policy {
    /// Returns whether an endpoint of these labels is meant.
    pub fn selects(&self, labels: &Labels) -> bool {
        self.subset.iter().all(|(key, value)| labels.get(key) == Some(value))
    }

    /// Returns what of a request is hashed to choose its endpoint.
    pub fn hash_key(&self) -> Option<&HashKey> {
        match &self.algorithm {
            Some(Algorithm::Hash(hash)) => Some(&hash.key),
            Some(
                Algorithm::LeastRequest
                | Algorithm::RoundRobin
                | Algorithm::Random
                | Algorithm::Passthrough,
            )
            | None => None,
        }
    }
}

// === impl Warmup ===

impl Warmup {
    /// Returns which part of its share an endpoint of this age gets.
    pub(super) fn factor(&self, age: Duration) -> f64 {
        if age >= self.duration {
            return 1.0;
        }
        let elapsed = age.as_secs_f64() / self.duration.as_secs_f64();
        elapsed.powf(self.aggression.recip()).max(self.minimum)
    }
}

// === impl ConnectionPool ===

impl Default for ConnectionPool {
    fn default() -> Self {
        Self {
            max_connections: u32::MAX,
            max_pending_requests: u32::MAX,
            max_requests: u32::MAX,
            max_retries: u32::MAX,
            max_requests_per_connection: None,
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            idle_timeout: Some(DEFAULT_IDLE_TIMEOUT),
            tcp_idle_timeout: Some(DEFAULT_TCP_IDLE_TIMEOUT),
            max_connection_duration: None,
            max_concurrent_streams: i32::MAX.unsigned_abs(),
            http_version: HttpVersion::ByPort,
            keepalive: None,
            http2_keepalive: None,
        }
    }
}

// === impl OutlierDetection ===

impl OutlierDetection {
    pub(super) fn is_error(&self, status: u16) -> bool {
        match &*self.error_statuses {
            [] => status >= 500,
            statuses => statuses.binary_search(&status).is_ok(),
        }
    }
}
