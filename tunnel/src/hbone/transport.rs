//! The byte stream under a tunnel: TLS 1.3 over a socket.
//!
//! `rustls` makes the handshake and every key. The records in between are ours to open and seal
//! with the keys it hands out, because its own buffers cost three copies of every byte received.

mod handshake;
mod record;
mod session;
mod stream;
#[cfg(test)]
pub(super) mod tests;
mod wire;

use std::{io, sync::Arc};

use rustls::{
    ClientConfig, ServerConfig,
    pki_types::{CertificateDer, ServerName},
};
use tokio::{net::TcpStream, time::timeout};

use self::handshake::{Established, invalid};
pub use self::{
    stream::Stream,
    wire::{PathReport, Wire},
};
use crate::limits::HANDSHAKE_TIMEOUT;

/// A stream, and who is at its other end.
pub struct Secured<S = Stream> {
    /// The stream.
    pub stream: S,
    /// The certificates that the peer showed, now or when the session that is resumed began.
    pub peer_certificates: Option<Vec<CertificateDer<'static>>>,
}

/// Performs the client's handshake.
pub async fn connect(
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    mut socket: TcpStream,
) -> io::Result<Secured> {
    let handshake = handshake::connect(config, name, &mut socket);
    let established = timeout(HANDSHAKE_TIMEOUT, handshake).await??;
    secured(socket, established)
}

/// Performs the server's handshake.
pub async fn accept(config: Arc<ServerConfig>, mut socket: TcpStream) -> io::Result<Secured> {
    let handshake = handshake::accept(config, &mut socket);
    let established = timeout(HANDSHAKE_TIMEOUT, handshake).await??;
    secured(socket, established)
}

fn secured(socket: TcpStream, mut established: Established) -> io::Result<Secured> {
    let peer_certificates = established.peer_certificates.take();
    let stream = Stream::new(socket, established).map_err(invalid)?;
    Ok(Secured { stream, peer_certificates })
}
