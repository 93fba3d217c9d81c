//! An enrolled pod as the proxy sees it: a name, an identity and a source of sockets.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use fairlead_ebpf::NetnsCookie;
use mesh_api::identity::Identity;
use tokio::{sync::watch, time::timeout};

use crate::{
    identity::{IdentityHandle, NoCertificate},
    sys::{netns::Netns, socket},
    telemetry::reason::CloseReason,
    tls::TlsConfigs,
};

/// Time that a connection waits for the pod's first certificate; half of what a peer's handshake
/// waits.
const FIRST_CERTIFICATE_TIMEOUT: Duration = Duration::from_secs(5);

/// Port of the listener for connections that the pod opens.
pub const OUTBOUND_PORT: u16 = 15001;

/// Port of the listener for plaintext connections to the pod.
pub const INBOUND_PLAINTEXT_PORT: u16 = 15006;

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
    /// Where the pod's sockets come from.
    pub sockets: PodSockets,
    /// Connections of the pod that are open.
    pub connections: PodConnections,
}

/// Makes sockets inside the pod's namespace.
#[derive(Debug)]
pub struct PodSockets(Arc<Netns>);

/// The listening sockets of a pod.
#[derive(Debug)]
pub struct Listeners {
    /// Connections that the pod opens.
    pub outbound: TcpListener,
    /// HBONE tunnels to the pod.
    pub inbound_hbone: TcpListener,
    /// Every other connection to the pod.
    pub inbound_plaintext: TcpListener,
}

/// Counts open connections and tells when there are none.
#[derive(Debug)]
pub struct PodConnections {
    open: AtomicUsize,
    idle: watch::Sender<()>,
}

// === impl Pod ===

impl Pod {
    /// Returns whether `address` is the pod's own.
    pub fn owns(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address)
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

// === impl PodSockets ===

impl PodSockets {
    /// Makes sockets inside `netns`.
    pub fn new(netns: Arc<Netns>) -> Self {
        Self(netns)
    }

    /// Returns a socket for a connection that leaves the pod.
    pub(super) fn outbound(&self, to: IpAddr) -> io::Result<socket2::Socket> {
        self.0.within(|| socket::outbound(to))?
    }

    /// Returns a socket for a connection to the application in the name of `client`.
    pub(super) fn delivery(&self, client: SocketAddr) -> io::Result<socket2::Socket> {
        self.0.within(|| socket::delivery(client))?
    }
}

// === impl Listeners ===

impl Listeners {
    /// Duplicates the sockets for another thread that accepts from them.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            outbound: self.outbound.try_clone()?,
            inbound_hbone: self.inbound_hbone.try_clone()?,
            inbound_plaintext: self.inbound_plaintext.try_clone()?,
        })
    }
}

// === impl PodConnections ===

impl PodConnections {
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

impl Default for PodConnections {
    fn default() -> Self {
        Self::new()
    }
}
