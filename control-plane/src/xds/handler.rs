//! The HTTP side of discovery: from a request to a stream of responses.
//!
//! The response body is written by hand, so that a response is copied piece by piece as the client
//! reads it, from bytes that all clients share.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};
use hyper::body::{Body, Frame};
use tokio::sync::{mpsc, watch};
use tonic::Status;

use super::{
    clients::Clients,
    frame::Response,
    limits::COPY_BYTES,
    publisher::Published,
    requests::Requests,
    stream::{Shared, Stream, Wire},
};
use crate::{
    auth::{Account, Caller},
    telemetry::metrics::Metrics,
};

/// Path of the one method.
pub const METHOD: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

/// Responses made but not yet being written. One is enough: the next is made when this one has
/// left, of the state at that time.
const RESPONSE_QUEUE: usize = 1;

/// The discovery service.
#[derive(Clone, Debug)]
pub struct Discovery {
    shared: Arc<Shared>,
    clients: Clients,
}

/// Who is at the other end of a request.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Whom the request's token belongs to.
    pub caller: Caller,
    /// Where the connection comes from.
    pub address: SocketAddr,
    /// Becomes true when the connection's streams have to end.
    pub ended: watch::Receiver<bool>,
}

/// Responses on their way to one client; ends with the stream's status.
struct Responses {
    incoming: mpsc::Receiver<Result<Response, Status>>,
    /// The response that is being written, and since when.
    current: Option<(Response, Instant)>,
    metrics: Arc<Metrics>,
    ended: bool,
}

// === impl Discovery ===

impl Discovery {
    /// Creates the service; `clients` bounds and lists its clients, and proxies of nodes, which run as
    /// `node_accounts`, are told of no credentials.
    pub fn new(
        published: Arc<Published>,
        clients: Clients,
        metrics: Arc<Metrics>,
        max_response_bytes: usize,
        node_accounts: Vec<Account>,
    ) -> Self {
        let shared = Shared::new(published, metrics, max_response_bytes, node_accounts);
        Self { shared: Arc::new(shared), clients }
    }

    /// Starts a client's stream.
    pub fn serve<B>(
        &self,
        request: http::Request<B>,
        peer: Peer,
    ) -> http::Response<tonic::body::Body>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if !self.shared.published.has_state() {
            return Status::unavailable("the first state is still being read; try again")
                .into_http();
        }
        let registration = match self.clients.register(peer.caller, peer.address) {
            Ok(registration) => registration,
            Err(full) => return Status::resource_exhausted(full.to_string()).into_http(),
        };
        let body = tonic::body::Body::new(request.into_body());
        let requests = Requests::new(body, self.shared.large_requests.clone());
        let (responses, incoming) = mpsc::channel(RESPONSE_QUEUE);
        let wire = Wire { requests, responses, ended: peer.ended };
        tokio::spawn(Stream::new(Arc::clone(&self.shared), registration).run(wire));
        let metrics = Arc::clone(&self.shared.metrics);
        let body = Responses { incoming, current: None, metrics, ended: false };
        let mut response = http::Response::new(tonic::body::Body::new(body));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        response
    }
}

// === impl Responses ===

impl Body for Responses {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            if self.ended {
                return Poll::Ready(None);
            }
            if let Some((response, since)) = &mut self.current {
                if let Some(part) = response.next_part(COPY_BYTES) {
                    return Poll::Ready(Some(Ok(Frame::data(part))));
                }
                let time = since.elapsed();
                self.metrics.send_time.observe(time.as_secs_f64());
                self.current = None;
            }
            let status = match std::task::ready!(self.incoming.poll_recv(cx)) {
                Some(Ok(response)) => {
                    self.current = Some((response, Instant::now()));
                    continue;
                }
                Some(Err(status)) => status,
                None => Status::ok(""),
            };
            self.ended = true;
            return Poll::Ready(Some(trailers(&status).map(Frame::trailers)));
        }
    }
}

fn trailers(status: &Status) -> Result<HeaderMap, Status> {
    let mut trailers = HeaderMap::new();
    status.add_header(&mut trailers)?;
    Ok(trailers)
}
