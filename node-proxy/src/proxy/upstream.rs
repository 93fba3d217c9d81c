//! Tunnels to peers.

use std::{net::SocketAddr, rc::Rc, sync::Arc};

use fairlead_ebpf::NetnsCookie;
use http::Request;
use mesh_api::identity::Identity;
use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use super::pod::Pod;
use crate::{
    hbone::{
        TunnelError,
        client::{OpenError, Stream, Tunnel},
        limits::CONNECT_TIMEOUT,
        pool::{Pool, PoolError},
        transport,
    },
    telemetry::{metrics::NodeMetrics, reason::CloseReason},
    tls::{self, HandshakeFailure},
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

/// Opens a stream to `peer` in the name of `pod`.
pub(super) async fn open(
    tunnels: &Tunnels,
    pod: &Arc<Pod>,
    peer: &Peer,
    metrics: &Arc<NodeMetrics>,
    request: Request<()>,
) -> Result<Stream, CloseReason> {
    let dial = || dial(pod.clone(), peer.clone(), metrics.clone());
    tunnels.open(peer, request, dial).await.map_err(|e| match e {
        PoolError::Dial(reason) => reason,
        PoolError::NoRoom => CloseReason::LimitReached { limit: "tunnel_streams" },
        PoolError::Open(OpenError::Refused(status)) => {
            CloseReason::RefusedByPeer { status: status.as_u16() }
        }
        PoolError::Open(OpenError::Timeout) => {
            CloseReason::ConnectTimeout { port: peer.address.port() }
        }
        PoolError::Open(OpenError::TunnelClosed) => CloseReason::TunnelLost,
        PoolError::Open(OpenError::Http2(e)) => http2_failure(&e),
    })
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
    let socket = connect(socket, peer.address).await?;
    let config = configs.client(&peer.expected);
    let io = transport::connect(config, tls::server_name(), socket).await.map_err(|error| {
        tracing::debug!(peer = %peer.address, %error, "TLS handshake failed");
        handshake_failure(&error)
    })?;
    Tunnel::connect(io, metrics.tunnels_open.outbound.clone()).await.map_err(|error| {
        tracing::debug!(peer = %peer.address, %error, "HTTP/2 handshake failed");
        match error {
            TunnelError::Timeout => CloseReason::TlsHandshake(HandshakeFailure::Timeout),
            TunnelError::Io(e) => handshake_failure(&e),
            TunnelError::Http2(e) => http2_failure(&e),
        }
    })
}

/// Returns the close reason of a failed handshake.
fn handshake_failure(error: &std::io::Error) -> CloseReason {
    let failure = HandshakeFailure::from(error);
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
