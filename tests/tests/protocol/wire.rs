//! gRPC by hand: messages are bytes.

use std::{fs, future::poll_fn, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use h2::{RecvStream, SendStream, client::ResponseFuture};
use http::Request;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

use crate::plane::{Plane, TOKEN};

pub(crate) const DISCOVER: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
pub(crate) const CERTIFY: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";

const SOON: Duration = Duration::from_secs(20);

/// Length of what precedes a message, in bytes.
const PREFIX_BYTES: usize = 5;

/// A call that is open in both directions.
pub(crate) struct Call {
    requests: SendStream<Bytes>,
    /// Until the server answers, which it may do only when it has a message.
    response: ResponseFuture,
    responses: Option<RecvStream>,
    buffer: BytesMut,
}

// === impl Call ===

impl Call {
    /// Calls `method` of the control plane.
    pub(crate) async fn open(plane: &Plane, method: &str) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(&fs::read(plane.root())?) {
            roots.add(root?)?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let socket = TcpStream::connect(plane.address).await?;
        let name = ServerName::try_from("localhost")?;
        let stream = TlsConnector::from(Arc::new(config)).connect(name, socket).await?;
        let (requests, connection) = h2::client::handshake(stream).await?;
        tokio::spawn(connection);
        let request = Request::post(format!("https://localhost{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("authorization", format!("Bearer {TOKEN}"))
            .body(())?;
        let (response, requests) = requests.ready().await?.send_request(request, false)?;
        Ok(Self { requests, response, responses: None, buffer: BytesMut::new() })
    }

    /// Sends a message, `last` if none follows.
    pub(crate) async fn send(&mut self, message: &[u8], last: bool) -> Result<()> {
        let mut framed = BytesMut::new();
        framed.put_u8(0);
        framed.put_u32(u32::try_from(message.len())?);
        framed.put_slice(message);
        self.requests.reserve_capacity(framed.len());
        let room = poll_fn(|cx| self.requests.poll_capacity(cx)).await.context("closed")??;
        ensure!(room >= framed.len(), "a request that is too large for this client");
        Ok(self.requests.send_data(framed.freeze(), last)?)
    }

    /// Returns the next message.
    pub(crate) async fn receive(&mut self) -> Result<Bytes> {
        loop {
            if let Some([0, length @ ..]) = self.buffer.first_chunk::<PREFIX_BYTES>() {
                let length = u32::from_be_bytes(*length) as usize;
                if self.buffer.len() >= PREFIX_BYTES + length {
                    self.buffer.advance(PREFIX_BYTES);
                    return Ok(self.buffer.split_to(length).freeze());
                }
            }
            let part = timeout(SOON, self.part()).await.context("no answer")??;
            self.buffer.extend_from_slice(&part);
        }
    }

    async fn part(&mut self) -> Result<Bytes> {
        let responses = match &mut self.responses {
            Some(responses) => responses,
            None => self.responses.insert((&mut self.response).await?.into_body()),
        };
        match responses.data().await {
            Some(part) => {
                let part = part?;
                responses.flow_control().release_capacity(part.len())?;
                Ok(part)
            }
            None => bail!("the call ended: {:?}", responses.trailers().await?),
        }
    }
}
