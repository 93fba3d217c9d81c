//! What would become of a connection of a pod: decided as for one, and told instead of done.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use mesh_api::{
    identity::Identity,
    workload::{PolicyKey, TunnelProtocol, Workload},
};

use super::{admission::Inbound, inbound::Application, node::Node, outbound, pod::Pod};
use crate::{
    explain::{
        Attempt, Decision, Destination, DestinationKind, MAX_IDENTITIES_LISTED, Means, Outcome,
        name, sentence,
    },
    state::{Bearings, Hop, LocalWorkload, MeshState, Transport, workload_name},
    telemetry::reason::CloseReason,
};

/// Why a connection passes that nobody checks.
const UNCHECKED: &str = "it is not in the mesh: nothing is encrypted and nothing is checked";

/// Why a connection passes that no other pod has a part in.
const WITHIN_POD: &str = "it stays within the pod, where the mesh captures nothing";

/// Who would check a connection at its other end.
struct Check<'a> {
    state: &'a MeshState,
    pod: &'a Pod,
    source: &'a Workload,
}

/// Tells what becomes of a connection of `pod` to `target`. `is_neighbour` says which addresses are
/// of pods of this node.
pub(super) fn decide(
    node: &Node,
    pod: &Pod,
    target: SocketAddr,
    is_neighbour: impl Fn(IpAddr) -> bool,
) -> Decision {
    let (state, now) = (node.state(), Instant::now());
    let Some(LocalWorkload { workload: source, .. }) =
        state.local_workload(&pod.name, &pod.identity)
    else {
        return Decision::of(pod, Outcome::refused(&CloseReason::WorkloadUnknown));
    };
    // All that chance decides is decided alike.
    let chance: u64 = rand::random();
    let pick = |below| chance % below;
    let route = match outbound::route(node, pod, &source, target, now, pick) {
        Err(reason @ CloseReason::IllegalPort) => {
            return Decision::of(pod, Outcome::refused(&reason));
        }
        _ if target.ip().is_loopback() || pod.owns(target.ip()) => {
            let destination = Destination { kind: DestinationKind::Itself, name: None };
            let decision = Decision::of(pod, Outcome::passes(WITHIN_POD));
            return Decision { destination: Some(destination), ..decision };
        }
        other => other,
    };
    let Bearings { destination, waypoint, endpoints } =
        state.bearings(&source, target, node.moment(now), pick);
    let (attempts, result) = match route {
        Err(reason) => (Vec::new(), Outcome::refused(&reason)),
        Ok(route) => {
            let check = Check { state: &state, pod, source: &source };
            let direct = !node.options.same_node_encryption;
            let attempt = |hop: &Hop| check.attempt(hop, direct && is_neighbour(hop.address.ip()));
            let attempts: Vec<_> = route.hops.iter().map(attempt).collect();
            let result = result_of(pod, attempts.first());
            (attempts, result)
        }
    };
    let destination = Some(destination);
    Decision { destination, waypoint, endpoints, attempts, ..Decision::of(pod, result) }
}

/// Returns what becomes of a connection of which this is tried first: later attempts are made where
/// nobody answers, and not where somebody refuses.
fn result_of(pod: &Pod, first: Option<&Attempt>) -> Outcome {
    match first {
        Some(first) if first.transport == Means::Plaintext || pod.svid.current().is_ok() => {
            first.check.clone()
        }
        Some(_) => Outcome::refused(&CloseReason::NoCertificate),
        None => Outcome::refused(&CloseReason::NoHealthyEndpoint),
    }
}

/// Returns why the other end of `hop` refuses a connection of `pod`, as far as this node knows its
/// policies.
pub(super) fn denial(
    state: &MeshState,
    pod: &Pod,
    source: &Workload,
    hop: &Hop,
) -> Option<Arc<CloseReason>> {
    let refused = Check { state, pod, source }.judge(hop)?.err()?;
    // Where nothing is known that denies it, the other end knows something else.
    refused.policy().is_some().then(|| Arc::new(refused))
}

// === impl Check ===

impl Check<'_> {
    fn attempt(&self, hop: &Hop, is_neighbour: bool) -> Attempt {
        let (transport, gateway, expected): (_, &[Identity], &[Identity]) = match &hop.transport {
            Transport::Plaintext => (Means::Plaintext, &[], &[]),
            Transport::Hbone { expected } if is_neighbour => (Means::WithinNode, &[], expected),
            Transport::Hbone { expected } => (Means::Hbone, &[], expected),
            Transport::Waypoint { expected, .. } => (Means::Waypoint, &[], expected),
            Transport::Gateway { expected, service, .. } => {
                (Means::Gateway, expected, &service.subject_alt_names)
            }
        };
        let workload = hop.workload.as_deref();
        let (checked_by, check) = match (self.judge(hop), workload) {
            (Some(judged), Some(workload)) => {
                let by = format!("the proxy of node {}", workload.node.0);
                let check = match &judged {
                    Ok(policy) => Outcome::allowed(policy.as_ref()),
                    Err(reason) => Outcome::refused(reason),
                };
                (name(&by), check)
            }
            (None, Some(waypoint)) if transport == Means::Waypoint => {
                let because = "it applies its policies, which this node does not know";
                (workload_name(waypoint), Outcome::passes(because))
            }
            (None, Some(_)) if hop.is_mutual() => {
                let by = "whoever answers there".to_owned();
                let because = "the policies there are not known to this node";
                (by, Outcome::passes(because))
            }
            (_, _) => ("nobody".to_owned(), Outcome::passes(UNCHECKED)),
        };
        let list = |identities: &[Identity]| {
            identities.iter().take(MAX_IDENTITIES_LISTED).map(name).collect()
        };
        Attempt {
            address: name(&hop.asked_for()),
            peer: name(&hop.peer()),
            workload: workload.map(workload_name),
            transport,
            gateway: list(gateway),
            expected: list(expected),
            checked_by,
            check,
        }
    }

    /// Judges as the proxy at the other end does, if there is one that this node knows.
    fn judge(&self, hop: &Hop) -> Option<Result<Option<PolicyKey>, CloseReason>> {
        if hop.hostname.is_some() || matches!(hop.transport, Transport::Gateway { .. }) {
            return None;
        }
        let workload = hop.workload.as_deref()?;
        let is_checked = hop.is_mutual() && workload.tunnel_protocol == TunnelProtocol::Hbone;
        let policies = self.state.policies_of(workload).filter(|_| is_checked)?;
        let peer = hop.peer_address().ip();
        let same_family = |address: &&IpAddr| address.is_ipv4() == peer.is_ipv4();
        let application = Application::of_workload(self.state, workload, peer, hop.address);
        let inbound = Inbound {
            source: self.pod.addresses.iter().find(same_family).copied().unwrap_or(peer),
            identity: Some(self.source.identity.clone()),
            destination: application.address,
        };
        Some(inbound.judge(&policies))
    }
}

// === impl Decision ===

impl Decision {
    /// Returns what there is to say of a connection that comes to nothing, or needs nothing.
    fn of(pod: &Pod, result: Outcome) -> Self {
        let (destination, waypoint, endpoints) = (None, None, None);
        let (identity, attempts) = (name(&pod.identity), Vec::new());
        Self { identity, destination, waypoint, endpoints, attempts, result }
    }
}

// === impl Outcome ===

impl Outcome {
    fn refused(reason: &CloseReason) -> Self {
        Self {
            passes: false,
            reason: Some(reason.as_str().to_owned()),
            policy: reason.policy().map(name),
            because: sentence(reason),
        }
    }

    fn allowed(policy: Option<&PolicyKey>) -> Self {
        let because = match policy {
            Some(policy) => format!("policy {policy} allows it"),
            None => "no policy applies".to_owned(),
        };
        Self { policy: policy.map(name), ..Self::passes(&because) }
    }

    fn passes(because: &str) -> Self {
        Self { passes: true, reason: None, policy: None, because: sentence(&because) }
    }
}
