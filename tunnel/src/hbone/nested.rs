//! A tunnel inside a stream of another one: the way through the gateway of a network, which passes on
//! bytes that it cannot read.

use std::{io, sync::Arc};

use rustls::{ClientConfig, pki_types::ServerName};
use tokio::time::timeout;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    client::{self, Carrier, Slot, Under},
    duplex::Lingering,
    transport::Secured,
};
use crate::limits::HANDSHAKE_TIMEOUT;

/// The stream of a tunnel that another one runs in.
pub type Nested = Lingering<Slot>;

/// Performs the client's handshake inside `stream`.
pub async fn connect(
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    stream: client::Stream,
) -> io::Result<Secured<TlsStream<Nested>>> {
    let handshake = TlsConnector::from(config).connect(name, Nested::from(stream));
    let stream = timeout(HANDSHAKE_TIMEOUT, handshake).await??;
    let peer_certificates = stream.get_ref().1.peer_certificates().map(<[_]>::to_vec);
    Ok(Secured { stream, peer_certificates })
}

impl Carrier for TlsStream<Nested> {
    fn under(&self) -> Under {
        self.get_ref().0.held().under()
    }
}

#[cfg(test)]
mod tests;
