//! The live connections of one thread: judged anew when policy changes, cut when their pod goes.

pub(super) mod idle;

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use fairlead_component::shares::Part;
use fairlead_ebpf::NetnsCookie;
use mesh_api::{
    identity::Identity,
    policy::{Verdict, WorkloadPolicies},
};
use slab::Slab;
use tokio::sync::{Notify, oneshot};

use self::idle::Idleness;
use super::{
    admission::{Inbound, refusal},
    flow::{Addresses, Flow, FlowLog},
    node::Node,
    pod::Pod,
};
use crate::{
    state::MeshState,
    telemetry::{
        metrics::{End, Reporter},
        reason::CloseReason,
    },
};

/// Live connections.
#[derive(Debug)]
pub(super) struct Connections {
    node: Arc<Node>,
    live: RefCell<Slab<Live>>,
    judged: RefCell<HashMap<PodRef, Judged>>,
    none: Notify,
}

/// A pod for as long as something holds it, as [`Judged`] does.
type PodRef = *const Pod;

/// What the connections into a pod were judged by last.
#[derive(Debug)]
struct Judged {
    pod: Arc<Pod>,
    connections: usize,
    policies: Option<Arc<WorkloadPolicies>>,
}

/// Counts a connection as open, on its node and of its pod, until it is dropped.
#[derive(Debug)]
pub(super) struct Counted {
    node: Arc<Node>,
    pod: Arc<Pod>,
}

#[derive(Debug)]
struct Live {
    counted: Counted,
    /// What policy judges; none for connections that the pod opened.
    inbound: Option<Inbound>,
    /// Its part of what its peer may have of the pod, likewise.
    peer: Option<Part>,
    /// What is known of it, once that is decided.
    flow: Option<Rc<Flow>>,
    idleness: Idleness,
    close: Option<oneshot::Sender<CloseReason>>,
}

/// A live connection as operators see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveConnection {
    /// The pod of this node that it belongs to: `namespace/name`.
    pub pod: String,
    /// Whether the pod is the client or the server.
    pub reporter: Reporter,
    /// Address of the client.
    pub source: SocketAddr,
    /// What the client asked for.
    pub requested: SocketAddr,
    /// Where the bytes go, or arrive: the HBONE port if they do so in a tunnel.
    pub destination: SocketAddr,
    /// Whether it is a stream of a tunnel, or as good as one within the node.
    pub in_tunnel: bool,
    /// Who the client is, if it proved that.
    pub source_identity: Option<String>,
    /// Who the server is, likewise.
    pub destination_identity: Option<String>,
    /// Bytes from the client to the server.
    pub request_bytes: u64,
    /// Bytes from the server to the client.
    pub response_bytes: u64,
    /// Time since it was accepted.
    pub age: Duration,
}

/// A connection's place in the table, given up when dropped.
#[derive(Debug)]
pub(super) struct Registration {
    table: Rc<Connections>,
    key: usize,
    /// Completes when the connection must end.
    pub(super) closed: oneshot::Receiver<CloseReason>,
}

// === impl Connections ===

impl Connections {
    pub(super) fn new(node: Arc<Node>) -> Rc<Self> {
        let (live, judged) = (RefCell::new(Slab::new()), RefCell::default());
        Rc::new(Self { node, live, judged, none: Notify::new() })
    }

    /// Counts a connection of `pod` that is to be registered.
    pub(super) fn count(&self, pod: &Arc<Pod>) -> Counted {
        Counted::new(&self.node, pod)
    }

    /// Adds a connection. An inbound one is added before it is judged, so that a change of policy
    /// in between is not missed.
    pub(super) fn register(
        self: &Rc<Self>,
        counted: Counted,
        inbound: Option<Inbound>,
    ) -> Registration {
        if inbound.is_some() {
            let pod = counted.pod();
            let mut judged = self.judged.borrow_mut();
            let of_pod = judged.entry(Arc::as_ptr(pod)).or_insert_with(|| Judged::new(pod));
            of_pod.connections += 1;
        }
        let peer = inbound.as_ref().map(|inbound| counted.pod().peers.connection(inbound.source));
        let (close, closed) = oneshot::channel();
        let live = Live {
            counted,
            inbound,
            peer,
            flow: None,
            idleness: Idleness::default(),
            close: Some(close),
        };
        let key = self.live.borrow_mut().insert(live);
        Registration { table: self.clone(), key, closed }
    }

    /// Ends every connection that `state` denies. Costs next to nothing unless the policies of a pod
    /// with connections have changed.
    pub(super) fn judge(&self, state: &MeshState) {
        let mut judged = self.judged.borrow_mut();
        let changed =
            judged.iter_mut().filter_map(|(pod, judged)| judged.renew(state).then_some(*pod));
        let changed: HashSet<PodRef> = changed.collect();
        if changed.is_empty() {
            return;
        }
        for (_, live) in self.live.borrow_mut().iter_mut() {
            let pod = Arc::as_ptr(&live.counted.pod);
            let Some(inbound) = live.inbound.as_ref().filter(|_| changed.contains(&pod)) else {
                continue;
            };
            let Some(policies) = judged.get(&pod).and_then(|judged| judged.policies.as_ref())
            else {
                continue;
            };
            if let Verdict::Deny(reason) = policies.decide(&inbound.flow()) {
                live.close(CloseReason::DeniedByPolicyChange { policy: refusal(reason).1 });
            }
        }
    }

    /// Forgets what the connections into a pod were judged by with the last of them.
    fn forget(&self, pod: PodRef) {
        let mut judged = self.judged.borrow_mut();
        if let Some(of_pod) = judged.get_mut(&pod) {
            of_pod.connections -= 1;
            if of_pod.connections == 0 {
                judged.remove(&pod);
            }
        }
    }

    /// Ends every connection of a pod.
    pub(super) fn close_pod(&self, pod: NetnsCookie, reason: &CloseReason) {
        for (_, live) in self.live.borrow_mut().iter_mut() {
            if live.counted.pod.id == pod {
                live.close(reason.clone());
            }
        }
    }

    /// Ends every connection on which no byte has passed for `limit`. Those that are being made have
    /// limits of their own.
    pub(super) fn end_idle(&self, now: Instant, limit: Duration) {
        for (_, live) in self.live.borrow_mut().iter_mut() {
            let Some(bytes) = live.flow.as_ref().map(|flow| flow.bytes()) else { continue };
            if live.idleness.look(bytes, now, limit) {
                live.close(CloseReason::Idle);
            }
        }
    }

    /// Describes connections, at most `limit`.
    pub(super) fn list(&self, limit: usize) -> Vec<LiveConnection> {
        let live = self.live.borrow();
        let listed = live.iter().filter_map(|(_, live)| live.describe());
        listed.take(limit).collect()
    }

    /// Returns once there is no connection.
    pub(super) async fn wait_until_none(&self) {
        while !self.live.borrow().is_empty() {
            self.none.notified().await;
        }
    }

    /// Ends every connection.
    pub(super) fn close_all(&self, reason: &CloseReason) {
        for (_, live) in self.live.borrow_mut().iter_mut() {
            live.close(reason.clone());
        }
    }
}

// === impl Judged ===

impl Judged {
    fn new(pod: &Arc<Pod>) -> Self {
        Self { pod: pod.clone(), connections: 0, policies: None }
    }

    /// Takes up the policies of `state`; returns whether they may judge otherwise.
    fn renew(&mut self, state: &MeshState) -> bool {
        let Self { pod, connections: _, policies } = self;
        // A workload that is gone from the configuration drains; it opens nothing any more.
        let now = state.local_workload(&pod.name, &pod.identity).map(|local| local.policies);
        let same = match (&*policies, &now) {
            (Some(before), Some(now)) => Arc::ptr_eq(before, now),
            (_, None) => true,
            (None, Some(_)) => false,
        };
        *policies = now;
        !same
    }
}

// === impl Counted ===

impl Counted {
    fn new(node: &Arc<Node>, pod: &Arc<Pod>) -> Self {
        node.connections.add();
        pod.connections.add();
        Self { node: node.clone(), pod: pod.clone() }
    }

    /// Returns the pod of the connection.
    pub(super) fn pod(&self) -> &Arc<Pod> {
        &self.pod
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.node.connections.remove();
        self.pod.connections.remove();
    }
}

// === impl Live ===

impl Live {
    /// Returns what is known of the connection, once that is decided.
    fn describe(&self) -> Option<LiveConnection> {
        let flow = self.flow.as_ref()?;
        let Addresses { source, destination, hbone } = flow.addresses;
        let identity = |end: &End| end.identity.as_ref().map(Identity::to_string);
        Some(LiveConnection {
            pod: self.counted.pod.key(),
            reporter: flow.labels.reporter,
            source,
            requested: hbone.unwrap_or(destination),
            destination,
            in_tunnel: hbone.is_some(),
            source_identity: identity(&flow.labels.source),
            destination_identity: identity(&flow.labels.destination),
            request_bytes: flow.request_bytes.get(),
            response_bytes: flow.response_bytes.get(),
            age: flow.started.elapsed(),
        })
    }

    fn close(&mut self, reason: CloseReason) {
        if let Some(close) = self.close.take() {
            // The connection may have just ended by itself.
            let _ = close.send(reason);
        }
    }
}

// === impl Registration ===

impl Registration {
    /// Returns whether neither the pod nor the connection's peer has one too many with it.
    pub(super) fn admit(&self) -> Result<(), CloseReason> {
        let live = self.table.live.borrow();
        let Some(Live { counted: Counted { node, pod }, peer, .. }) = live.get(self.key) else {
            return Ok(());
        };
        pod.admit(node)?;
        let held = peer.as_ref().map_or(0, Part::held);
        node.within(held, node.options.max_peer_connections.get(), "peer_connections")
    }

    /// Has the connection described by what `log` says.
    pub(super) fn describe(&self, log: &FlowLog) {
        if let Some(live) = self.table.live.borrow_mut().get_mut(self.key) {
            live.flow = Some(log.flow().clone());
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut table = self.table.live.borrow_mut();
        let live = table.remove(self.key);
        if live.inbound.is_some() {
            self.table.forget(Arc::as_ptr(&live.counted.pod));
        }
        if table.is_empty() {
            self.table.none.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;
