//! Ways to endpoints: through tunnels to those that take them, otherwise plain.

mod dial;
mod opening;
mod origin;
mod pool;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use http::StatusCode;
use hyper::{Request, Response, body::Incoming};
use tokio::io::{AsyncRead, AsyncWrite};

use self::{dial::Dialler, pool::Pool};
pub(super) use self::{
    opening::Opening,
    pool::{Switch, Switched},
};
use super::{body::Body, worker::Shared};
use crate::{
    balance::{Cluster, Overflow},
    mesh::{Backend, Unsupported, Way},
};

/// A connection to an endpoint.
pub(super) trait Io: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> Io for S {}

/// Version of HTTP that an endpoint is spoken to in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Version {
    Http1,
    Http2,
}

/// Why an endpoint did not answer.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum UpstreamError {
    /// No certificate to show.
    #[error("this waypoint has no certificate: {0}")]
    NoCertificate(String),
    /// No connection could be made.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// Nobody answered in time.
    #[error("no connection within {0:?}")]
    ConnectTimeout(Duration),
    /// The endpoint, or its node, is not who it should be, or does not trust us.
    #[error("TLS_error: {0}")]
    Tls(String),
    /// The endpoint's node refused the connection.
    #[error("the endpoint's node answered {0}")]
    Refused(u16),
    /// There are as many connections or requests as there may be.
    #[error("{0}")]
    Overflow(#[from] Overflow),
    /// The endpoint may not be reached as this waypoint could.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// The connection ended before an answer began.
    #[error("the connection ended before the answer: {0}")]
    Reset(String),
    /// It switched to another protocol, which nobody had asked for.
    #[error("the endpoint speaks another protocol unasked")]
    Unasked,
}

/// Connections of a thread to endpoints.
#[derive(Debug)]
pub(super) struct Upstreams {
    dialler: Dialler,
    pool: Pool,
}

/// What is asked of a connection to an endpoint.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) backend: Arc<Backend>,
    pub(super) cluster: Arc<Cluster>,
    pub(super) address: SocketAddr,
    pub(super) way: Way,
    pub(super) version: Version,
    /// What a connection begins with, if with anything.
    pub(super) opening: Option<Arc<Opening>>,
    /// Where the connection goes if another protocol is asked for and spoken.
    pub(super) switch: Option<Switch>,
    /// For whom it is, which the endpoint's node logs.
    pub(super) client: SocketAddr,
}

// === impl UpstreamError ===

impl UpstreamError {
    /// Returns whether the request cannot have been seen by the application.
    pub(super) fn is_before_request(&self) -> bool {
        match self {
            Self::NoCertificate(_)
            | Self::Connect(_)
            | Self::ConnectTimeout(_)
            | Self::Tls(_)
            | Self::Refused(_)
            | Self::Overflow(_)
            | Self::Unsupported(_) => true,
            Self::Reset(_) | Self::Unasked => false,
        }
    }
}

impl From<io::Error> for UpstreamError {
    fn from(error: io::Error) -> Self {
        Self::Connect(error.to_string())
    }
}

// === impl Upstreams ===

impl Upstreams {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { dialler: Dialler::new(shared), pool: Pool::default() }
    }

    /// Closes what is not used any more.
    pub(super) fn sweep(&self) {
        self.dialler.sweep();
        self.pool.sweep();
    }

    /// Opens a connection for bytes.
    pub(super) async fn connect(&self, wanted: &Wanted) -> Result<Box<dyn Io>, UpstreamError> {
        self.dialler.connect(wanted).await
    }

    /// Sends a request over a connection that is open, or a new one.
    pub(super) async fn send(
        &self,
        wanted: &Wanted,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let response = self.pool.send(&self.dialler, wanted, request).await?;
        let is_switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if is_switched && wanted.switch.is_none() {
            return Err(UpstreamError::Unasked);
        }
        Ok(response)
    }
}
