//! The stream of a tunnel as a byte stream, at either end.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::client::{self, Slot};

/// The stream of a tunnel as a byte stream. `held` is held for as long as it lasts.
#[derive(Debug)]
pub struct Duplex<H> {
    send: SendStream<Bytes>,
    recv: RecvStream,
    /// Received, and not asked for yet.
    unread: Bytes,
    ended: bool,
    held: H,
}

/// The same for a protocol that says itself when all has been said: what comes after this end has
/// ended is of no interest. It then waits until the other end does: dropped before, the stream would
/// be reset, and what is still on its way lost.
#[derive(Debug)]
pub struct Lingering<H>(Duplex<H>);

// === impl Duplex ===

impl<H> Duplex<H> {
    /// Joins the two directions of a stream.
    pub fn new(send: SendStream<Bytes>, recv: RecvStream, held: H) -> Self {
        Self { send, recv, unread: Bytes::new(), ended: false, held }
    }
    /// Receives until there is something to read; nothing at the end of the stream.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.unread.is_empty() {
            self.unread = match ready!(self.recv.poll_data(cx)) {
                Some(Ok(data)) => data,
                // The peer is done and wants no more (RFC 9113 section 8.1).
                Some(Err(error)) if error.reason() == Some(Reason::NO_ERROR) => break,
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None => break,
            };
        }
        Poll::Ready(Ok(()))
    }

    /// Takes `length` bytes of what was received, which makes room for more.
    fn consume(&mut self, length: usize) {
        self.unread.advance(length);
        // Fails only on a stream that is over.
        let _ = self.recv.flow_control().release_capacity(length);
    }

    /// Waits for room for some of `length` bytes.
    fn poll_room(&mut self, cx: &mut Context<'_>, length: usize) -> Poll<io::Result<usize>> {
        self.send.reserve_capacity(length);
        loop {
            // What is left of earlier room is not announced again.
            let room = self.send.capacity().min(length);
            if room > 0 {
                return Poll::Ready(Ok(room));
            }
            match ready!(self.send.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
    }
}

impl From<client::Stream> for Duplex<Slot> {
    fn from(client::Stream { send, recv, slot }: client::Stream) -> Self {
        Self::new(send, recv, slot)
    }
}

impl<H: Unpin> AsyncRead for Duplex<H> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_fill(cx))?;
        let length = self.unread.len().min(buffer.remaining());
        buffer.put_slice(&self.unread[..length]);
        self.consume(length);
        Poll::Ready(Ok(()))
    }
}

impl<H: Unpin> AsyncWrite for Duplex<H> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let room = ready!(self.poll_room(cx, data.len()))?;
        let piece = Bytes::copy_from_slice(&data[..room]);
        self.send.send_data(piece, false).map_err(broken)?;
        Poll::Ready(Ok(room))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Ends this direction; the other one goes on.
    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.ended {
            self.ended = true;
            self.send.send_data(Bytes::new(), true).map_err(broken)?;
        }
        Poll::Ready(Ok(()))
    }
}

// === impl Lingering ===

impl<H> Lingering<H> {
    /// Returns what is held.
    pub fn held(&self) -> &H {
        &self.0.held
    }

    /// Returns the stream for another protocol, whose ends are each on their own.
    pub fn into_duplex(self) -> Duplex<H> {
        self.0
    }
}

impl<S, H> From<S> for Lingering<H>
where
    Duplex<H>: From<S>,
{
    fn from(stream: S) -> Self {
        Self(stream.into())
    }
}

impl<H: Unpin> AsyncRead for Lingering<H> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl<H: Unpin> AsyncWrite for Lingering<H> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.0).poll_shutdown(cx))?;
        loop {
            ready!(self.0.poll_fill(cx))?;
            match self.0.unread.len() {
                0 => return Poll::Ready(Ok(())),
                length => self.0.consume(length),
            }
        }
    }
}

fn broken(error: h2::Error) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, error)
}
