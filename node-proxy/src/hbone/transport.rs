//! The byte stream under a tunnel: TLS 1.3 over a socket.
//!
//! `rustls` makes the handshake and every key. The records in between are ours to open and seal
//! with the keys it hands out, because its own buffers cost three copies of every byte received.

mod handshake;
mod record;
mod session;
mod stream;
#[cfg(test)]
mod tests;

use std::{io, sync::Arc};

use rustls::{
    ClientConfig, ServerConfig,
    pki_types::{CertificateDer, ServerName},
};
use tokio::{net::TcpStream, time::timeout};

use self::handshake::{Established, invalid};
pub use self::stream::Stream;
use super::limits::HANDSHAKE_TIMEOUT;

/// A stream that was accepted, and who opened it.
pub struct Accepted {
    /// The stream.
    pub stream: Stream,
    /// The certificates that the client showed.
    pub peer_certificates: Option<Vec<CertificateDer<'static>>>,
}

/// Performs the client's handshake.
pub async fn connect(
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    mut socket: TcpStream,
) -> io::Result<Stream> {
    let handshake = handshake::connect(config, name, &mut socket);
    let established = timeout(HANDSHAKE_TIMEOUT, handshake).await??;
    Stream::new(socket, established).map_err(invalid)
}

/// Performs the server's handshake.
pub async fn accept(config: Arc<ServerConfig>, mut socket: TcpStream) -> io::Result<Accepted> {
    let handshake = handshake::accept(config, &mut socket);
    let mut established: Established = timeout(HANDSHAKE_TIMEOUT, handshake).await??;
    let peer_certificates = established.peer_certificates.take();
    let stream = Stream::new(socket, established).map_err(invalid)?;
    Ok(Accepted { stream, peer_certificates })
}
