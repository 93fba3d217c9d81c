//! Which identity a caller may have certified.
//!
//! Pure, but for what it asks of the mesh's state.

use std::fmt;

use mesh_api::{
    identity::{Identity, InvalidIdentity, Namespace, TrustDomain},
    workload::NodeName,
};

use tokio::sync::watch;

use crate::auth::{Account, Caller, PodReference};

/// Says where workloads run.
pub trait Placement: fmt::Debug + Send + Sync + 'static {
    /// Returns whether a pod that has not failed runs as `identity` on `node`.
    fn runs_on(&self, identity: &Identity, node: &NodeName) -> bool;

    /// Returns the node of a pod, if it is known and has not been replaced by another one.
    fn node_of(&self, namespace: &Namespace, pod: &PodReference) -> Option<NodeName>;

    /// Returns what tells of each change of the above.
    fn changes(&self) -> watch::Receiver<()>;
}

/// Who may ask for what.
#[derive(Clone, Debug)]
pub struct IssuePolicy {
    /// Trust domain of all identities.
    pub trust_domain: TrustDomain,
    /// Accounts of node proxies: they may ask for the identities of pods on their node
    /// (`CA_TRUSTED_NODE_ACCOUNTS`).
    pub node_accounts: Vec<Account>,
}

/// Why a caller may not have an identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The impersonated identity is not one of a workload.
    #[error("the impersonated identity is invalid: {0}")]
    Invalid(#[from] InvalidIdentity),
    /// The caller is no node proxy.
    #[error("{0} is not an account of node proxies and may not ask for other identities")]
    NotANode(Account),
    /// It is not known on which node the caller runs.
    #[error("the token does not tell on which node the caller runs")]
    NoNode,
    /// The identity belongs to another trust domain.
    #[error("{identity} is not of the trust domain {trust_domain}")]
    ForeignIdentity {
        /// The identity asked for.
        identity: Identity,
        /// This mesh's trust domain.
        trust_domain: TrustDomain,
    },
    /// No pod of the identity runs on the caller's node.
    #[error("no running pod of {identity} is known on node {node}", node = node.0)]
    NotHere {
        /// The identity asked for.
        identity: Identity,
        /// The caller's node.
        node: NodeName,
    },
}

// === impl Denied ===

impl Denied {
    /// Returns whether the answer is another one as soon as more pods are known.
    pub fn is_for_want_of_news(&self) -> bool {
        match self {
            Self::NoNode | Self::NotHere { .. } => true,
            Self::Invalid(_) | Self::NotANode(_) | Self::ForeignIdentity { .. } => false,
        }
    }
}

// === impl IssuePolicy ===

impl IssuePolicy {
    /// Returns the identity that `caller` may have certified: its own, or the impersonated one.
    pub fn decide(
        &self,
        caller: &Caller,
        impersonated: Option<&str>,
        placement: &dyn Placement,
    ) -> Result<Identity, Denied> {
        let Some(impersonated) = impersonated else {
            return Ok(Identity {
                trust_domain: self.trust_domain.clone(),
                namespace: caller.account.namespace.clone(),
                service_account: caller.account.name.clone(),
            });
        };
        let identity: Identity = impersonated.parse()?;
        if !self.node_accounts.contains(&caller.account) {
            return Err(Denied::NotANode(caller.account.clone()));
        }
        if identity.trust_domain != self.trust_domain {
            let trust_domain = self.trust_domain.clone();
            return Err(Denied::ForeignIdentity { identity, trust_domain });
        }
        // Kubernetes before 1.32 says only of which pod a token is.
        let of_pod = || placement.node_of(&caller.account.namespace, caller.pod.as_ref()?);
        let node = caller.node.clone().or_else(of_pod).ok_or(Denied::NoNode)?;
        if !placement.runs_on(&identity, &node) {
            return Err(Denied::NotHere { identity, node });
        }
        Ok(identity)
    }
}
