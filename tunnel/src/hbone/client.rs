//! The client of a tunnel: opens streams on one connection to one peer.

use std::{
    cell::Cell,
    convert::Infallible,
    future::Future,
    rc::{Rc, Weak},
};

use bytes::Bytes;
use h2::{
    Reason, RecvStream, SendStream,
    client::{Builder, Connection, SendRequest},
};
use http::{Request, Response, StatusCode};
use prometheus_client::metrics::gauge::Gauge;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, timeout},
};

use super::{
    TunnelError,
    frames::{Alarm, Guarded},
    keepalive::until_peer_is_gone,
    metered::{Metered, Usage},
    transport::{self, PathReport, Wire},
};
use crate::limits::{
    CLIENT_MAX_HEADER_LIST_BYTES, CLIENT_MAX_STREAMS, CONNECTION_WINDOW_BYTES, HANDSHAKE_TIMEOUT,
    MAX_FRAME_BYTES, RESPONSE_TIMEOUT, SEND_BUFFER_BYTES, SMALL_FRAME_BUDGET_BYTES,
    STREAM_WINDOW_BYTES,
};

/// The client's end of a tunnel. Lives on one thread.
#[derive(Debug)]
pub struct Tunnel {
    requests: SendRequest<Bytes>,
    streams: Cell<usize>,
    open: Cell<bool>,
    /// Whether the peer has ever answered: only then did it accept our certificate, of which a
    /// TLS 1.3 client is not told otherwise.
    proven: Cell<bool>,
    /// Whether the peer was trusted when the tunnel was made, and is not any more.
    distrusted: Cell<bool>,
    idle_since: Cell<Instant>,
    usage: Rc<Usage>,
    under: Under,
}

/// A byte stream that a tunnel may run over.
pub trait Carrier: AsyncRead + AsyncWrite + Unpin + 'static {
    /// Returns what it runs over itself.
    fn under(&self) -> Under;
}

/// What is under the TLS of a tunnel.
#[derive(Clone, Debug)]
pub enum Under {
    /// A socket.
    Wire(Rc<Wire>),
    /// Another tunnel.
    Tunnel(Rc<Tunnel>),
}

/// A stream of a tunnel, and its place among the tunnel's streams.
#[derive(Debug)]
pub struct Stream {
    /// Bytes to the peer.
    pub send: SendStream<Bytes>,
    /// Bytes from the peer.
    pub recv: RecvStream,
    /// Held for as long as the stream lasts.
    pub slot: Slot,
}

/// Why a stream could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The peer says that it has not looked at the stream: another tunnel may take it.
    #[error("the peer has not processed the stream")]
    NotProcessed,
    /// The tunnel, which worked before, broke before the peer answered. Another one may take the
    /// stream if nothing was sent ahead: what the peer did with that is unknown.
    #[error("the tunnel broke")]
    TunnelLost,
    /// The peer broke HTTP/2 or reset the stream.
    #[error("{0}")]
    Http2(#[from] h2::Error),
    /// The peer answered with something other than 200.
    #[error("the peer answered CONNECT with {0}")]
    Refused(StatusCode),
    /// The peer did not answer in [`RESPONSE_TIMEOUT`].
    #[error("the peer did not answer CONNECT in time")]
    Timeout,
}

/// A stream's share of a tunnel's limit.
#[derive(Debug)]
pub struct Slot(Rc<Tunnel>);

// === impl Tunnel ===

impl Tunnel {
    /// Exchanges settings with the peer and drives the connection on this thread.
    ///
    /// The tunnel counts in `open_tunnels` while it lasts, and is cut when `distrust` completes.
    pub async fn connect(
        io: impl Carrier,
        open_tunnels: Gauge,
        distrust: impl Future<Output = ()> + 'static,
    ) -> Result<Rc<Self>, TunnelError> {
        let mut builder = Builder::new();
        builder
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(MAX_FRAME_BYTES)
            .max_header_list_size(CLIENT_MAX_HEADER_LIST_BYTES)
            .max_send_buffer_size(SEND_BUFFER_BYTES)
            .initial_max_send_streams(CLIENT_MAX_STREAMS)
            .data_frame_budget(SMALL_FRAME_BUDGET_BYTES)
            .enable_push(false);
        let under = io.under();
        let (io, usage) = Metered::new(io);
        let (io, alarm) = Guarded::client(io);
        let handshake = timeout(HANDSHAKE_TIMEOUT, builder.handshake(io)).await;
        let (requests, connection) = handshake.map_err(|_| TunnelError::Timeout)??;
        let tunnel = Rc::new(Self {
            requests,
            streams: Cell::new(0),
            open: Cell::new(true),
            proven: Cell::new(false),
            distrusted: Cell::new(false),
            idle_since: Cell::new(Instant::now()),
            usage,
            under,
        });
        let of = Rc::downgrade(&tunnel);
        tokio::task::spawn_local(drive(connection, of, alarm, open_tunnels, distrust));
        Ok(tunnel)
    }

    /// Returns whether one more stream may be opened, of `most` at once.
    pub(super) fn has_room(&self, most: usize) -> bool {
        self.open.get() && self.streams.get() < most.min(self.allowed_streams())
    }

    /// Returns how many streams may be open at once, as far as the peer has said.
    pub(super) fn allowed_streams(&self) -> usize {
        CLIENT_MAX_STREAMS.min(self.requests.current_max_send_streams())
    }

    /// Returns whether the peer has ever answered.
    pub(super) fn is_proven(&self) -> bool {
        self.proven.get()
    }

    /// Takes a place for a stream.
    pub fn reserve(self: &Rc<Self>) -> Slot {
        self.streams.set(self.streams.get() + 1);
        Slot(self.clone())
    }

    /// Returns how many streams the tunnel carries.
    pub(super) fn streams(&self) -> usize {
        self.streams.get()
    }

    /// Returns whether bulk transfers fill the tunnel.
    pub(super) fn is_filled(&self) -> bool {
        self.usage.is_filled()
    }

    /// Returns whether new streams may be opened.
    pub(super) fn is_open(&self) -> bool {
        self.open.get()
    }

    fn is_distrusted(&self) -> bool {
        self.distrusted.get()
            || match &self.under {
                Under::Wire(_) => false,
                Under::Tunnel(outer) => outer.is_distrusted(),
            }
    }

    fn path_report(&self) -> PathReport {
        match &self.under {
            Under::Wire(wire) => wire.report(),
            Under::Tunnel(outer) => outer.path_report(),
        }
    }

    /// Returns since when the tunnel has carried nothing; none while it carries a stream.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        (self.streams.get() == 0).then(|| self.idle_since.get())
    }
}

// === impl Carrier ===

impl Carrier for transport::Stream {
    fn under(&self) -> Under {
        Under::Wire(self.wire())
    }
}

// === impl Slot ===

impl Slot {
    /// Returns whether the tunnel was cut because its peer is not trusted any more.
    pub fn is_distrusted(&self) -> bool {
        self.0.is_distrusted()
    }

    /// Returns what the kernel has to say of the tunnel that it has not said before.
    pub fn path_report(&self) -> PathReport {
        self.0.path_report()
    }

    /// Returns what is under a tunnel inside this stream.
    pub(super) fn under(&self) -> Under {
        Under::Tunnel(self.0.clone())
    }

    /// Opens a stream in this place.
    ///
    /// `ahead` may send before the peer has answered. It is left out while the peer has never
    /// answered in this tunnel: such a peer may refuse everything, and another one is tried then.
    pub async fn open(
        self,
        request: Request<()>,
        ahead: impl AsyncFnOnce(&mut SendStream<Bytes>) -> Infallible,
    ) -> Result<Stream, OpenError> {
        let opened = timeout(RESPONSE_TIMEOUT, self.exchange(request, ahead)).await;
        let (answer, send) = opened.map_err(|_| {
            // The peer may be gone, which PINGs take longer to tell: later streams take no risk.
            self.0.open.set(false);
            OpenError::Timeout
        })??;
        if answer.status() != StatusCode::OK {
            return Err(OpenError::Refused(answer.status()));
        }
        Ok(Stream { send, recv: answer.into_body(), slot: self })
    }

    async fn exchange(
        &self,
        request: Request<()>,
        ahead: impl AsyncFnOnce(&mut SendStream<Bytes>) -> Infallible,
    ) -> Result<(Response<RecvStream>, SendStream<Bytes>), OpenError> {
        // The peer has said meanwhile that it allows fewer: here this one would wait for others' ends.
        if self.0.streams.get() > self.0.allowed_streams() {
            return Err(OpenError::NotProcessed);
        }
        let requests = self.0.requests.clone().ready().await;
        let opened = requests.and_then(|mut ready| ready.send_request(request, false));
        let (response, mut send) = opened.map_err(|e| self.close_tunnel(e))?;
        let answer = tokio::select! {
            biased;
            never = ahead(&mut send), if self.0.proven.get() => match never {},
            answer = response => answer,
        };
        let answer = answer.map_err(|e| {
            let stream_only = e.is_reset() && e.reason() != Some(Reason::REFUSED_STREAM);
            if stream_only { OpenError::Http2(e) } else { self.close_tunnel(e) }
        })?;
        self.0.proven.set(true);
        Ok((answer, send))
    }

    /// A tunnel that worked before may have been closed by the peer at any moment, and another one
    /// takes the stream (RFC 9113 section 8.7). One that never worked tells why.
    fn close_tunnel(&self, error: h2::Error) -> OpenError {
        self.0.open.set(false);
        // A peer's GOAWAY is an error only of the streams that it has not processed.
        let refused = error.is_reset() || error.is_go_away();
        if error.is_remote() && refused {
            OpenError::NotProcessed
        } else if self.0.proven.get() {
            OpenError::TunnelLost
        } else {
            OpenError::Http2(error)
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let tunnel = &self.0;
        tunnel.streams.set(tunnel.streams.get() - 1);
        tunnel.idle_since.set(Instant::now());
    }
}

async fn drive(
    mut connection: Connection<Guarded<Metered<impl Carrier>>, Bytes>,
    tunnel: Weak<Tunnel>,
    alarm: Rc<Alarm>,
    open_tunnels: Gauge,
    distrust: impl Future<Output = ()>,
) {
    open_tunnels.inc();
    let gone = until_peer_is_gone(connection.ping_pong());
    tokio::select! {
        result = &mut connection => {
            if let Err(error) = result {
                tracing::debug!(%error, "tunnel closed");
            }
        }
        excess = alarm.raised() => tracing::debug!("tunnel closed: {excess}"),
        () = gone => tracing::debug!("tunnel closed: the peer does not answer pings"),
        () = distrust => {
            tracing::debug!("tunnel closed: the peer is not trusted any more");
            if let Some(tunnel) = tunnel.upgrade() {
                tunnel.distrusted.set(true);
            }
        }
    }
    open_tunnels.dec();
    if let Some(tunnel) = tunnel.upgrade() {
        tunnel.open.set(false);
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use http::Method;
    use tokio::task::LocalSet;

    use super::*;
    use crate::hbone::{server, transport::tests::Pair};

    #[tokio::test]
    async fn a_tunnel_whose_peer_does_not_answer_takes_no_more_streams() {
        let work = async {
            let (client, server) = Pair::new().streams().await;
            tokio::task::spawn_local(async move {
                let tunnel = server::Tunnel::accept(server.stream).await.unwrap();
                let mut unanswered = Vec::new();
                let _ = tunnel.run(pending(), |stream| unanswered.push(stream)).await;
            });
            let tunnel = Tunnel::connect(client, Gauge::default(), pending()).await.unwrap();
            let request = Request::builder().method(Method::CONNECT).uri("10.0.0.1:80");
            let request = request.body(()).unwrap();
            tokio::time::pause();
            let opened = tunnel.reserve().open(request, async |_| pending().await).await;
            assert!(matches!(opened, Err(OpenError::Timeout)), "{opened:?}");
            assert!(!tunnel.has_room(CLIENT_MAX_STREAMS));
        };
        LocalSet::new().run_until(work).await;
    }
}
