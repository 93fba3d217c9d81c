//! What each client has of what all share.

use std::{net::IpAddr, num::NonZeroUsize, sync::Arc};

use fairlead_component::shares::{Part, Shares};
use fairlead_tunnel::limits::MAX_PEER_HANDSHAKES;
use tokio::sync::OwnedSemaphorePermit;

use crate::telemetry::Metrics;

/// A place among the handshakes of a thread.
pub(super) type Handshake = Option<OwnedSemaphorePermit>;

/// What clients have, by the address of the other end of their tunnels.
#[derive(Debug)]
pub struct Clients {
    max_tunnels: NonZeroUsize,
    max_connections: NonZeroUsize,
    handshakes: Arc<Shares>,
    tunnels: Arc<Shares>,
    connections: Arc<Shares>,
}

/// One address has too much already of what is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client has too many: {0}")]
pub(super) struct TooMany(pub(super) &'static str);

// === impl Clients ===

impl Clients {
    /// Starts without any, and with what one address may have.
    pub fn new(max_tunnels: NonZeroUsize, max_connections: NonZeroUsize) -> Self {
        let (handshakes, tunnels, connections) = (Shares::new(), Shares::new(), Shares::new());
        Self { max_tunnels, max_connections, handshakes, tunnels, connections }
    }

    /// Counts a handshake.
    pub(super) fn handshake(&self, peer: IpAddr, metrics: &Metrics) -> Result<Part, TooMany> {
        within(self.handshakes.take(peer), MAX_PEER_HANDSHAKES, "peer_handshakes", metrics)
    }

    /// Counts a tunnel.
    pub(super) fn tunnel(&self, peer: IpAddr, metrics: &Metrics) -> Result<Part, TooMany> {
        within(self.tunnels.take(peer), self.max_tunnels.get(), "peer_tunnels", metrics)
    }

    /// Counts a connection.
    pub(super) fn connection(&self, peer: IpAddr, metrics: &Metrics) -> Result<Part, TooMany> {
        within(self.connections.take(peer), self.max_connections.get(), "peer_connections", metrics)
    }
}

fn within(
    part: Part,
    most: usize,
    limit: &'static str,
    metrics: &Metrics,
) -> Result<Part, TooMany> {
    if part.held() <= most {
        return Ok(part);
    }
    metrics.limit(limit).inc();
    Err(TooMany(limit))
}
