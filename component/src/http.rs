//! A small bounded HTTP/1 server for the endpoints of this process, over TCP and unix sockets.
//!
//! Connections are polled by the task that serves, so handlers need not be `Send` and end with it.

use std::{convert::Infallible, io, time::Duration};

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use http::{HeaderValue, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::metrics::counter::Counter;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    time::{sleep, timeout},
};
use tracing::{debug, warn};

/// Connections of one server at once; scrapers, probes and people need a handful.
pub const MAX_CONNECTIONS: usize = 64;

/// Request line and headers, in bytes; the largest request here has a few hundred.
const MAX_HEADER_BYTES: usize = 16 * 1024;

/// Time to send the request line and headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// Time for an exchange whose answer is there at once or after seconds.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(30);

/// Pause after a failed accept, which is most often for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where connections come from.
pub trait Listener {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin;

    /// Waits for a connection.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Stream>>;
}

/// What answers requests.
pub trait Handler {
    /// Time for everything, from accept to the last byte of the response: a peer that reads nothing
    /// does not hold its connection for longer.
    const EXCHANGE_TIMEOUT: Duration = EXCHANGE_TIMEOUT;

    /// Answers one request; dropped when the client goes away.
    fn handle(&self, request: Request<Incoming>) -> impl Future<Output = Response<Full<Bytes>>>;
}

/// Serves until dropped; `full` counts how often [`MAX_CONNECTIONS`] was reached.
pub async fn serve<L: Listener, H: Handler>(
    name: &'static str,
    listener: &L,
    handler: &H,
    full: &Counter,
) -> ! {
    let mut connections = FuturesUnordered::new();
    let mut crowded = false;
    loop {
        tokio::select! {
            stream = accept(name, listener), if connections.len() < MAX_CONNECTIONS => {
                connections.push(exchange(name, stream, handler));
            }
            Some(()) = connections.next() => {}
        }
        if connections.len() == MAX_CONNECTIONS && !crowded {
            crowded = true;
            full.inc();
            warn!(server = name, limit = MAX_CONNECTIONS, "too many connections: new ones wait");
        } else if connections.len() <= MAX_CONNECTIONS / 2 {
            crowded = false;
        }
    }
}

/// Returns a response with a body of the given type.
pub fn response(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

async fn accept<L: Listener>(name: &'static str, listener: &L) -> L::Stream {
    loop {
        match listener.accept().await {
            Ok(stream) => return stream,
            Err(error) => {
                warn!(server = name, %error, "accept failed");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One connection, which carries one request.
async fn exchange<H: Handler>(
    name: &'static str,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    handler: &H,
) {
    let service =
        service_fn(|request| async { Ok::<_, Infallible>(handler.handle(request).await) });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEADER_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(H::EXCHANGE_TIMEOUT, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(server = name, %error, "connection failed"),
        Err(_) => debug!(server = name, "connection took too long"),
    }
}

// === impl TcpListener ===

impl Listener for TcpListener {
    type Stream = tokio::net::TcpStream;

    async fn accept(&self) -> io::Result<Self::Stream> {
        TcpListener::accept(self).await.map(|(stream, _)| stream)
    }
}
