//! A control plane that does as the test says, over real TLS and HTTP/2.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{Stream, stream};
use hyper::{server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_api::proto::{
    ca::{
        IstioCertificateRequest, IstioCertificateResponse,
        istio_certificate_service_server::{
            IstioCertificateService, IstioCertificateServiceServer,
        },
    },
    discovery::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource,
        aggregated_discovery_service_server::{
            AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
        },
    },
};
use prost_types::{Any, value::Kind};
use rustls::ServerConfig;
use tokio::{
    net::TcpListener,
    sync::mpsc,
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tonic::{Request, Response, Status, Streaming};
use tower::Service as _;

use crate::pki::Root;

/// Whatever is waited for comes sooner.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// The control plane.
pub(crate) struct Istiod {
    pub(crate) address: SocketAddr,
    services: Services,
    streams: mpsc::Receiver<Conversation>,
    server: Option<JoinHandle<()>>,
}

/// A stream that a client has opened.
pub(crate) struct Conversation {
    pub(crate) authorization: String,
    pub(crate) cluster: String,
    requests: Streaming<DeltaDiscoveryRequest>,
    responses: mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
}

/// What the certificate service was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) authorization: String,
    pub(crate) identity: String,
    pub(crate) seconds: i64,
}

#[derive(Clone)]
struct Services {
    streams: mpsc::Sender<Conversation>,
    issuer: Arc<Mutex<Option<Root>>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Istiod {
    /// Starts one that is certified by `config` and refuses to issue certificates.
    pub(crate) async fn start(config: Arc<ServerConfig>) -> Self {
        let (send, streams) = mpsc::channel(8);
        let services = Services { streams: send, issuer: Arc::default(), asked: Arc::default() };
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut istiod = Self { address, services, streams, server: None };
        istiod.listen(config).await;
        istiod
    }

    /// Comes back at the same address.
    pub(crate) async fn listen(&mut self, config: Arc<ServerConfig>) {
        self.go_away().await;
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.address = listener.local_addr().unwrap();
        self.server = Some(tokio::spawn(serve(listener, config, self.services.clone())));
    }

    /// Breaks every connection and takes no more.
    pub(crate) async fn go_away(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
            // Its end is what frees the address.
            let _ = server.await;
        }
    }

    /// Issues certificates from now on.
    pub(crate) fn grant(&self, issuer: Root) {
        *self.services.issuer.lock().unwrap() = Some(issuer);
    }

    /// Returns what the certificate service was asked so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.services.asked.lock().unwrap().clone()
    }

    /// Waits for a stream.
    pub(crate) async fn stream(&mut self) -> Conversation {
        timeout(SOON, self.streams.recv()).await.expect("a stream").unwrap()
    }
}

impl Drop for Istiod {
    fn drop(&mut self) {
        if let Some(server) = &self.server {
            server.abort();
        }
    }
}

impl Conversation {
    /// Waits for a request.
    pub(crate) async fn request(&mut self) -> DeltaDiscoveryRequest {
        timeout(SOON, self.requests.message()).await.expect("a request").unwrap().unwrap()
    }

    /// Sends resources, and names of those that are gone.
    pub(crate) async fn send(
        &self,
        (type_url, nonce): (&str, &str),
        resources: Vec<Resource>,
        removed: &[&str],
    ) {
        let response = DeltaDiscoveryResponse {
            type_url: type_url.to_owned(),
            nonce: nonce.to_owned(),
            resources,
            removed_resources: removed.iter().map(|name| (*name).to_owned()).collect(),
            ..DeltaDiscoveryResponse::default()
        };
        self.responses.send(Ok(response)).await.unwrap();
    }
}

/// Returns a resource with this content.
pub(crate) fn resource(
    type_url: &str,
    name: &str,
    version: &str,
    content: &impl prost::Message,
) -> Resource {
    Resource {
        version: version.to_owned(),
        resource: Some(Any { type_url: type_url.to_owned(), value: content.encode_to_vec() }),
        name: name.to_owned(),
        aliases: Vec::new(),
    }
}

async fn serve(listener: TcpListener, config: Arc<ServerConfig>, services: Services) {
    // Dropped with this task, and all connections with it.
    let mut connections = JoinSet::new();
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        let (acceptor, services) = (TlsAcceptor::from(config.clone()), services.clone());
        connections.spawn(async move {
            // A client that trusts another root ends it here.
            let Ok(stream) = acceptor.accept(socket).await else { return };
            let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let services = services.clone();
                async move {
                    if request.uri().path().starts_with("/istio.v1.auth.") {
                        IstioCertificateServiceServer::new(services).call(request).await
                    } else {
                        AggregatedDiscoveryServiceServer::new(services).call(request).await
                    }
                }
            });
            let server = http2::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

fn header<T>(request: &Request<T>, name: &str) -> String {
    let value = request.metadata().get(name);
    value.map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Services {
    type DeltaAggregatedResourcesStream =
        Pin<Box<dyn Stream<Item = Result<DeltaDiscoveryResponse, Status>> + Send>>;

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let (responses, queue) = mpsc::channel(8);
        let conversation = Conversation {
            authorization: header(&request, "authorization"),
            cluster: header(&request, "clusterid"),
            requests: request.into_inner(),
            responses,
        };
        self.streams.send(conversation).await.unwrap();
        let outgoing = stream::unfold(queue, async |mut queue: mpsc::Receiver<_>| {
            queue.recv().await.map(|response| (response, queue))
        });
        Ok(Response::new(Box::pin(outgoing)))
    }
}

#[tonic::async_trait]
impl IstioCertificateService for Services {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let authorization = header(&request, "authorization");
        let IstioCertificateRequest { csr, validity_duration: seconds, metadata } =
            request.into_inner();
        let identity = metadata.and_then(|m| m.fields.get("ImpersonatedIdentity")?.kind.clone());
        let Some(Kind::StringValue(identity)) = identity else {
            return Err(Status::invalid_argument("no identity"));
        };
        self.asked.lock().unwrap().push(Asked { authorization, identity, seconds });
        match &*self.issuer.lock().unwrap() {
            Some(issuer) => {
                Ok(Response::new(IstioCertificateResponse { cert_chain: issuer.sign(&csr) }))
            }
            None => Err(Status::unauthenticated("no such pod on your node")),
        }
    }
}
