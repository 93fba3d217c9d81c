//! An enrolled pod as the proxy sees it: a name, an identity and a source of sockets.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use fairlead_component::shares::{Part, Shares};
use fairlead_ebpf::NetnsCookie;
use fairlead_sys::socket::bind_delivery;
use fairlead_tunnel::{
    identity::{IdentityHandle, NoCertificate},
    limits::MAX_PEER_HANDSHAKES,
    tls::TlsConfigs,
};
use mesh_api::identity::Identity;
use socket2::Socket;
use tokio::{sync::watch, time::timeout};

use super::{hostnames::Told, node::Node, ready_sockets::ReadySockets};
use crate::{link::message::SocketKind, telemetry::reason::CloseReason};

/// Time that a connection waits for the pod's first certificate; half of what a peer's handshake
/// waits.
const FIRST_CERTIFICATE_TIMEOUT: Duration = Duration::from_secs(5);

/// An enrolled pod.
#[derive(Debug)]
pub struct Pod {
    /// Names the pod on this machine; never used for another one.
    pub id: NetnsCookie,
    /// Name of the pod.
    pub name: Arc<str>,
    /// Identity of the pod, known from its enrolment and never from its traffic.
    pub identity: Identity,
    /// Addresses of the pod, at most one a family.
    pub addresses: Vec<IpAddr>,
    /// Certificate of the identity.
    pub svid: IdentityHandle,
    /// Sockets inside the pod.
    pub sockets: ReadySockets,
    /// What name servers have told it of workloads that have a host name.
    pub(super) told: Told,
    /// Connections of the pod that are open.
    pub connections: OpenConnections,
    /// What each peer has of the pod.
    pub(super) peers: Peers,
}

/// What each peer has of a pod.
#[derive(Debug)]
pub(super) struct Peers {
    connections: Arc<Shares>,
    handshakes: Arc<Shares>,
}

/// Counts open connections and tells when there are none.
#[derive(Debug)]
pub struct OpenConnections {
    open: AtomicUsize,
    idle: watch::Sender<()>,
}

// === impl Pod ===

impl Pod {
    /// Returns how the pod is named to operators: `namespace/name`.
    pub(super) fn key(&self) -> String {
        format!("{}/{}", self.identity.namespace, self.name)
    }

    /// Returns whether a connection that is counted already is not one too many.
    pub(super) fn admit(&self, node: &Node) -> Result<(), CloseReason> {
        let most = node.options.max_pod_connections.get();
        node.within(self.connections.open(), most, "pod_connections")
    }

    /// Returns whether `address` is the pod's own.
    pub fn owns(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address)
    }

    /// Returns a socket for a connection that leaves the pod to `to`.
    pub(super) async fn outbound_socket(&self, to: IpAddr) -> io::Result<Socket> {
        self.sockets.take(SocketKind::outbound(to)).await
    }

    /// Returns a socket for datagrams that leave the pod to `to`.
    pub(super) async fn datagram_socket(&self, to: IpAddr) -> io::Result<Socket> {
        self.sockets.take(SocketKind::datagram(to)).await
    }

    /// Returns a socket for a connection to the application in the name of `client`.
    pub(super) async fn delivery_socket(&self, client: SocketAddr) -> io::Result<Socket> {
        let socket = self.sockets.take(SocketKind::delivery(client.ip())).await?;
        bind_delivery(&socket, client)?;
        Ok(socket)
    }

    /// Returns the TLS configurations for a new connection. One that comes right after the
    /// enrolment waits for them.
    pub(super) async fn certificate(&self) -> Result<Arc<TlsConfigs>, CloseReason> {
        let current = match self.svid.current() {
            Err(NoCertificate::Pending(_)) => {
                timeout(FIRST_CERTIFICATE_TIMEOUT, self.svid.wait_ready()).await.ok()
            }
            other => other.ok(),
        };
        current.ok_or(CloseReason::NoCertificate)
    }
}

// === impl Peers ===

impl Peers {
    /// Starts with nothing taken.
    pub(super) fn new() -> Self {
        Self { connections: Shares::new(), handshakes: Shares::new() }
    }

    /// Counts a connection from `peer`.
    pub(super) fn connection(&self, peer: IpAddr) -> Part {
        self.connections.take(peer)
    }

    /// Counts a handshake of `peer` that is about to begin, unless it is one too many.
    pub(super) fn admit_handshake(&self, node: &Node, peer: IpAddr) -> Result<Part, CloseReason> {
        let part = self.handshakes.take(peer);
        node.within(part.held(), MAX_PEER_HANDSHAKES, "peer_handshakes")?;
        Ok(part)
    }
}

// === impl OpenConnections ===

impl OpenConnections {
    /// Starts at none.
    pub fn new() -> Self {
        Self { open: AtomicUsize::new(0), idle: watch::Sender::new(()) }
    }

    /// Returns the number of open connections.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// Returns once no connection is open.
    pub async fn wait_until_none(&self) {
        let mut idle = self.idle.subscribe();
        while self.open() > 0 {
            // The sender lives as long as `self`.
            let _ = idle.changed().await;
        }
    }

    pub(super) fn add(&self) {
        self.open.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn remove(&self) {
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.idle.send_replace(());
        }
    }
}

impl Default for OpenConnections {
    fn default() -> Self {
        Self::new()
    }
}
