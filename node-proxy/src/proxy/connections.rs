//! The live connections of one thread: judged anew when policy changes, cut when their pod goes.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use fairlead_ebpf::NetnsCookie;
use mesh_api::policy::Verdict;
use slab::Slab;
use tokio::sync::{Notify, oneshot};

use super::{
    admission::{Inbound, refusal},
    node::Node,
    pod::Pod,
};
use crate::{state::MeshState, telemetry::reason::CloseReason};

/// Live connections.
#[derive(Debug)]
pub(super) struct Connections {
    node: Arc<Node>,
    live: RefCell<Slab<Live>>,
    none: Notify,
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
    close: Option<oneshot::Sender<CloseReason>>,
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
        Rc::new(Self { node, live: RefCell::new(Slab::new()), none: Notify::new() })
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
        let (close, closed) = oneshot::channel();
        let live = Live { counted, inbound, close: Some(close) };
        let key = self.live.borrow_mut().insert(live);
        Registration { table: self.clone(), key, closed }
    }

    /// Ends every connection that `state` denies.
    pub(super) fn judge(&self, state: &MeshState) {
        for (_, live) in self.live.borrow_mut().iter_mut() {
            // A workload that is gone from the configuration drains; it opens nothing any more.
            let Some(inbound) = &live.inbound else { continue };
            let pod = &live.counted.pod;
            let Some(local) = state.local_workload(&pod.name, &pod.identity) else { continue };
            if let Verdict::Deny(reason) = local.policies.decide(&inbound.flow()) {
                live.close(CloseReason::DeniedByPolicyChange { policy: refusal(reason).1 });
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
    fn close(&mut self, reason: CloseReason) {
        if let Some(close) = self.close.take() {
            // The connection may have just ended by itself.
            let _ = close.send(reason);
        }
    }
}

// === impl Registration ===

impl Drop for Registration {
    fn drop(&mut self) {
        let mut table = self.table.live.borrow_mut();
        table.remove(self.key);
        if table.is_empty() {
            self.table.none.notify_one();
        }
    }
}
