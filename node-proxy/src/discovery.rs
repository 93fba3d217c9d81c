//! The mesh as the control plane describes it: followed, turned into snapshots, kept while the
//! control plane is away.
//!
//! A snapshot is published with every update, but not before the first of every type has arrived:
//! without its policies a workload would admit too much.

mod apply;
mod prefetch;

use std::sync::Arc;

use mesh_api::{
    workload::{Network, NodeName},
    xds_client::{Event, MeshResource, StreamEnd, StreamLog, Update},
};
use tokio::sync::{mpsc, watch};

use self::{apply::apply, prefetch::Prefetch};
use crate::{
    proxy::node::Node,
    state::MeshState,
    telemetry::{
        metrics::{DiscoveryMetrics, Termination},
        readiness::Gate,
    },
};
use fairlead_tunnel::identity::IdentityStore;

/// Updates that may wait to be applied; the control plane is not answered before.
pub const EVENT_QUEUE: usize = 4;

/// What the proxy does with what the control plane says.
#[derive(Debug)]
pub struct Discovery {
    parts: Parts,
    state: MeshState,
    prefetch: Prefetch,
    metrics: DiscoveryMetrics,
    log: StreamLog,
}

/// What discovery works with.
#[derive(Debug)]
pub struct Parts {
    /// The proxy that is configured.
    pub node: Arc<Node>,
    /// Certificates.
    pub identities: IdentityStore,
    /// Name of this node: its workloads get certificates ahead of time.
    pub node_name: NodeName,
    /// Network that the mesh is seen from.
    pub network: Network,
    /// Opened once the mesh is known.
    pub known: Gate,
    /// Set to true then.
    pub configured: watch::Sender<bool>,
}

// === impl Discovery ===

impl Discovery {
    /// Starts with nothing.
    pub fn new(parts: Parts) -> Self {
        let state = MeshState::empty(parts.network.clone());
        let prefetch = Prefetch::new(parts.identities.clone(), parts.node_name.clone());
        let metrics = parts.node.metrics.discovery.clone();
        Self { parts, state, prefetch, metrics, log: StreamLog::default() }
    }

    /// Applies all that comes by `events`. Returns when nothing more can come.
    pub async fn follow(mut self, mut events: mpsc::Receiver<Event<MeshResource>>) {
        while let Some(event) = events.recv().await {
            match event {
                Event::Connected => self.connected(),
                Event::Update(update) => self.take(update),
                Event::Disconnected(end) => self.disconnected(&end),
            }
        }
    }

    fn connected(&mut self) {
        self.metrics.connected.set(1);
        // It signs certificates too.
        self.parts.identities.retry();
        self.log.connected();
    }

    fn disconnected(&mut self, end: &StreamEnd) {
        self.metrics.connected.set(0);
        self.metrics.terminated(Termination::from(end));
        self.log.disconnected(end);
    }

    fn take(&mut self, update: Update<MeshResource>) {
        let Update { type_url, changes, rejections, bytes, synced } = update;
        self.metrics.received(type_url, bytes);
        self.log.refused(&rejections);
        self.metrics.rejected.inc_by(rejections.len() as u64);
        let changed = !changes.is_empty();
        for change in changes {
            self.prefetch.note(&change);
            apply(&mut self.state, type_url, change);
        }
        let first = synced && !*self.parts.configured.borrow();
        if first || (synced && changed) {
            self.parts.node.set_state(self.state.clone());
        }
        if first {
            let (workloads, services, policies) = self.state.counts();
            tracing::info!(workloads, services, policies, "the mesh is known");
            self.parts.known.open();
            self.parts.configured.send_replace(true);
        }
    }
}

#[cfg(test)]
mod tests;
