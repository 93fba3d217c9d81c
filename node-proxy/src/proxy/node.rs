//! What all worker threads of the proxy share.

use std::{
    net::IpAddr,
    num::{NonZeroU32, NonZeroUsize},
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, Guard};
use fairlead_component::shares::{Part, Shares};
use mesh_api::identity::Identity;
use tokio::{sync::watch, time::timeout};

use super::{admission::refuses_datagrams, pod::OpenConnections};
use crate::{
    state::{LocalWorkload, MeshState, Moment, Naming, OutboundPolicy},
    telemetry::{metrics::NodeMetrics, reason::CloseReason},
};

/// Time that a connection waits for the configuration of its pod: pods start before the control
/// plane has told everyone about them.
const WORKLOAD_WAIT: Duration = Duration::from_secs(5);

/// Choices that hold for the life of the process.
#[derive(Clone, Debug)]
pub struct ProxyOptions {
    /// Whether connections between pods of this node are encrypted too.
    pub same_node_encryption: bool,
    /// What becomes of connections that pods open.
    pub outbound: OutboundPolicy,
    /// Of so many connections that end well one has a line in the access log.
    pub access_log_sample: NonZeroU32,
    /// Time without a byte after which a connection is ended; none for never.
    pub idle_timeout: Option<Duration>,
    /// Connections that a pod may have open.
    pub max_pod_connections: NonZeroUsize,
    /// Connections from one address that a pod may have open.
    pub max_peer_connections: NonZeroUsize,
    /// Tunnels from one address that may be open.
    pub max_peer_tunnels: NonZeroUsize,
    /// How names are completed; none if DNS queries are not answered.
    pub naming: Option<Naming>,
    /// Name servers that are asked for workloads which have a host name in place of addresses.
    pub name_servers: Vec<IpAddr>,
}

/// The proxy of one node.
#[derive(Debug)]
pub struct Node {
    /// Choices that hold for the life of the process.
    pub options: ProxyOptions,
    /// Counters.
    pub metrics: Arc<NodeMetrics>,
    /// Connections that are open on all threads.
    pub connections: OpenConnections,
    /// Tunnels from peers that are open.
    pub tunnels: OpenConnections,
    /// Tunnels from each peer.
    peer_tunnels: Arc<Shares>,
    state: ArcSwap<MeshState>,
    changed: watch::Sender<()>,
    started: Instant,
}

// === impl Node ===

impl Node {
    /// Makes a proxy that knows nothing of the mesh yet.
    pub fn new(options: ProxyOptions, metrics: Arc<NodeMetrics>) -> Self {
        Self {
            options,
            metrics,
            connections: OpenConnections::new(),
            tunnels: OpenConnections::new(),
            peer_tunnels: Shares::new(),
            state: ArcSwap::default(),
            changed: watch::Sender::new(()),
            started: Instant::now(),
        }
    }

    /// Returns when it is, as endpoints know it.
    pub fn moment(&self, now: Instant) -> Moment {
        Moment::after(now.saturating_duration_since(self.started))
    }

    /// Returns what is known of the mesh.
    pub fn state(&self) -> Guard<Arc<MeshState>> {
        self.state.load()
    }

    /// Replaces what is known of the mesh; open connections are judged anew.
    pub fn set_state(&self, state: MeshState) {
        self.state.store(Arc::new(state));
        self.changed.send_replace(());
    }

    /// Counts a tunnel from `peer` that has been accepted, unless it is one too many.
    pub(super) fn admit_tunnel(&self, peer: IpAddr) -> Result<Part, CloseReason> {
        let part = self.peer_tunnels.take(peer);
        self.within(part.held(), self.options.max_peer_tunnels.get(), "peer_tunnels")?;
        Ok(part)
    }

    /// Returns whether so many are not more than `most`, and counts if they are.
    pub(super) fn within(
        &self,
        held: usize,
        most: usize,
        limit: &'static str,
    ) -> Result<(), CloseReason> {
        if held <= most {
            return Ok(());
        }
        self.metrics.limit(limit).inc();
        Err(CloseReason::LimitReached { limit })
    }

    /// Returns whether datagrams that arrive for a pod are refused by its policies. What they say
    /// of one that the mesh does not know is not known either.
    pub(super) fn refuses_datagrams(&self, name: &str, identity: &Identity) -> bool {
        let known = self.state().local_workload(name, identity);
        known.is_none_or(|local| refuses_datagrams(&local))
    }

    /// Returns a receiver that wakes when [`Self::state`] changes.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Returns once nothing is open: connections have ended, and peers know that their tunnels have.
    pub async fn wait_until_idle(&self) {
        self.connections.wait_until_none().await;
        self.tunnels.wait_until_none().await;
        // Its last streams may have come by a tunnel.
        self.connections.wait_until_none().await;
    }

    /// Returns the workload of a pod; waits a while for a pod that the mesh does not know yet.
    pub(super) async fn local_workload(
        &self,
        name: &str,
        identity: &Identity,
    ) -> Option<LocalWorkload> {
        if let Some(known) = self.state().local_workload(name, identity) {
            return Some(known);
        }
        let mut changes = self.changes();
        let arrival = async {
            loop {
                if let Some(known) = self.state().local_workload(name, identity) {
                    return known;
                }
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        timeout(WORKLOAD_WAIT, arrival).await.ok()
    }
}
