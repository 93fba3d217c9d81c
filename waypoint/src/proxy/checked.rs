//! A connection of a client that speaks HTTP/1, of which the library sees what can be read in one way.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::oneshot,
    time::{Sleep, sleep},
};

use super::worker::Shared;
use crate::http1::{Framing, Refused};

/// What the library sees in place of what is refused. Wherever it comes, it is no request and ends
/// whatever has begun: a zero is part of nothing, and the empty line makes the library look.
const IN_ITS_PLACE: &[u8] = b"\0\r\n\r\n";

/// A byte stream that goes on for as long as what comes are sound requests, each with its head within
/// its time.
pub(super) struct Checked<S> {
    /// None once it is taken.
    stream: Option<S>,
    /// Where the stream is put if it is dropped before its end: that would reset it, and what is still
    /// on its way would be lost. The library does so after requests for another protocol.
    left: Option<oneshot::Sender<S>>,
    framing: Framing,
    /// Whose it is, for the log.
    client: SocketAddr,
    shared: Arc<Shared>,
    /// What is left to read once something has been refused.
    refused: Option<&'static [u8]>,
    /// Ends the time of a head of which some has come. Made only for those that do not come at once.
    head_timeout: Option<Pin<Box<Sleep>>>,
    is_counted: bool,
}

// === impl Checked ===

impl<S> Checked<S> {
    /// Checks what comes out of `stream`, which is given back if it is dropped before its end.
    pub(super) fn new(
        stream: S,
        client: SocketAddr,
        shared: Arc<Shared>,
    ) -> (Self, oneshot::Receiver<S>) {
        let (left, leaves) = oneshot::channel();
        let checked = Self {
            stream: Some(stream),
            left: Some(left),
            framing: Framing::default(),
            client,
            shared,
            refused: None,
            head_timeout: None,
            is_counted: false,
        };
        (checked, leaves)
    }

    /// Returns the stream for another protocol; what has been read of it is with the reader.
    pub(super) fn into_inner(mut self) -> Option<S> {
        self.stream.take()
    }

    fn stream(&mut self) -> io::Result<Pin<&mut S>>
    where
        S: Unpin,
    {
        self.stream.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Leaves of what was read after the first `before` bytes what is sound.
    fn check(&mut self, buffer: &mut ReadBuf<'_>, before: usize) {
        let checked = self.framing.advance(buffer.filled().get(before..).unwrap_or_default());
        if let Err(Refused { sound, violation }) = checked {
            tracing::info!(client = %self.client, error = %violation, "request refused: it is malformed");
            self.shared.metrics.malformed(violation).inc();
            buffer.set_filled(before + sound);
            self.refused = Some(IN_ITS_PLACE);
        }
        if self.framing.is_head_too_large() && !self.is_counted {
            self.is_counted = true;
            self.shared.metrics.limit("request_head").inc();
        }
        if !self.framing.is_in_head() {
            self.head_timeout = None;
        }
    }

    /// Waits for the end of the time of a head that has begun.
    fn poll_head_timeout(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.framing.is_in_head() {
            return Poll::Pending;
        }
        let limit = self.shared.patience.head;
        let timeout = self.head_timeout.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(timeout.as_mut().poll(cx));
        self.shared.metrics.limit("request_head_time").inc();
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

/// Gives what is left to be read in place of what was refused; then the stream ends.
fn give(left: &mut &'static [u8], buffer: &mut ReadBuf<'_>) {
    let (now, later) = left.split_at(left.len().min(buffer.remaining()));
    buffer.put_slice(now);
    *left = later;
}

impl<S: AsyncRead + Unpin> AsyncRead for Checked<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let checked = &mut *self;
        if checked.refused.is_none() {
            let before = buffer.filled().len();
            match checked.stream()?.poll_read(cx, buffer) {
                Poll::Ready(read) => read?,
                Poll::Pending => return checked.poll_head_timeout(cx),
            }
            checked.check(buffer, before);
            if checked.refused.is_none() || buffer.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
        if let Some(left) = &mut checked.refused {
            give(left, buffer);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Checked<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.left = None;
        self.stream()?.poll_shutdown(cx)
    }
}

impl<S> Drop for Checked<S> {
    fn drop(&mut self) {
        if let (Some(left), Some(stream)) = (self.left.take(), self.stream.take()) {
            // Nobody waits for it who wants it reset.
            let _ = left.send(stream);
        }
    }
}
