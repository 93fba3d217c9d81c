//! A byte stream of which it is known what came out of it, and whether its end takes what is for it.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A byte stream that is watched.
#[derive(Debug)]
pub(super) struct Watched<S> {
    stream: S,
    read: Rc<Cell<u64>>,
    /// Whether it has failed.
    pub(super) is_broken: bool,
    intake: Rc<Intake>,
}

/// How the end of a byte stream takes what is for it.
#[derive(Debug, Default)]
pub(super) struct Intake {
    is_behind: Cell<bool>,
    has_moved: Cell<bool>,
}

// === impl Watched ===

impl<S> Watched<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, read: Rc::default(), is_broken: false, intake: Rc::default() }
    }

    /// Returns how many bytes came out of it, which is so while it is read, too.
    pub(super) fn read(&self) -> Rc<Cell<u64>> {
        self.read.clone()
    }

    /// Returns how its end takes what is for it.
    pub(super) fn intake(&self) -> Rc<Intake> {
        self.intake.clone()
    }

    fn seen<T>(&mut self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.is_broken |= matches!(polled, Poll::Ready(Err(_)));
        polled
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.read.update(|read| read + (buffer.filled().len() - before) as u64);
        self.seen(polled)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, data);
        self.intake.offered(polled.is_pending());
        self.seen(polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.seen(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.seen(polled)
    }
}

// === impl Intake ===

impl Intake {
    /// Notes that there was something for the end, and whether it left that waiting. It has its time
    /// from when it first did.
    pub(super) fn offered(&self, is_behind: bool) {
        if !(self.is_behind.replace(is_behind) && is_behind) {
            self.has_moved.set(true);
        }
    }

    /// Returns whether something waits for the end.
    pub(super) fn is_behind(&self) -> bool {
        self.is_behind.get()
    }

    /// Returns whether anything has happened since this was last asked.
    pub(super) fn has_moved(&self) -> bool {
        self.has_moved.take()
    }
}
