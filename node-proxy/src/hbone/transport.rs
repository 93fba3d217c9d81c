//! The byte stream under a tunnel: TLS over a socket that is read in large pieces.

use std::{io, sync::Arc};

use rustls::{ClientConfig, ServerConfig, pki_types::ServerName};
use tokio::{io::BufReader, net::TcpStream, time::timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::limits::{HANDSHAKE_TIMEOUT, READ_AHEAD_BYTES, TLS_WRITE_BYTES};

/// A socket read ahead of TLS, which by itself would make a system call per record.
pub type Socket = BufReader<TcpStream>;

/// The client's end of a tunnel's byte stream.
pub type ClientStream = client::TlsStream<Socket>;

/// The server's end of a tunnel's byte stream.
pub type ServerStream = server::TlsStream<Socket>;

/// Performs the client's handshake.
pub async fn connect(
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    socket: TcpStream,
) -> io::Result<ClientStream> {
    let handshake = TlsConnector::from(config).connect(name, read_ahead(socket));
    let mut stream = timeout(HANDSHAKE_TIMEOUT, handshake).await??;
    stream.get_mut().1.set_buffer_limit(Some(TLS_WRITE_BYTES));
    Ok(stream)
}

/// Performs the server's handshake.
pub async fn accept(config: Arc<ServerConfig>, socket: TcpStream) -> io::Result<ServerStream> {
    let handshake = TlsAcceptor::from(config).accept(read_ahead(socket));
    let mut stream = timeout(HANDSHAKE_TIMEOUT, handshake).await??;
    stream.get_mut().1.set_buffer_limit(Some(TLS_WRITE_BYTES));
    Ok(stream)
}

fn read_ahead(socket: TcpStream) -> Socket {
    BufReader::with_capacity(READ_AHEAD_BYTES, socket)
}
