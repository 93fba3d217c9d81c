//! Ways to endpoints: through tunnels to those that take them, otherwise plain.

mod dial;
mod interim;
mod opening;
mod origin;
mod pool;
mod received;

use std::{io, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use fairlead_tunnel::hbone::Excess;
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
};
use hyper::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};

use self::{dial::Dialler, interim::Interim, pool::Pool};
pub(super) use self::{
    opening::Opening,
    pool::{Switch, Switched},
    received::Received,
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
    /// It speaks HTTP/2, and offers no other protocol by it.
    #[error("the endpoint takes no extended CONNECT (RFC 8441), by which HTTP/2 is upgraded")]
    NoExtendedConnect,
    /// It did nothing with the request.
    #[error("the endpoint refused the stream")]
    RefusedStream,
    /// It reset the stream before an answer began.
    #[error("the endpoint reset the stream before the answer: {0}")]
    StreamReset(h2::Reason),
    /// The connection ended before an answer began.
    #[error("the connection ended before the answer: {0}")]
    Reset(String),
    /// What the endpoint answered is no answer, or can be read in two ways.
    #[error("the endpoint broke the protocol: {0}")]
    Protocol(String),
    /// It sent too much of what is no answer.
    #[error("{0}")]
    Excess(#[from] Excess),
    /// It switched to another protocol, which nobody had asked for.
    #[error("the endpoint speaks another protocol unasked")]
    Unasked,
}

/// Connections of a thread to endpoints.
#[derive(Debug)]
pub(super) struct Upstreams {
    shared: Arc<Shared>,
    dialler: Rc<Dialler>,
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
            | Self::Unsupported(_)
            | Self::NoExtendedConnect
            | Self::RefusedStream => true,
            Self::StreamReset(_)
            | Self::Reset(_)
            | Self::Protocol(_)
            | Self::Excess(_)
            | Self::Unasked => false,
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
        Self { dialler: Rc::new(Dialler::new(shared.clone())), pool: Pool::default(), shared }
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
        mut request: Request<Body>,
    ) -> Result<Response<Received>, UpstreamError> {
        let sent = match wanted.version {
            Version::Http1 => {
                let interim = Interim::count(&mut request);
                tokio::select! {
                    // What comes after too many of these is no answer.
                    biased;
                    () = interim.excess() => Err(Excess::InterimAnswers.into()),
                    sent = self.pool.send(&self.dialler, wanted, request) => sent,
                }
            }
            Version::Http2 => self.pool.send(&self.dialler, wanted, request).await,
        };
        if let Err(UpstreamError::Excess(excess)) = &sent {
            self.shared.metrics.limit(limit(*excess)).inc();
        }
        let response = sent?;
        let is_switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if is_switched && wanted.switch.is_none() {
            return Err(UpstreamError::Unasked);
        }
        match doubt(response.headers()) {
            Some(doubt) => Err(UpstreamError::Protocol(doubt.to_owned())),
            None => Ok(response),
        }
    }
}

/// Returns the name of a limit that an endpoint has reached.
fn limit(excess: Excess) -> &'static str {
    match excess {
        Excess::InterimAnswers => "interim_answers",
        Excess::ControlFrames | Excess::HeaderBlock | Excess::AbandonedStreams => "answer_frames",
    }
}

/// Returns what about a response could be read in two ways: where it ends. Of what the library takes
/// for one thing, a client might make another (RFC 9112 6.3).
fn doubt(headers: &HeaderMap) -> Option<&'static str> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let (length, another) = (lengths.next(), lengths.next());
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let (coding, other_coding) = (codings.next(), codings.next());
    let is_chunked = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    if another.is_some() || length.is_some_and(|length| !is_number(length)) {
        Some("content-length that is none, or several")
    } else if length.is_some() && coding.is_some() {
        Some("both content-length and transfer-encoding")
    } else if other_coding.is_some() || coding.is_some_and(|coding| !is_chunked(coding)) {
        Some("a transfer-encoding that is unknown, or several")
    } else {
        None
    }
}

fn is_number(value: &HeaderValue) -> bool {
    !value.is_empty() && value.as_bytes().iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_ends_in_one_place() {
        let length = |value: &'static str| (CONTENT_LENGTH, HeaderValue::from_static(value));
        let coding = |value: &'static str| (TRANSFER_ENCODING, HeaderValue::from_static(value));
        for (headers, is_sound) in [
            (vec![], true),
            (vec![length("0")], true),
            (vec![length("500")], true),
            (vec![coding("chunked")], true),
            (vec![coding("Chunked")], true),
            (vec![length("5"), coding("chunked")], false),
            (vec![coding("chunked"), length("5")], false),
            (vec![length("5"), length("5")], false),
            (vec![length("5"), length("6")], false),
            (vec![length("5, 5")], false),
            (vec![length("+5")], false),
            (vec![length("")], false),
            (vec![coding("gzip, chunked")], false),
            (vec![coding("gzip")], false),
            (vec![coding("chunked"), coding("chunked")], false),
        ] {
            let mut map = HeaderMap::new();
            for (name, value) in &headers {
                map.append(name, value.clone());
            }
            assert_eq!(doubt(&map).is_none(), is_sound, "{headers:?}");
        }
    }
}
