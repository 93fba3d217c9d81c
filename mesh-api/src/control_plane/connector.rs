//! Connections to the control plane: TCP to any of its addresses, then TLS 1.3.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, LazyLock},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, pem::PemObject},
    version::TLS13,
};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{Address, ConnectError, ControlPlane};

/// Time to look up the name, time for one address to answer, and time for the TLS handshake.
const STEP_TIMEOUT: Duration = Duration::from_secs(5);

/// Addresses of a name that are tried; a service has one or two.
const MAX_ADDRESSES: usize = 8;

/// Idle time after which the kernel probes a connection, pause between probes, and their number:
/// a peer whose machine is gone is noticed even where HTTP/2 pings are not sent.
const TCP_KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_mins(5))
    .with_interval(Duration::from_secs(75))
    .with_retries(9);

/// The only application protocol of gRPC.
const ALPN_H2: &[u8] = b"h2";

static PROVIDER: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));

/// Makes connections to one address.
#[derive(Clone)]
pub(super) struct Connector {
    address: Address,
    server_name: ServerName<'static>,
    tls: TlsConnector,
}

// === impl Connector ===

impl Connector {
    pub(super) fn new(control_plane: &ControlPlane, roots: &[u8]) -> Result<Self, ConnectError> {
        let address = control_plane.address.clone();
        let server_name = match &control_plane.server_name {
            Some(name) => name.clone(),
            None => address.server_name().map_err(|error| ConnectError::Unreachable {
                address: address.clone(),
                problem: error.to_string(),
            })?,
        };
        let roots = root_store(roots).map_err(|problem| ConnectError::Roots {
            path: control_plane.roots.clone(),
            problem,
        })?;
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&PROVIDER))
            .with_protocol_versions(&[&TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![ALPN_H2.to_vec()];
        Ok(Self { address, server_name, tls: TlsConnector::from(Arc::new(config)) })
    }

    /// Connects to the first address of the host that takes the connection.
    pub(super) async fn connect(&self) -> io::Result<TokioIo<TlsStream<TcpStream>>> {
        let host = (self.address.host(), self.address.port());
        let addresses = in_time("the name lookup", lookup_host(host)).await?;
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in addresses.take(MAX_ADDRESSES) {
            match open(address).await {
                Ok(socket) => {
                    let handshake = self.tls.connect(self.server_name.clone(), socket);
                    return Ok(TokioIo::new(in_time("the TLS handshake", handshake).await?));
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }
}

async fn open(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = in_time("the connect", TcpStream::connect(address)).await?;
    socket.set_nodelay(true)?;
    SockRef::from(&socket).set_tcp_keepalive(&TCP_KEEPALIVE)?;
    Ok(socket)
}

async fn in_time<T>(what: &str, step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(STEP_TIMEOUT, step).await.unwrap_or_else(|_| {
        let message = format!("{what} took longer than {} s", STEP_TIMEOUT.as_secs());
        Err(io::Error::new(io::ErrorKind::TimedOut, message))
    })
}

fn root_store(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| format!("it is not PEM ({error:?})"))?;
        store.add(certificate).map_err(|error| error.to_string())?;
    }
    if store.is_empty() { Err("there is none".to_owned()) } else { Ok(store) }
}
