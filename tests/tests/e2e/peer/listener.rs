//! Where a proxy under test takes tunnels, for clients that are no proxies.

use std::net::SocketAddr;

use anyhow::Result;
use fairlead_lab::Pod;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};
use tokio_rustls::client::TlsStream;

use super::{
    Credentials, Frame, HBONE, PREFACE, Tunnel, client_config, connect_head, dial, handshake,
    write_frame,
};

/// The listener of a proxy under test, as one client uses it.
#[derive(Debug)]
pub(crate) struct Listener {
    client: Pod,
    credentials: Credentials,
    server: Pod,
    /// What may be asked for there.
    target: SocketAddr,
}

// === impl Listener ===

impl Listener {
    /// Returns the listener at the HBONE port of `server`, of which `client` asks for `target` in the
    /// name that `credentials` prove.
    pub(crate) fn new(
        client: &Pod,
        credentials: Credentials,
        server: &Pod,
        target: SocketAddr,
    ) -> Self {
        Self { client: client.clone(), credentials, server: server.clone(), target }
    }

    /// Returns what may be asked for.
    pub(crate) fn target(&self) -> SocketAddr {
        self.target
    }

    /// Opens a tunnel.
    pub(crate) async fn tunnel(&self) -> Result<Tunnel> {
        Tunnel::open(dial(&self.client, self.server.v4(HBONE))?, &self.credentials).await
    }

    /// Opens a tunnel that says no more than a client must.
    pub(crate) async fn bare_tunnel(&self) -> Result<TlsStream<TcpStream>> {
        let mut io = self.silent_tunnel().await?;
        io.write_all(PREFACE).await?;
        write_frame(&mut io, &Frame::no_settings()).await?;
        Ok(io)
    }

    /// Opens a tunnel that says nothing.
    pub(crate) async fn silent_tunnel(&self) -> Result<TlsStream<TcpStream>> {
        let socket = dial(&self.client, self.server.v4(HBONE))?;
        handshake(socket, client_config(Some(&self.credentials))?).await
    }

    /// Returns the frame that asks for the target.
    pub(crate) fn open(&self, stream: u32) -> Frame {
        self.open_with(stream, &[])
    }

    /// Returns the frame that asks for the target with further headers.
    pub(crate) fn open_with(&self, stream: u32, headers: &[(&str, &[u8])]) -> Frame {
        let block = connect_head(self.target.to_string().as_bytes(), headers);
        Frame::new(Frame::HEADERS, Frame::END_HEADERS, stream, block)
    }
}
