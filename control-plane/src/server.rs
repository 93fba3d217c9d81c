//! The port that clients connect to: discovery and certificates over HTTP/2 and TLS.

mod connection;
pub mod limits;
mod tls;

use std::{sync::Arc, time::Duration};

use http::{Request, Response, header::HeaderMap};
use hyper::body::Incoming;
use mesh_api::proto::ca::istio_certificate_service_server::IstioCertificateServiceServer;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    task::JoinSet,
    time::sleep,
};
use tokio_rustls::TlsAcceptor;
use tonic::{Status, body::Body, codegen::Service as _};
use tracing::{debug, info, warn};

pub use self::tls::{ServingCertificate, TlsError};
use self::{
    connection::Origin,
    limits::{ACCEPT_PAUSE, MAX_CERTIFICATE_REQUEST_BYTES},
};
use crate::{
    auth::{self, AuthError, Authenticator, Caller},
    ca::CertificateService,
    telemetry::metrics::Metrics,
    xds::{Discovery, METHOD as DISCOVER, Peer},
};

/// Path of the certificate service's one method.
const CREATE_CERTIFICATE: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";

/// The only protocol of gRPC.
const HTTP2: &[u8] = b"h2";

/// How the server treats connections.
#[derive(Clone, Copy, Debug)]
pub struct ServerOptions {
    /// Connections at once.
    pub max_connections: usize,
    /// Time over which clients are sent away when the server stops.
    pub drain_time: Duration,
    /// Time after which a client is asked to connect again, so that clients spread over replicas.
    pub max_connection_age: Duration,
}

/// What answers requests.
#[derive(Debug)]
pub struct Server {
    /// The discovery service.
    pub discovery: Discovery,
    /// The certificate service.
    pub certificates: CertificateService,
    /// Says whom tokens belong to.
    pub authenticator: Arc<dyn Authenticator>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// How connections are treated.
    pub options: ServerOptions,
}

// === impl Server ===

impl Server {
    /// Serves until `stop` becomes true and all clients have been sent away.
    pub async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        certificate: &Arc<ServingCertificate>,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), TlsError> {
        let acceptor = TlsAcceptor::from(Arc::new(certificate.server_config(HTTP2)?));
        let places = Arc::new(Semaphore::new(self.options.max_connections));
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_) = connections.join_next() => continue,
                // Whoever may say it being gone means the same.
                _ = stop.wait_for(|stop| *stop) => break,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(%error, "accept failed");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                self.metrics.refused_connection("limit").inc();
                debug!(%address, "connection refused: there are as many as may be");
                continue;
            };
            let connection =
                Arc::clone(&self).connection(acceptor.clone(), stream, address, stop.clone());
            connections.spawn(async move {
                connection.await;
                drop(place);
            });
        }
        drop(listener);
        info!(connections = connections.len(), "sending clients away");
        while connections.join_next().await.is_some() {}
        Ok(())
    }

    async fn answer(&self, mut request: Request<Incoming>, origin: Origin) -> Response<Body> {
        let certificate = match request.uri().path() {
            DISCOVER => false,
            CREATE_CERTIFICATE => true,
            path => {
                let message = format!(
                    "{path} is not served; this server has {DISCOVER} and {CREATE_CERTIFICATE}"
                );
                return Status::unimplemented(message).into_http();
            }
        };
        let caller = match self.caller(request.headers()).await {
            Ok(caller) => caller,
            Err(error) => {
                if certificate {
                    self.metrics.ca.authentication_failures.inc();
                }
                debug!(address = %origin.address, %error, "caller refused");
                return refused(&error).into_http();
            }
        };
        origin.is_known();
        if !certificate {
            let peer = Peer { caller, address: origin.address, ended: origin.ended };
            return self.discovery.serve(request, peer);
        }
        request.extensions_mut().insert(caller);
        let mut service = IstioCertificateServiceServer::new(self.certificates.clone())
            .max_decoding_message_size(MAX_CERTIFICATE_REQUEST_BYTES);
        match service.call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }

    async fn caller(&self, headers: &HeaderMap) -> Result<Caller, AuthError> {
        self.authenticator.authenticate(auth::token(headers)?).await
    }
}

fn refused(error: &AuthError) -> Status {
    match error {
        AuthError::NoToken | AuthError::Invalid => Status::unauthenticated(error.to_string()),
        AuthError::Unavailable(_) => Status::unavailable(error.to_string()),
    }
}
