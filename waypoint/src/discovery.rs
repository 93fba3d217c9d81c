//! The mesh as the control plane describes it: followed, turned into snapshots, kept while the
//! control plane is away.

use std::sync::Arc;

use fairlead_component::readiness::Gate;
use fairlead_tunnel::identity::IdentityStore;
use mesh_api::xds_client::{Event, StreamEnd, StreamLog, Update};
use tokio::sync::{mpsc, watch};

use crate::{
    mesh::{MeshResource, Snapshot},
    proxy::worker::Shared,
};

/// Updates that may wait to be applied; the control plane is not answered before.
pub const EVENT_QUEUE: usize = 4;

/// What the waypoint does with what the control plane says.
#[derive(Debug)]
pub struct Discovery {
    shared: Arc<Shared>,
    identities: IdentityStore,
    next: Snapshot,
    known: Gate,
    configured: watch::Sender<bool>,
    log: StreamLog,
}

// === impl Discovery ===

impl Discovery {
    /// Starts with what `shared` holds; opens `known` once the mesh is known.
    pub fn new(shared: Arc<Shared>, identities: IdentityStore, known: Gate) -> Self {
        let next = Snapshot::clone(&shared.snapshot.load());
        let configured = watch::Sender::new(false);
        Self { shared, identities, next, known, configured, log: StreamLog::default() }
    }

    /// Returns what becomes true once the mesh is known.
    pub fn configured(&self) -> watch::Receiver<bool> {
        self.configured.subscribe()
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
        self.shared.metrics.connected(true);
        // It signs certificates too.
        self.identities.retry();
        self.log.connected();
    }

    fn disconnected(&mut self, end: &StreamEnd) {
        self.shared.metrics.connected(false);
        self.log.disconnected(end);
    }

    fn take(&mut self, update: Update<MeshResource>) {
        let Update { type_url, changes, rejections, bytes: _, synced } = update;
        self.log.refused(&rejections);
        self.shared.metrics.rejected(rejections.len() as u64);
        for change in changes {
            self.next.apply(type_url, change);
        }
        // What is known in part would let pass what the rest refuses.
        if !synced {
            return;
        }
        self.next.settle();
        self.shared.snapshot.store(Arc::new(self.next.clone()));
        if !*self.configured.borrow() {
            let (workloads, services, routes) = self.next.counts();
            tracing::info!(workloads, services, routes, "the mesh is known");
            self.known.open();
            self.configured.send_replace(true);
        }
    }
}
