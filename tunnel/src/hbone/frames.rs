//! What the frames of a peer cost, judged by their heads before HTTP/2 sees them.
//!
//! The library bounds what it has decoded: streams, resets, header lists, small DATA frames. It also
//! answers every PING and SETTINGS, however many there are, and keeps the parts of a header block
//! that it cannot decode yet.

use std::{
    cell::Cell,
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
    time::Instant,
};

use crate::limits::{CONTROL_FRAMES_AT_ONCE, CONTROL_FRAMES_PER_SECOND, MAX_HEADER_BLOCK_BYTES};

/// Bytes of a frame's head (RFC 9113 section 4.1).
const HEAD_BYTES: usize = 9;

/// Bytes that a client sends before its first frame (RFC 9113 section 3.4).
const PREFACE_BYTES: usize = 24;

/// Types of frames (RFC 9113 section 6).
const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const RST_STREAM: u8 = 0x3;
const PUSH_PROMISE: u8 = 0x5;
const WINDOW_UPDATE: u8 = 0x8;
const CONTINUATION: u8 = 0x9;

/// What a peer sent too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Excess {
    /// Frames that carry nothing: PING, SETTINGS and the like.
    #[error("the peer sends too many control frames")]
    ControlFrames,
    /// Bytes of one header block.
    #[error("the peer sends a header block without end")]
    HeaderBlock,
}

/// A byte stream that ends at the first excess of the peer.
#[derive(Debug)]
pub(super) struct Guarded<T> {
    io: T,
    heads: Heads,
    alarm: Rc<Alarm>,
}

/// Tells of an excess.
#[derive(Debug, Default)]
pub(super) struct Alarm {
    excess: Cell<Option<Excess>>,
    raised: Notify,
}

/// Finds the heads of frames in the bytes that a peer sends.
#[derive(Debug)]
struct Heads {
    /// Bytes until the next head.
    skip: usize,
    head: [u8; HEAD_BYTES],
    /// Bytes of the head that are known.
    known: usize,
    costs: Costs,
}

/// What frames have cost so far.
#[derive(Debug)]
struct Costs {
    /// Bytes of the header block that is being sent, or of the last one.
    header_block: usize,
    control_frames: Bucket,
}

/// An allowance that grows with time.
#[derive(Debug)]
struct Bucket {
    left: u32,
    /// Up to when its growth is part of what is left.
    since: Instant,
}

// === impl Guarded ===

impl<T> Guarded<T> {
    /// Guards what a server reads.
    pub(super) fn server(io: T) -> (Self, Rc<Alarm>) {
        Self::new(io, PREFACE_BYTES)
    }

    /// Guards what a client reads.
    pub(super) fn client(io: T) -> (Self, Rc<Alarm>) {
        Self::new(io, 0)
    }

    fn new(io: T, skip: usize) -> (Self, Rc<Alarm>) {
        let alarm = Rc::new(Alarm::default());
        let heads = Heads::new(skip, Instant::now());
        (Self { io, heads, alarm: alarm.clone() }, alarm)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Guarded<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.alarm.excess.get().is_some() {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
        match this.heads.read(buf.filled().get(before..).unwrap_or_default()) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(excess) => {
                buf.set_filled(before);
                this.alarm.raise(excess);
                Poll::Pending
            }
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Guarded<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

// === impl Alarm ===

impl Alarm {
    /// Waits for an excess.
    pub(super) async fn raised(&self) -> Excess {
        loop {
            if let Some(excess) = self.excess.get() {
                return excess;
            }
            self.raised.notified().await;
        }
    }

    fn raise(&self, excess: Excess) {
        self.excess.set(Some(excess));
        self.raised.notify_one();
    }
}

// === impl Heads ===

impl Heads {
    fn new(skip: usize, now: Instant) -> Self {
        let costs = Costs { header_block: 0, control_frames: Bucket::new(now) };
        Self { skip, head: [0; HEAD_BYTES], known: 0, costs }
    }

    /// Notes what a peer sent.
    fn read(&mut self, mut bytes: &[u8]) -> Result<(), Excess> {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            let rest = bytes.get(skipped..).unwrap_or_default();
            let head = self.head.get_mut(self.known..).unwrap_or_default();
            let (more, rest) = rest.split_at(head.len().min(rest.len()));
            for (place, byte) in head.iter_mut().zip(more) {
                *place = *byte;
            }
            self.known += more.len();
            if self.known == HEAD_BYTES {
                let [a, b, c, kind, ..] = self.head;
                let length = u32::from_be_bytes([0, a, b, c]) as usize;
                self.costs.add(kind, length)?;
                (self.skip, self.known) = (length, 0);
            }
            bytes = rest;
        }
        Ok(())
    }
}

// === impl Costs ===

impl Costs {
    /// Adds a frame of this type with a payload of this length.
    fn add(&mut self, kind: u8, length: usize) -> Result<(), Excess> {
        match kind {
            // Bounded by flow control, by the library, or by what the proxy has sent itself.
            DATA | RST_STREAM | WINDOW_UPDATE => {}
            HEADERS | PUSH_PROMISE => self.header_block = length,
            CONTINUATION => self.header_block = self.header_block.saturating_add(length),
            // Also those that are unknown and ignored.
            _ if self.control_frames.take(Instant::now()) => {}
            _ => return Err(Excess::ControlFrames),
        }
        if self.header_block > MAX_HEADER_BLOCK_BYTES {
            return Err(Excess::HeaderBlock);
        }
        Ok(())
    }
}

// === impl Bucket ===

impl Bucket {
    fn new(now: Instant) -> Self {
        Self { left: CONTROL_FRAMES_AT_ONCE, since: now }
    }

    /// Takes one, if there is one left.
    fn take(&mut self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.since);
        let grown = elapsed.as_millis() * u128::from(CONTROL_FRAMES_PER_SECOND) / 1000;
        if grown > 0 {
            let left = u128::from(self.left) + grown;
            self.left = u32::try_from(left)
                .map_or(CONTROL_FRAMES_AT_ONCE, |left| left.min(CONTROL_FRAMES_AT_ONCE));
            self.since = now;
        }
        let taken = self.left.checked_sub(1);
        self.left = taken.unwrap_or(0);
        taken.is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SETTINGS: u8 = 0x4;
    const PING: u8 = 0x6;
    const UNKNOWN: u8 = 0xff;

    fn frame(kind: u8, length: u32) -> Vec<u8> {
        let [_, head @ ..] = length.to_be_bytes();
        let mut bytes = head.to_vec();
        bytes.extend([kind, 0, 0, 0, 0, 1]);
        bytes.resize(bytes.len() + length as usize, 0x06);
        bytes
    }

    fn read(frames: impl IntoIterator<Item = Vec<u8>>, pieces: usize) -> Result<(), Excess> {
        let mut heads = Heads::new(PREFACE_BYTES, Instant::now());
        let bytes = [vec![0x06; PREFACE_BYTES], frames.into_iter().flatten().collect()].concat();
        bytes.chunks(pieces).try_for_each(|piece| heads.read(piece))
    }

    #[tokio::test(start_paused = true)]
    async fn only_frames_that_carry_nothing_are_counted() {
        let most = CONTROL_FRAMES_AT_ONCE as usize;
        for kind in [SETTINGS, PING, UNKNOWN, 0x2, 0x7] {
            // Whichever way the bytes come.
            for pieces in [1, 7, 9, 16, 1 << 20] {
                let frames = |n| vec![frame(kind, 8); n];
                assert_eq!(read(frames(most), pieces), Ok(()), "{kind}");
                assert_eq!(read(frames(most + 1), pieces), Err(Excess::ControlFrames), "{kind}");
            }
        }
        for kind in [DATA, HEADERS, RST_STREAM, WINDOW_UPDATE] {
            assert_eq!(read(vec![frame(kind, 4); 4 * most], 100), Ok(()), "{kind}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_header_block_is_as_long_as_all_its_frames() {
        const PART: u32 = 16 << 10;
        let parts = MAX_HEADER_BLOCK_BYTES / PART as usize;
        for (kind, continuations, expected) in [
            (HEADERS, parts - 1, Ok(())),
            (HEADERS, parts, Err(Excess::HeaderBlock)),
            (PUSH_PROMISE, parts, Err(Excess::HeaderBlock)),
        ] {
            let block = || {
                let more = std::iter::repeat_with(|| frame(CONTINUATION, PART));
                std::iter::once(frame(kind, PART)).chain(more.take(continuations))
            };
            // The next one begins anew.
            assert_eq!(read(block().chain(block()), 1 << 14), expected, "{continuations}");
        }
        let huge = frame(HEADERS, 1 << 20);
        assert_eq!(read([huge[..HEAD_BYTES].to_vec()], 1 << 14), Err(Excess::HeaderBlock));
    }

    #[tokio::test(start_paused = true)]
    async fn the_allowance_grows_with_time_up_to_what_it_was() {
        let start = Instant::now();
        let mut bucket = Bucket::new(start);
        let mut taken = |now| {
            let mut count = 0;
            while bucket.take(now) {
                count += 1;
            }
            count
        };
        for (millis, expected) in [
            (0, CONTROL_FRAMES_AT_ONCE),
            (0, 0),
            (1_000, CONTROL_FRAMES_PER_SECOND),
            (1_005, 0),
            (1_010, CONTROL_FRAMES_PER_SECOND / 100),
            (3_600_000, CONTROL_FRAMES_AT_ONCE),
        ] {
            assert_eq!(taken(start + Duration::from_millis(millis)), expected, "{millis}");
        }
    }
}
