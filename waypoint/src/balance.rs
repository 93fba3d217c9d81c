//! Which endpoint a request goes to, and which are spared.
//!
//! A [`Cluster`] is one port and subset of a service: its [`Policy`] and its [`Endpoint`]s as they
//! were at one time. [`Cluster::choose`] picks an endpoint; the [`Picked`] counts as a request in
//! flight while it lives and takes the outcome. [`Cluster::connection`] and its like say whether
//! there may be one more. When anything changes, a new cluster takes over from the last one: what is
//! known of endpoints, and all that is counted, passes on.
//!
//! Nothing here reads a clock or makes random numbers, both come in; and nothing waits. All threads
//! share a cluster: what changes between two clusters is atomic, because limits hold for the process
//! and because an endpoint that fails for one thread fails for all.
//!
//! # Endpoints that are not ready
//!
//! take nothing and count for nothing, as if they were not there. The share of usable endpoints, by
//! which traffic spills over into other localities and panic begins, is that of the endpoints which
//! are not ejected; without outlier detection there is neither.

mod cluster;
mod dice;
mod endpoint;
mod group;
mod limits;
mod locality;
mod outlier;
mod policy;
mod presence;
mod shared;
mod table;
mod tiers;
mod weights;

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod tests;

pub use cluster::{Cluster, Context, NoEndpoint};
pub use endpoint::{Endpoint, Instance, Labels, Outcome, Picked, Tried};
pub use limits::{Overflow, Permit};
pub use policy::{
    Algorithm, ConnectionPool, ConsistentHash, DEFAULT_CONNECT_TIMEOUT, DEFAULT_IDLE_TIMEOUT,
    Distribution, HashCookie, HashKey, HashTable, Http2Keepalive, HttpVersion, InvalidPolicy,
    Keepalive, LocalityPattern, LocalityPolicy, OutlierDetection, Policy, PreferredLabel, Problem,
    RegionFailover, RetryBudget, Warmup,
};
pub use shared::Statistics;
pub use table::hash;
