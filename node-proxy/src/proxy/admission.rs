//! Whether a pod accepts a connection. Every path into a pod passes here: tunnels, plaintext, and
//! the short cut between pods of one node.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use fairlead_ebpf::HBONE_PORT;
use mesh_api::{
    identity::Identity,
    policy::{DenyReason, DryRun, DryRunAllow, Flow, Verdict, WorkloadPolicies},
    workload::PolicyKey,
};

use crate::{
    link::listeners::{INBOUND_PLAINTEXT_PORT, OUTBOUND_PORT},
    state::LocalWorkload,
    telemetry::reason::CloseReason,
};

/// Ports of the proxy's listeners inside a pod, which no connection may be made for.
pub(super) const PROXY_PORTS: [u16; 3] = [OUTBOUND_PORT, INBOUND_PLAINTEXT_PORT, HBONE_PORT];

/// Log target (scope) of what dry-run policies would have done.
const DRY_RUN: &str = "policy::dry_run";

/// A connection into a pod, as policy sees it.
#[derive(Clone, Debug)]
pub(super) struct Inbound {
    /// Address of the peer's socket.
    pub(super) source: IpAddr,
    /// Identity that the peer proved; none for plaintext.
    pub(super) identity: Option<Identity>,
    /// Address and port of the application.
    pub(super) destination: SocketAddr,
}

// === impl Inbound ===

impl Inbound {
    pub(super) fn flow(&self) -> Flow<'_> {
        Flow {
            source: self.source,
            identity: self.identity.as_ref(),
            destination: self.destination,
        }
    }

    /// Decides whether `local` accepts the connection.
    pub(super) fn admit(&self, local: &LocalWorkload) -> Result<(), CloseReason> {
        if local.policies.has_dry_run() {
            self.report_dry_run(local);
        }
        self.judge(&local.policies).map(|_| ())
    }

    /// Decides like [`Self::admit`], and says nothing. Returns the ALLOW policy that matches, if
    /// there are any.
    pub(super) fn judge(
        &self,
        policies: &WorkloadPolicies,
    ) -> Result<Option<PolicyKey>, CloseReason> {
        if PROXY_PORTS.contains(&self.destination.port()) {
            return Err(CloseReason::IllegalPort);
        }
        match policies.decide(&self.flow()) {
            Verdict::Allow(policy) => Ok(policy),
            Verdict::Deny(reason) => Err(refusal(reason).0),
        }
    }

    /// Says what policies on trial would have done.
    fn report_dry_run(&self, local: &LocalWorkload) {
        let DryRun { denied_by, allow } = local.policies.dry_run(&self.flow());
        let (source, destination) = (self.source, self.destination);
        if let Some(policy) = denied_by {
            tracing::info!(target: DRY_RUN, %source, %destination, %policy, "would be denied");
        }
        match allow {
            DryRunAllow::NoEffect => {}
            DryRunAllow::Matched(policy) => {
                tracing::info!(target: DRY_RUN, %source, %destination, %policy, "would be allowed");
            }
            DryRunAllow::WouldDeny => {
                tracing::info!(target: DRY_RUN, %source, %destination, "would not be allowed");
            }
        }
    }
}

/// Returns whether a workload takes no datagrams. They prove nothing of who sent them: where plaintext
/// is denied whoever sends it, so are they. What ALLOW policies say is about connections.
pub(super) fn refuses_datagrams(local: &LocalWorkload) -> bool {
    let anyone = Flow {
        source: Ipv4Addr::UNSPECIFIED.into(),
        identity: None,
        destination: (Ipv4Addr::UNSPECIFIED, 0).into(),
    };
    match local.policies.decide(&anyone) {
        Verdict::Deny(DenyReason::Policy(_) | DenyReason::UnknownPolicy(_)) => true,
        Verdict::Deny(DenyReason::NotAllowed(_)) | Verdict::Allow(_) => false,
    }
}

/// Returns the close reason of a refusal, and the policy behind it.
pub(super) fn refusal(reason: DenyReason) -> (CloseReason, Arc<PolicyKey>) {
    match reason {
        DenyReason::Policy(key) if key.demands_waypoint() => {
            let policy = Arc::new(key);
            (CloseReason::WaypointRequired { policy: policy.clone() }, policy)
        }
        DenyReason::Policy(key) => {
            let policy = Arc::new(key);
            (CloseReason::DeniedByPolicy { policy: policy.clone() }, policy)
        }
        DenyReason::UnknownPolicy(key) => {
            let policy = Arc::new(key);
            (CloseReason::UnknownPolicy { policy: policy.clone() }, policy)
        }
        DenyReason::NotAllowed(key) => {
            let policy = Arc::new(key);
            (CloseReason::NotAllowed { policy: policy.clone() }, policy)
        }
    }
}
