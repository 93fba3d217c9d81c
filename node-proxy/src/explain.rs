//! What would become of a connection, and why: the answer to `fairlead-node explain`.
//!
//! The proxy that would take the connection computes a [`Decision`] with the code that decides, and
//! capture adds what it knows of the pod.

mod text;

use std::net::SocketAddr;

use mesh_api::identity::Namespace;
use serde::{Deserialize, Serialize};

use crate::{
    api::{PodName, PodState, PodStatus},
    link::message::printable,
};

/// Endpoints of a service that are listed; of more there is only the number.
pub const MAX_ENDPOINTS_LISTED: usize = 8;

/// Identities that are listed for one attempt.
pub const MAX_IDENTITIES_LISTED: usize = 3;

/// Longest name in an answer, in bytes; the rest is cut off. An answer then fits a message between
/// the halves, all its lists full.
const MAX_NAME_BYTES: usize = 253;

/// Longest sentence in an answer, in bytes.
const MAX_SENTENCE_BYTES: usize = 1024;

/// The whole answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// Namespace of the pod.
    pub namespace: Namespace,
    /// The pod.
    pub pod: PodName,
    /// Where the connection goes.
    pub to: SocketAddr,
    /// How far the pod's enrolment is.
    pub capture: PodState,
    /// Why the pod is not captured, or what it lacks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// What the proxy decides; absent if it does not see the connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
}

/// What the proxy decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Identity that the pod proves.
    pub identity: String,
    /// What the address stands for; absent if the mesh does not know the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<Destination>,
    /// The waypoint that connections to the destination pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waypoint: Option<String>,
    /// What there is to choose from, if the destination or its waypoint is a service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<Endpoints>,
    /// What is tried, in this order; where chance decides, one of the ways that it may.
    pub attempts: Vec<Attempt>,
    /// What becomes of the connection.
    pub result: Outcome,
}

/// What an address stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destination {
    /// What it is.
    pub kind: DestinationKind,
    /// The service or the workload, as `namespace/name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// What an address may stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DestinationKind {
    /// A service.
    Service,
    /// A workload.
    Workload,
    /// A node, by workloads of its network.
    Node,
    /// The pod itself.
    Itself,
    /// Nothing that the mesh knows.
    Unknown,
}

/// What there is to choose from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    /// The service whose endpoints they are.
    pub service: String,
    /// Number of those that can be chosen.
    pub usable: usize,
    /// The first of them, best first.
    pub listed: Vec<Endpoint>,
    /// Numbers of those that cannot be chosen, by the cause.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
}

/// An endpoint that can be chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The workload, as `namespace/name`.
    pub workload: String,
    /// Node that it runs on.
    pub node: String,
    /// How much it has in common with the client of what the service prefers.
    pub rank: usize,
    /// Its share of the connections of its rank.
    pub capacity: u32,
    /// Whether it is chosen last, since it kept failing.
    pub set_aside: bool,
}

/// Endpoints that cannot be chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// How many.
    pub count: usize,
    /// Why.
    pub because: String,
}

/// One way to the destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Address and port of the application, or what a waypoint is asked for; a name in place of the
    /// address, if that is looked up for each connection.
    pub address: String,
    /// Where the bytes go; in the same way.
    pub peer: String,
    /// The workload at the other end, as `namespace/name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// How the bytes get there.
    pub transport: Means,
    /// Identities of which the gateway on the way has to prove one, if there is one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gateway: Vec<String>,
    /// Identities of which the other end has to prove one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expected: Vec<String>,
    /// Who checks the connection at the other end.
    pub checked_by: String,
    /// What that comes to.
    pub check: Outcome,
}

/// How bytes get to the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Means {
    /// As they are.
    Plaintext,
    /// Through a tunnel to the destination.
    Hbone,
    /// Through a tunnel to a waypoint.
    Waypoint,
    /// Through a tunnel to the gateway of another network, and one inside it to the destination.
    Gateway,
    /// Within the node, after the same checks as a tunnel makes.
    WithinNode,
}

/// Whether something passes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Whether it does, as far as this node can tell.
    pub passes: bool,
    /// Reason of the refusal, as the access log names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The policy that decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// In words; of a refusal those of the access log.
    pub because: String,
}

// === impl Explanation ===

impl Explanation {
    /// Combines what is known of the pod with what the proxy decides.
    pub fn of(status: PodStatus, to: SocketAddr, decision: Option<Decision>) -> Self {
        let PodStatus { namespace, name: pod, state: capture, problem, .. } = status;
        Self { namespace, pod, to, capture, problem, decision }
    }
}

/// Returns a name as an answer shows it.
pub(crate) fn name(text: &impl ToString) -> String {
    printable(text.to_string(), MAX_NAME_BYTES)
}

/// Returns a sentence as an answer shows it.
pub(crate) fn sentence(text: &impl ToString) -> String {
    printable(text.to_string(), MAX_SENTENCE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::{channel::MAX_MESSAGE_BYTES, message::ToCapture};

    /// Most ways that are tried: through waypoints, and past them where that is allowed.
    const MAX_ATTEMPTS: usize = 6;

    #[test]
    fn the_longest_answer_fits_a_message_between_the_halves() {
        // In JSON a quote takes the most room of all that is printable.
        let long = "\"".repeat(1 << 16);
        // In host names there are none.
        let host = "h".repeat(1 << 16);
        let outcome = || Outcome {
            passes: false,
            reason: Some(name(&long)),
            policy: Some(name(&long)),
            because: sentence(&long),
        };
        let endpoint = Endpoint {
            workload: name(&long),
            node: name(&long),
            rank: usize::MAX,
            capacity: u32::MAX,
            set_aside: false,
        };
        let attempt = Attempt {
            address: name(&host),
            peer: name(&host),
            workload: Some(name(&long)),
            transport: Means::WithinNode,
            gateway: vec![name(&long); MAX_IDENTITIES_LISTED],
            expected: vec![name(&long); MAX_IDENTITIES_LISTED],
            checked_by: name(&long),
            check: outcome(),
        };
        let left_out = LeftOut { count: usize::MAX, because: name(&long) };
        let decision = Decision {
            identity: name(&long),
            destination: Some(Destination {
                kind: DestinationKind::Workload,
                name: Some(name(&long)),
            }),
            waypoint: Some(name(&long)),
            endpoints: Some(Endpoints {
                service: name(&long),
                usable: usize::MAX,
                listed: vec![endpoint; MAX_ENDPOINTS_LISTED],
                left_out: vec![left_out; 7],
            }),
            attempts: vec![attempt; MAX_ATTEMPTS],
            result: outcome(),
        };
        let decision = Some(Box::new(decision));
        let message = ToCapture::Explained { request: u64::MAX, decision };
        let length = serde_json::to_vec(&message).unwrap().len();
        assert!(length <= MAX_MESSAGE_BYTES, "{length}");
        assert!(name(&"a\u{1b}[2Jb\n").chars().all(|c| !c.is_control()));
    }
}
