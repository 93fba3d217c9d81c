//! Decides which connections a workload accepts, from Istio's L4 authorization policies.
//!
//! Pure: no clock, no locks, no I/O. A policy is checked and compiled once, when it arrives
//! ([`PolicyIndex`]); each workload then gets its own evaluator ([`WorkloadPolicies`]), which
//! decides a [`Flow`] without allocating and names the policy that decided.

mod convert;
mod evaluate;
mod index;
mod matching;
mod peer_authentication;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use ipnet::IpNet;

pub use self::{
    evaluate::{DryRun, DryRunAllow, WorkloadPolicies},
    index::PolicyIndex,
    peer_authentication::{
        Lowered, MtlsMode, PeerAuthentication, PeerAuthenticationTarget, ROOT_NAMESPACE, lower,
    },
};
use crate::{
    identity::{Identity, Namespace, ServiceAccount},
    workload::PolicyKey,
};

/// Start of the names of policies that deny everybody but waypoints. No object of a cluster has such a
/// name.
pub const WAYPOINT_DEMAND_PREFIX: &str = "only_through_";

/// A connection about to be accepted, as the receiving side sees it.
#[derive(Clone, Copy, Debug)]
pub struct Flow<'a> {
    /// Address of the peer's socket: the tunnel's peer for HBONE, never a forwarded header.
    pub source: IpAddr,
    /// Identity that the peer proved; `None` for plaintext.
    pub identity: Option<&'a Identity>,
    /// Address and port of the application that is connected to.
    pub destination: SocketAddr,
}

/// Decision about a flow, with the policy that made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Accept; names the ALLOW policy that matched, `None` where no ALLOW policy applies.
    Allow(Option<PolicyKey>),
    /// Refuse.
    Deny(DenyReason),
}

/// Why a flow is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DenyReason {
    /// A DENY policy matched.
    #[error("denied by policy {0}")]
    Policy(PolicyKey),
    /// ALLOW policies apply and none matched; names the first of them.
    #[error("no ALLOW policy matches, such as {0}")]
    NotAllowed(PolicyKey),
    /// The workload names a policy that has not arrived, so what it would say is unknown.
    #[error("policy {0} is named by the workload but not known")]
    UnknownPolicy(PolicyKey),
}

/// An authorization policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Unique key.
    pub key: PolicyKey,
    /// Which workloads it applies to.
    pub scope: Scope,
    /// What happens to flows that match.
    pub action: Action,
    /// Whether matches are only reported.
    pub dry_run: bool,
    /// Matches when any of these does; never when there are none.
    pub rules: Vec<Rule>,
}

/// Which workloads a policy applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All workloads of the mesh.
    Global,
    /// All workloads of the policy's namespace.
    Namespace,
    /// The workloads that name the policy.
    WorkloadSelector,
}

/// What a policy does with flows that match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Accepts them, and with that refuses what no ALLOW policy matches.
    Allow,
    /// Refuses them.
    Deny,
}

/// Matches when all its clauses do; with no clause, always.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// All must match.
    pub clauses: Vec<Clause>,
}

/// Matches when any of its matches does; with none, always.
///
/// A [`Match`] without any condition never does, so a clause of only such matches is false.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clause {
    /// One must match.
    pub matches: Vec<Match>,
}

/// Conditions that must hold together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Match {
    /// Namespace of the peer's identity; the empty string without one.
    pub namespaces: Condition<StringMatch>,
    /// The peer's SPIFFE id without its scheme; nothing matches without an identity.
    pub principals: Condition<StringMatch>,
    /// Service account of the peer, whatever its trust domain.
    pub service_accounts: Condition<ServiceAccountMatch>,
    /// Address of the peer's socket.
    pub source_ips: Condition<IpNet>,
    /// Address of the application.
    pub destination_ips: Condition<IpNet>,
    /// Port of the application.
    pub destination_ports: Condition<u16>,
}

/// Values of one property of a flow, of which one must be hit and none may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition<T> {
    /// One must hit, unless there are none.
    pub any_of: Vec<T>,
    /// None may hit.
    pub none_of: Vec<T>,
}

/// How a text is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StringMatch {
    /// Equal.
    Exact(Arc<str>),
    /// Begins with.
    Prefix(Arc<str>),
    /// Ends with.
    Suffix(Arc<str>),
    /// Not empty.
    Presence,
}

/// A service account of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAccountMatch {
    /// Namespace of the account.
    pub namespace: Namespace,
    /// Name of the account.
    pub service_account: ServiceAccount,
}

// === impl Condition ===

impl<T> Default for Condition<T> {
    fn default() -> Self {
        Self { any_of: Vec::new(), none_of: Vec::new() }
    }
}
