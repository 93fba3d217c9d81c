//! The admission webhook: objects that could not be used are refused before they are stored, with
//! the validation and the messages of the directory source.

mod review;

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info, warn};

use self::review::Reviewer;
use crate::{
    mesh::Options,
    server::{ServingCertificate, TlsError},
    telemetry::metrics::Metrics,
};

/// Path that reviews are sent to, as Istio's configurations have it.
pub const PATH: &str = "/validate";

/// Connections at once; an API server keeps a few.
const MAX_CONNECTIONS: usize = 64;

/// Reviews at once, and so bodies in memory.
const REVIEWS_AT_ONCE: usize = 8;

/// Largest review, in bytes: an API server takes objects of 3 MiB, and sends the old and the new
/// one.
const MAX_BODY_BYTES: usize = 7 * 1024 * 1024;

/// Time for the TLS handshake, and to send the headers of a request.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// Time for a review, from its first byte on. API servers wait for 10 s unless told otherwise.
const REVIEW_TIME: Duration = Duration::from_secs(10);

/// Pause after a failed accept, which is most often for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The only protocol of this port.
const HTTP1: &[u8] = b"http/1.1";

/// Reviews objects.
#[derive(Clone, Debug)]
pub struct Webhook {
    reviewer: Arc<Reviewer>,
    metrics: Arc<Metrics>,
    places: Arc<Semaphore>,
}

// === impl Webhook ===

impl Webhook {
    /// Reviews objects for a mesh with the given options.
    pub fn new(options: Options, metrics: Arc<Metrics>) -> Self {
        let reviewer = Arc::new(Reviewer::new(options));
        Self { reviewer, metrics, places: Arc::new(Semaphore::new(REVIEWS_AT_ONCE)) }
    }

    /// Serves until dropped.
    pub async fn serve(
        self,
        listener: TcpListener,
        certificate: &Arc<ServingCertificate>,
    ) -> Result<Infallible, TlsError> {
        let acceptor = TlsAcceptor::from(Arc::new(certificate.server_config(HTTP1)?));
        let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let (stream, address) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(%error, "webhook: accept failed");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&connections).try_acquire_owned() else {
                debug!(%address, "webhook: connection refused: there are as many as may be");
                continue;
            };
            let (webhook, acceptor) = (self.clone(), acceptor.clone());
            tokio::spawn(async move {
                webhook.connection(acceptor, stream, address).await;
                drop(place);
            });
        }
    }

    async fn connection(self, acceptor: TlsAcceptor, stream: TcpStream, address: SocketAddr) {
        let Ok(Ok(stream)) = timeout(HANDSHAKE_TIME, acceptor.accept(stream)).await else {
            debug!(%address, "webhook: TLS handshake failed");
            return;
        };
        let service = service_fn(|request| async {
            let review = timeout(REVIEW_TIME, self.answer(request)).await;
            let late = |_| refused(StatusCode::REQUEST_TIMEOUT, "the review took too long");
            Ok::<_, Infallible>(review.unwrap_or_else(late))
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HANDSHAKE_TIME)
            .serve_connection(TokioIo::new(stream), service);
        if let Err(error) = connection.await {
            debug!(%address, %error, "webhook: connection failed");
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if request.uri().path() != PATH {
            return refused(StatusCode::NOT_FOUND, "this server has /validate");
        }
        if request.method() != Method::POST {
            return refused(StatusCode::METHOD_NOT_ALLOWED, "only POST is allowed");
        }
        // The semaphore is never closed.
        let _place = self.places.acquire().await;
        let body = match Limited::new(request.into_body(), MAX_BODY_BYTES).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => {
                return refused(StatusCode::PAYLOAD_TOO_LARGE, "the review is too large");
            }
            Err(error) => return refused(StatusCode::BAD_REQUEST, error.to_string()),
        };
        match self.reviewer.review(&body) {
            Ok(verdict) => {
                self.metrics.validated(verdict.refusal.is_none());
                if let Some(reason) = &verdict.refusal {
                    info!(reason, object = verdict.object, "object refused");
                }
                let mut response = Response::new(Full::new(verdict.response().into()));
                let json = HeaderValue::from_static("application/json");
                response.headers_mut().insert(CONTENT_TYPE, json);
                response
            }
            Err(error) => refused(StatusCode::BAD_REQUEST, error.to_string()),
        }
    }
}

fn refused(status: StatusCode, message: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(message.into()));
    *response.status_mut() = status;
    response
}
