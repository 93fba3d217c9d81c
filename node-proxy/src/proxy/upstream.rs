//! Tunnels to peers.

use std::{
    future::pending,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use fairlead_ebpf::{HBONE_PORT, NetnsCookie};
use fairlead_tunnel::{
    hbone::{
        TunnelError,
        client::{Carrier, OpenError, Stream, Tunnel},
        nested,
        pool::{Pool, PoolError},
        transport::{self, Secured},
    },
    limits::CONNECT_TIMEOUT,
    tls::{self, HandshakeFailure, TlsConfigs},
};
use h2::SendStream;
use http::Request;
use mesh_api::identity::Identity;
use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use super::{outbound::FirstBytes, pod::Pod};
use crate::{
    limits::MAX_TUNNELS_TRIED,
    telemetry::{metrics::NodeMetrics, reason::CloseReason},
};

/// What a tunnel belongs to. The pod is part of it, since the peer's policies see its address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Peer {
    pub(super) pod: NetnsCookie,
    pub(super) address: SocketAddr,
    pub(super) expected: Arc<[Identity]>,
}

/// Tunnels of one thread.
pub(super) type Tunnels = Pool<Peer, CloseReason>;

/// Why a way on could not be opened.
#[derive(Debug)]
pub(super) struct Unopened {
    pub(super) reason: CloseReason,
    /// Whether a byte of the application may have reached the other one: it must not be sent again.
    pub(super) may_have_delivered: bool,
}

/// Opens a stream to `peer` in the name of `pod`, and sends `first` ahead, if there is something.
pub(super) async fn open(
    tunnels: &Tunnels,
    pod: &Arc<Pod>,
    peer: &Peer,
    metrics: &Arc<NodeMetrics>,
    request: Request<()>,
    first: Option<&FirstBytes<'_>>,
) -> Result<Stream, Unopened> {
    let are_sent = || first.is_some_and(FirstBytes::are_sent);
    let mut tried = 1;
    loop {
        let dial = || dial(pod.clone(), peer.clone(), metrics.clone());
        let slot = tunnels.reserve(peer, dial).await.map_err(Unopened::no_tunnel)?;
        let ahead = async |send: &mut SendStream<Bytes>| match first {
            Some(first) => first.send(send).await,
            None => pending().await,
        };
        first.inspect(|first| first.start());
        let opened = slot.open(request.clone(), ahead).await;
        let again = match &opened {
            Err(OpenError::NotProcessed) => true,
            Err(OpenError::TunnelLost) => !are_sent(),
            Err(OpenError::Http2(_) | OpenError::Refused(_) | OpenError::Timeout) | Ok(_) => false,
        };
        if again && tried < MAX_TUNNELS_TRIED {
            tried += 1;
        } else {
            return opened.map_err(|e| Unopened::new(&e, peer.address.port(), are_sent()));
        }
    }
}

/// Connects from inside the pod to `address`, and returns also how long that took.
pub(super) async fn connect_timed(
    socket: socket2::Socket,
    address: SocketAddr,
) -> Result<(TcpStream, Duration), CloseReason> {
    let started = Instant::now();
    let connected = connect(socket, address).await?;
    Ok((connected, started.elapsed()))
}

/// Connects from inside the pod to `address`.
pub(super) async fn connect(
    socket: socket2::Socket,
    address: SocketAddr,
) -> Result<TcpStream, CloseReason> {
    let connecting = TcpSocket::from_std_stream(socket.into()).connect(address);
    match timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(connected) => connected.map_err(|e| connect_failure(&e, address.port())),
        Err(_) => Err(CloseReason::ConnectTimeout { port: address.port() }),
    }
}

async fn dial(
    pod: Arc<Pod>,
    peer: Peer,
    metrics: Arc<NodeMetrics>,
) -> Result<Rc<Tunnel>, CloseReason> {
    let configs = pod.certificate().await?;
    let socket = pod.outbound_socket(peer.address.ip()).await.map_err(|e| socket_failure(&e))?;
    let (socket, connect_time) = connect_timed(socket, peer.address).await?;
    let config = configs.client(&peer.expected);
    let name = tls::server_name(peer.address.ip());
    let secured = transport::connect(config, name, socket).await.map_err(|error| {
        tracing::debug!(peer = %peer.address, %error, "TLS handshake failed");
        handshake_failure(&error)
    })?;
    secured.stream.wire().connected_in(connect_time);
    establish(&configs, secured, &peer.expected, &metrics).await
}

/// Opens a stream of its own tunnel inside `outer`, where one of `expected` must answer; returns also
/// who does. `name` is the one by which its sessions are known.
pub(super) async fn open_inside(
    outer: Stream,
    pod: &Pod,
    (name, expected): (IpAddr, &[Identity]),
    metrics: &NodeMetrics,
    request: Request<()>,
) -> Result<(Stream, Identity), Unopened> {
    let configs = pod.certificate().await?;
    let connecting = nested::connect(configs.client(expected), tls::server_name(name), outer);
    let secured = connecting.await.map_err(|error| {
        tracing::debug!(%error, "TLS handshake behind a gateway failed");
        handshake_failure(&error)
    })?;
    let identity = tls::peer_identity(secured.peer_certificates.as_deref());
    let identity = identity.map_err(|e| peer_failure((&e).into()))?;
    let tunnel = establish(&configs, secured, expected, metrics).await?;
    // Nothing is sent ahead: in a new tunnel that is a risk.
    let opened = tunnel.reserve().open(request, async |_| pending().await).await;
    let stream = opened.map_err(|e| Unopened::new(&e, HBONE_PORT, false))?;
    Ok((stream, identity))
}

/// Makes a tunnel of what a handshake has left, with one of `expected`.
async fn establish<S: Carrier>(
    configs: &TlsConfigs,
    secured: Secured<S>,
    expected: &[Identity],
    metrics: &NodeMetrics,
) -> Result<Rc<Tunnel>, CloseReason> {
    let chain = configs.check_server(secured.peer_certificates.as_deref(), expected);
    let chain = chain.map_err(|e| peer_failure((&e).into()))?;
    let (open, distrust) = (metrics.tunnels_open.outbound.clone(), async move {
        chain.revoked().await;
    });
    Tunnel::connect(secured.stream, open, distrust).await.map_err(|error| {
        tracing::debug!(%error, "HTTP/2 handshake failed");
        match error {
            TunnelError::Timeout => CloseReason::TlsHandshake(HandshakeFailure::Timeout),
            TunnelError::Io(e) => handshake_failure(&e),
            TunnelError::Http2(e) => http2_failure(&e),
            TunnelError::Excess(_) => CloseReason::Http2,
        }
    })
}

/// Returns the close reason of a failed handshake.
fn handshake_failure(error: &std::io::Error) -> CloseReason {
    peer_failure(error.into())
}

fn peer_failure(failure: HandshakeFailure) -> CloseReason {
    if failure == HandshakeFailure::PeerIdentity {
        return CloseReason::PeerIdentityMismatch;
    }
    CloseReason::TlsHandshake(failure)
}

/// Returns the close reason of a tunnel that failed before it carried anything.
fn http2_failure(error: &h2::Error) -> CloseReason {
    match error.get_io().map(std::io::Error::kind) {
        // How TLS reports an alert: with TLS 1.3 the client learns only after the handshake that
        // the server refused its certificate.
        Some(std::io::ErrorKind::InvalidData) => {
            CloseReason::TlsHandshake(HandshakeFailure::RefusedByPeer)
        }
        Some(_) => CloseReason::TunnelLost,
        None => CloseReason::Http2,
    }
}

/// Returns the close reason of a socket that could not be made.
pub(super) fn socket_failure(error: &std::io::Error) -> CloseReason {
    match error.raw_os_error() {
        Some(nix::libc::EMFILE | nix::libc::ENFILE) => {
            CloseReason::LimitReached { limit: "descriptors" }
        }
        _ => CloseReason::ConnectFailed(error.kind()),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the standard library may add kinds")]
fn connect_failure(error: &std::io::Error, port: u16) -> CloseReason {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => CloseReason::ConnectRefused,
        std::io::ErrorKind::TimedOut => CloseReason::ConnectTimeout { port },
        kind => CloseReason::ConnectFailed(kind),
    }
}

// === impl Unopened ===

impl Unopened {
    fn no_tunnel(error: PoolError<CloseReason>) -> Self {
        match error {
            PoolError::Dial(reason) => reason.into(),
            PoolError::NoRoom => CloseReason::LimitReached { limit: "tunnel_streams" }.into(),
        }
    }

    /// `sent` says whether bytes were sent ahead.
    fn new(error: &OpenError, port: u16, sent: bool) -> Self {
        let (reason, may_have_delivered) = match error {
            // A peer that answers so, or that has not looked, has passed nothing on.
            OpenError::Refused(status) => {
                (CloseReason::RefusedByPeer { status: status.as_u16(), denial: None }, false)
            }
            OpenError::NotProcessed => (CloseReason::TunnelLost, false),
            OpenError::Timeout => (CloseReason::ConnectTimeout { port }, sent),
            OpenError::TunnelLost => (CloseReason::TunnelLost, sent),
            OpenError::Http2(e) => (http2_failure(e), sent),
        };
        Self { reason, may_have_delivered }
    }
}

impl From<CloseReason> for Unopened {
    /// For what failed before a byte was sent.
    fn from(reason: CloseReason) -> Self {
        Self { reason, may_have_delivered: false }
    }
}
