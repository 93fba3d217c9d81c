//! A byte stream that knows whether bulk transfers fill it.

use std::{
    cell::Cell,
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use crate::limits::{BULK_BYTES_PER_SECOND, BULK_LOOK_INTERVAL};

/// How a byte stream is used.
#[derive(Debug)]
pub(super) struct Usage {
    /// Whether the network takes bytes more slowly than they come.
    waits: Cell<bool>,
    /// Bytes of both directions since the last look.
    bytes: Cell<usize>,
    looked: Cell<Instant>,
    /// Whether bytes came and went fast between the last two looks.
    fast: Cell<bool>,
}

/// A byte stream whose use is seen elsewhere.
#[derive(Debug)]
pub(super) struct Metered<T> {
    io: T,
    usage: Rc<Usage>,
}

// === impl Usage ===

impl Usage {
    fn new() -> Self {
        let (waits, fast) = (Cell::new(false), Cell::new(false));
        Self { waits, bytes: Cell::new(0), looked: Cell::new(Instant::now()), fast }
    }

    /// Returns whether bulk transfers fill the byte stream: others would wait behind them.
    pub(super) fn is_filled(&self) -> bool {
        let now = Instant::now();
        let elapsed = now - self.looked.get();
        if elapsed >= BULK_LOOK_INTERVAL {
            self.fast.set(is_fast(self.bytes.take(), elapsed));
            self.looked.set(now);
        }
        self.waits.get() || self.fast.get()
    }

    fn moved(&self, bytes: usize) {
        self.bytes.set(self.bytes.get().saturating_add(bytes));
    }
}

fn is_fast(bytes: usize, elapsed: Duration) -> bool {
    bytes as u128 * Duration::from_secs(1).as_nanos()
        >= u128::from(BULK_BYTES_PER_SECOND) * elapsed.as_nanos()
}

// === impl Metered ===

impl<T> Metered<T> {
    pub(super) fn new(io: T) -> (Self, Rc<Usage>) {
        let usage = Rc::new(Usage::new());
        (Self { io, usage: usage.clone() }, usage)
    }

    fn wrote(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.usage.waits.set(result.is_pending());
        if let Poll::Ready(Ok(written)) = result {
            self.usage.moved(written);
        }
        result
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Metered<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.io).poll_read(cx, buf);
        self.usage.moved(buf.filled().len().saturating_sub(before));
        result
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Metered<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write(cx, buf);
        self.wrote(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.wrote(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.io).poll_flush(cx);
        self.usage.waits.set(result.is_pending());
        result
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bulk_is_a_matter_of_bytes_and_time() {
        let rate = usize::try_from(BULK_BYTES_PER_SECOND).unwrap();
        for (bytes, millis, expected) in [
            (0, 10, false),
            (rate / 100 + 1, 10, true),
            (rate / 100, 11, false),
            (rate, 1_000, true),
            (usize::MAX, 60_000, true),
        ] {
            assert_eq!(is_fast(bytes, Duration::from_millis(millis)), expected, "{bytes}");
        }
    }
}
