//! The mesh as the control plane describes it, with the addresses of what it names: followed, turned
//! into snapshots, kept while the control plane is away.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use fairlead_component::readiness::Gate;
use fairlead_tunnel::identity::IdentityStore;
use mesh_api::xds_client::{Event, StreamEnd, StreamLog, Update};
use tokio::sync::{mpsc, watch};

use crate::{
    limits::MAX_NAMES,
    lookups::Lookups,
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
    lookups: Lookups,
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
        let (lookups, log) = (Lookups::default(), StreamLog::default());
        Self { shared, identities, next, lookups, known, configured, log }
    }

    /// Returns what becomes true once the mesh is known.
    pub fn configured(&self) -> watch::Receiver<bool> {
        self.configured.subscribe()
    }

    /// Applies all that comes by `events`. Returns when nothing more can come.
    pub async fn follow(mut self, mut events: mpsc::Receiver<Event<MeshResource>>) {
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some(Event::Connected) => self.connected(),
                    Some(Event::Update(update)) => self.take(update),
                    Some(Event::Disconnected(end)) => self.disconnected(&end),
                    None => return,
                },
                (name, addresses) = self.lookups.changed() => self.found(name, addresses),
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
        self.publish();
        self.look_up();
        if !*self.configured.borrow() {
            let (workloads, services, routes) = self.next.counts();
            tracing::info!(workloads, services, routes, "the mesh is known");
            self.known.open();
            self.configured.send_replace(true);
        }
    }

    fn publish(&mut self) {
        self.next.settle();
        self.shared.snapshot.store(Arc::new(self.next.clone()));
    }

    /// Has the names of endpoints looked up that traffic may go to.
    fn look_up(&mut self) {
        let mut names = self.next.names();
        if names.len() > MAX_NAMES {
            self.shared.metrics.limit("names").inc();
            names = names.into_iter().take(MAX_NAMES).collect::<BTreeSet<_>>();
        }
        self.lookups.want(&names);
    }

    fn found(&mut self, name: Arc<str>, addresses: Arc<[IpAddr]>) {
        tracing::debug!(%name, ?addresses, "endpoints were looked up");
        self.next.found(name, addresses);
        if *self.configured.borrow() {
            self.publish();
        }
    }
}
