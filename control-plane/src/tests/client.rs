//! A gRPC client over TLS.

use std::{net::SocketAddr, sync::Arc};

use hyper_util::rt::TokioIo;
use mesh_api::proto::{
    ca::istio_certificate_service_client::IstioCertificateServiceClient,
    discovery::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node, Status as Detail,
        aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
    },
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::{net::TcpStream, sync::mpsc};
use tokio_rustls::TlsConnector;
use tonic::{
    Request, Status, Streaming,
    transport::{Channel, Endpoint},
};

use super::plane::{Plane, TOKEN};

pub(super) const ADDRESS: &str = "type.googleapis.com/istio.workload.Address";
pub(super) const AUTHORIZATION: &str = "type.googleapis.com/istio.security.Authorization";

/// Requests that wait to be sent.
const QUEUE: usize = 16;

/// A stream of discovery.
pub(super) struct Stream {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

/// Connects to a control plane, and verifies it as a node proxy does.
pub(super) async fn connect(plane: &Plane) -> Channel {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(plane.root.as_bytes()) {
        roots.add(root.unwrap()).unwrap();
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let address = plane.address;
    let connect = tower::service_fn(move |_| tls(connector.clone(), address));
    Endpoint::from_static("http://istiod.istio-system.svc")
        .connect_with_connector(connect)
        .await
        .unwrap()
}

async fn tls(
    connector: TlsConnector,
    address: SocketAddr,
) -> std::io::Result<TokioIo<tokio_rustls::client::TlsStream<TcpStream>>> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("istiod.istio-system.svc").unwrap();
    connector.connect(name, stream).await.map(TokioIo::new)
}

/// Returns a request with a bearer token.
pub(super) fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    let value = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", value);
    request
}

pub(super) fn certificates(channel: &Channel) -> IstioCertificateServiceClient<Channel> {
    IstioCertificateServiceClient::new(channel.clone())
}

/// Returns a first request of a type.
pub(super) fn first(type_url: &str) -> DeltaDiscoveryRequest {
    let node = Node { id: "ztunnel~10.0.0.1~zt.istio-system~x".into(), ..Default::default() };
    DeltaDiscoveryRequest { type_url: type_url.into(), node: Some(node), ..Default::default() }
}

// === impl Stream ===

impl Stream {
    /// Opens a stream with the token of the node proxy on n1.
    pub(super) async fn open(plane: &Plane) -> Self {
        Self::open_on(connect(plane).await, TOKEN).await.unwrap()
    }

    pub(super) async fn open_on(channel: Channel, token: &str) -> Result<Self, Status> {
        let (requests, receiver) = mpsc::channel(QUEUE);
        let outgoing = futures_util::stream::unfold(receiver, |mut receiver| async {
            Some((receiver.recv().await?, receiver))
        });
        let mut client = AggregatedDiscoveryServiceClient::new(channel);
        let responses = client.delta_aggregated_resources(with_token(outgoing, token)).await?;
        Ok(Self { requests, responses: responses.into_inner() })
    }

    /// Opens a stream and subscribes to every address.
    pub(super) async fn to_everything(plane: &Plane) -> Self {
        let stream = Self::open(plane).await;
        stream.send(first(ADDRESS)).await;
        stream
    }

    pub(super) async fn send(&self, request: DeltaDiscoveryRequest) {
        self.requests.send(request).await.unwrap();
    }

    /// Returns the next response, which is not acknowledged.
    pub(super) async fn read(&mut self) -> DeltaDiscoveryResponse {
        self.responses.message().await.unwrap().expect("a response")
    }

    /// Returns how the stream ends.
    pub(super) async fn end(mut self) -> Result<(), Status> {
        while self.responses.message().await?.is_some() {}
        Ok(())
    }

    /// Acknowledges a response, or rejects it.
    pub(super) async fn reply(&self, response: &DeltaDiscoveryResponse, rejection: Option<&str>) {
        let error_detail = rejection.map(|message| Detail {
            code: 3,
            message: message.into(),
            ..Default::default()
        });
        let reply = DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            error_detail,
            ..Default::default()
        };
        self.send(reply).await;
    }

    /// Returns what the next response says, and acknowledges it.
    pub(super) async fn told(&mut self) -> Vec<String> {
        let response = self.read().await;
        self.reply(&response, None).await;
        names(&response)
    }
}

/// Returns the names in a response; those of what is gone with a dash.
pub(super) fn names(response: &DeltaDiscoveryResponse) -> Vec<String> {
    let mut names: Vec<_> =
        response.removed_resources.iter().map(|name| format!("-{name}")).collect();
    names.extend(response.resources.iter().map(|resource| resource.name.clone()));
    names
}
