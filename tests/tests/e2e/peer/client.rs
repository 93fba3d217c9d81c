//! The client's end of a tunnel.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Result, ensure};
use bytes::Bytes;
use h2::{
    RecvStream, SendStream,
    client::{self, SendRequest},
};
use http::{Method, Request, Response};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{Credentials, Stream, Task, adopt};

/// The client's end of a tunnel.
#[derive(Debug)]
pub(crate) struct Tunnel {
    local: SocketAddr,
    server: CertificateDer<'static>,
    requests: SendRequest<Bytes>,
    _driver: Task,
}

/// Takes every server for the right one, as long as it has the key of its certificate.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

/// Returns the configuration of a client that shows `credentials`, if any, and trusts everybody.
pub(crate) fn client_config(credentials: Option<&Credentials>) -> Result<ClientConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer(provider)));
    let mut config = match credentials {
        Some(shown) => builder.with_client_auth_cert(shown.chain(), shown.key())?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.enable_sni = false;
    Ok(config)
}

/// Makes `protocol` the only one that the client offers.
pub(crate) fn only_alpn(mut config: ClientConfig, protocol: &str) -> ClientConfig {
    config.alpn_protocols = vec![protocol.into()];
    config
}

/// Performs the client's part of a TLS handshake.
pub(crate) async fn handshake(
    socket: std::net::TcpStream,
    config: ClientConfig,
) -> Result<TlsStream<TcpStream>> {
    let name = ServerName::IpAddress(socket.peer_addr()?.ip().into());
    Ok(TlsConnector::from(Arc::new(config)).connect(name, adopt(socket)?).await?)
}

// === impl Tunnel ===

impl Tunnel {
    /// Opens a tunnel on `socket`.
    pub(crate) async fn open(
        socket: std::net::TcpStream,
        credentials: &Credentials,
    ) -> Result<Self> {
        let local = socket.local_addr()?;
        let io = handshake(socket, client_config(Some(credentials))?).await?;
        let (_, session) = io.get_ref();
        ensure!(session.alpn_protocol() == Some(b"h2"), "no HTTP/2");
        let server = session.peer_certificates().and_then(<[_]>::first).cloned();
        let (requests, connection) = client::handshake(io).await?;
        let driver = Task::spawn(async move {
            // How it ends is seen by its streams.
            let _ = connection.await;
        });
        let server = server.unwrap_or_else(|| Vec::new().into());
        Ok(Self { local, server, requests, _driver: driver })
    }

    /// Returns the address of the client's socket.
    pub(crate) fn local(&self) -> SocketAddr {
        self.local
    }

    /// Returns the certificate that the server showed.
    pub(crate) fn server_certificate(&self) -> &[u8] {
        &self.server
    }

    /// Sends a request and returns the answer, and the rest of the stream.
    pub(crate) async fn request(
        &self,
        request: Request<()>,
    ) -> Result<(Response<RecvStream>, SendStream<Bytes>), h2::Error> {
        let mut ready = self.requests.clone().ready().await?;
        let (answer, send) = ready.send_request(request, false)?;
        Ok((answer.await?, send))
    }

    /// Asks for `authority` and returns the status of the answer.
    pub(crate) async fn status(&self, authority: impl ToString) -> Result<u16> {
        let (answer, _send) = self.request(connect_request(&authority.to_string())?).await?;
        Ok(answer.status().as_u16())
    }

    /// Opens a stream to `authority`, which must be accepted.
    pub(crate) async fn connect(&self, authority: impl ToString) -> Result<Stream> {
        self.open_stream(connect_request(&authority.to_string())?).await
    }

    /// Opens a stream to `authority` with a `forwarded` header.
    pub(crate) async fn connect_forwarded(
        &self,
        authority: impl ToString,
        forwarded: &str,
    ) -> Result<Stream> {
        let mut request = connect_request(&authority.to_string())?;
        request.headers_mut().insert(http::header::FORWARDED, forwarded.parse()?);
        self.open_stream(request).await
    }

    async fn open_stream(&self, request: Request<()>) -> Result<Stream> {
        let (answer, send) = self.request(request).await?;
        ensure!(answer.status() == 200, "the answer is {}", answer.status());
        let (head, recv) = answer.into_parts();
        Ok(Stream::new(head.headers, send, recv))
    }
}

// === impl AnyServer ===

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn connect_request(authority: &str) -> Result<Request<()>> {
    Ok(Request::builder().method(Method::CONNECT).uri(authority).body(())?)
}
