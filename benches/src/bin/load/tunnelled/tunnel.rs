//! A tunnel to a waypoint: HTTP/2 over TLS 1.3 with certificates of both ends.

use std::{fs, net::SocketAddr, sync::Arc};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use fairlead_tunnel::hbone::duplex::Duplex;
use h2::client::SendRequest;
use http::{Method, Request, StatusCode};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
};
use tokio::{net::TcpStream, task::spawn_local};
use tokio_rustls::TlsConnector;

use super::Way;

/// Flow-control window, in bytes: more than the requests at once need.
const WINDOW_BYTES: u32 = 1 << 20;

/// What bytes in a tunnel go over.
pub(super) type Io = Duplex<()>;

/// An open tunnel.
pub(super) struct Tunnel {
    requests: SendRequest<Bytes>,
    to: SocketAddr,
}

/// Takes any certificate: whom the load goes to is not what is measured.
#[derive(Debug)]
struct Anybody;

// === impl Tunnel ===

impl Tunnel {
    pub(super) async fn open(way: &Way) -> Result<Self> {
        let socket = TcpStream::connect(way.via).await?;
        socket.set_nodelay(true)?;
        let connector = TlsConnector::from(Arc::new(config(way)?));
        let stream = connector.connect(ServerName::IpAddress(way.via.ip().into()), socket).await?;
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(WINDOW_BYTES).initial_connection_window_size(WINDOW_BYTES);
        let (requests, connection) = builder.handshake::<_, Bytes>(stream).await?;
        spawn_local(async move {
            // Its streams tell of errors.
            let _ = connection.await;
        });
        Ok(Self { requests, to: way.to })
    }

    /// Opens a connection to what the load is for.
    pub(super) async fn connect(&self) -> Result<Io> {
        let mut requests = self.requests.clone().ready().await?;
        let request = Request::builder().method(Method::CONNECT).uri(self.to.to_string());
        let (response, send) = requests.send_request(request.body(())?, false)?;
        let response = response.await.context("CONNECT")?;
        ensure!(response.status() == StatusCode::OK, "CONNECT: {}", response.status());
        Ok(Duplex::new(send, response.into_body(), ()))
    }
}

fn config(way: &Way) -> Result<ClientConfig> {
    let pem = fs::read(&way.certificate)?;
    let chain = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(&way.key)?;
    let mut config = ClientConfig::builder()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

// === impl Anybody ===

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken in tunnels".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}
