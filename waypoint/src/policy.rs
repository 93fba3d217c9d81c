//! Decides which requests a service accepts, from the authorization policies of its waypoint.
//!
//! Pure: a policy is compiled once, when it arrives ([`PolicySet`]); each service then has its own
//! list of those that apply ([`ServicePolicies`]), which decides a request without allocating and
//! names the policy that decided. Who asks is what the connection proved ([`Subject`]); nothing
//! that a request says of its sender is looked at.

mod attribute;
mod compile;
mod evaluate;
mod set;

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use mesh_api::{
    identity::Identity,
    workload::{PolicyKey, ServiceKey},
};

use self::attribute::Check;
pub use self::set::{GatewayKey, PolicySet, ServicePolicies};

/// Who asks, as the connection proved it.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Address of its workload.
    address: IpAddr,
    identity: Option<ProvenIdentity>,
}

/// An identity, with the spellings that policies compare.
#[derive(Clone, Debug)]
struct ProvenIdentity {
    identity: Identity,
    /// `TRUST_DOMAIN/ns/NAMESPACE/sa/ACCOUNT`.
    principal: Box<str>,
    /// `NAMESPACE/ACCOUNT`.
    account: Box<str>,
}

/// What is known of a request beside what it says.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Who asks.
    pub peer: &'a Peer,
    /// The client as a trusted proxy in front names it; the peer's address if there is none.
    pub remote: IpAddr,
    /// Address and port of the service.
    pub destination: SocketAddr,
    /// Server name that the client asked for.
    pub server_name: Option<&'a str>,
    /// The token that the request carries, verified; none if it carries none.
    pub token: Option<&'a Token>,
}

/// What a verified token says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Token {
    /// Issuer and subject, with a slash between them.
    pub principal: String,
    /// For whom it is.
    pub audiences: Vec<String>,
    /// To whom it was given.
    pub presenter: Option<String>,
    /// All its claims.
    pub claims: BTreeMap<String, Claim>,
}

/// Value of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// A text.
    Text(String),
    /// Several.
    List(Vec<String>),
    /// Claims of its own.
    Nested(BTreeMap<String, Claim>),
}

/// A policy, checked.
#[derive(Debug)]
struct Policy {
    key: PolicyKey,
    action: Action,
    /// Whether what it decides is told and not done.
    is_on_trial: bool,
    targets: Box<[Target]>,
    /// Any of them suffices.
    rules: Box<[Rule]>,
}

/// What is done with requests that a policy matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Allow,
    Deny,
    /// Refused: whoever would have to be asked cannot be.
    Custom,
    /// Told.
    Audit,
}

/// What a policy applies to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Target {
    Service(ServiceKey),
    Gateway(GatewayKey),
    All,
}

/// One of each list that is not empty has to match, and all that is in `when`.
#[derive(Debug, Default)]
struct Rule {
    from: Box<[Clause]>,
    to: Box<[Clause]>,
    when: Clause,
}

/// Checks that all have to hold.
type Clause = Box<[Check]>;

/// Decision about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether it goes on.
    pub verdict: Verdict,
    /// The policy that wants it told of, if one does.
    pub audited: Option<PolicyKey>,
    /// What policies on trial would have decided; none if they would have let it pass unnamed, as
    /// without any.
    pub on_trial: Option<Verdict>,
}

/// Whether a request goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It does; names the policy that allowed it, none where no ALLOW policy applies.
    Allow(Option<PolicyKey>),
    /// It is refused.
    Deny(Denied),
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// A policy refuses it, by one of its rules.
    Matched {
        /// Policy.
        policy: PolicyKey,
        /// Index of the rule.
        rule: usize,
    },
    /// ALLOW policies apply, and none matches.
    NoneMatched,
}

// === impl Peer ===

impl Peer {
    /// Sees a peer; the identity is the one that its certificate names.
    pub fn new(address: IpAddr, identity: Option<Identity>) -> Self {
        let identity = identity.map(|identity| {
            let Identity { trust_domain, namespace, service_account } = &identity;
            let account = format!("{namespace}/{service_account}").into();
            let principal = format!("{trust_domain}/ns/{namespace}/sa/{service_account}").into();
            ProvenIdentity { identity, principal, account }
        });
        Self { address: address.to_canonical(), identity }
    }

    /// Returns the address of its workload.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Returns the identity that it proved.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref().map(|proven| &proven.identity)
    }
}

// === impl Denied ===

/// What the access log says, as Envoy does.
impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("rbac_access_denied_matched_policy[")?;
        match self {
            Self::Matched { policy: PolicyKey { namespace, name }, rule } => {
                write!(f, "ns[{namespace}]-policy[{name}]-rule[{rule}]")?;
            }
            Self::NoneMatched => f.write_str("none")?,
        }
        f.write_str("]")
    }
}

/// Policies are shared between the services that they apply to.
type SharedPolicy = Arc<Policy>;

#[cfg(test)]
mod tests;
