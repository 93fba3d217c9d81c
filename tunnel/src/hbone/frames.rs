//! What the frames of a peer cost, judged by their heads before HTTP/2 sees them.
//!
//! The library bounds what it has decoded: streams, pending resets, header lists, small DATA frames.
//! It also answers every PING and SETTINGS, however many there are, takes any number of window
//! updates, keeps the parts of a header block that it cannot decode yet, and lets streams be opened
//! and reset forever if that is not done too fast.

mod costs;

use std::{
    cell::Cell,
    convert::Infallible,
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

use self::costs::{Costs, Head};

/// Bytes of a frame's head (RFC 9113 section 4.1).
const HEAD_BYTES: usize = 9;

/// Bytes that a client sends before its first frame (RFC 9113 section 3.4).
const PREFACE_BYTES: usize = 24;

/// A GOAWAY frame (RFC 9113 section 6.8) with the highest number of a stream and
/// `ENHANCE_YOUR_CALM`.
const FAREWELL: [u8; HEAD_BYTES + 8] =
    [0, 0, 8, 0x7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0xb];

/// What a peer sent too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Excess {
    /// Frames that carry nothing: PING, SETTINGS and the like, and window updates and resets that no
    /// traffic explains.
    #[error("the peer sends too many control frames")]
    ControlFrames,
    /// Bytes of one header block.
    #[error("the peer sends a header block without end")]
    HeaderBlock,
    /// Streams that it opens, sends nothing through and resets.
    #[error("the peer resets too many streams through which it has sent nothing")]
    AbandonedStreams,
    /// Answers before the one that counts (RFC 9110 section 15.2).
    #[error("the peer sends too many interim answers")]
    InterimAnswers,
}

/// A byte stream that ends at the first excess of the peer.
#[derive(Debug)]
pub struct Guarded<T> {
    io: T,
    end: End,
    received: Heads,
    sent: Heads,
    costs: Costs,
    alarm: Rc<Alarm>,
}

/// Who sends the preface: the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sender {
    Peer,
    Us,
}

/// How a stream ends at an excess.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Nothing more is read: whoever waits for the alarm ends the connection.
    Silent,
    /// With an error: nobody but the library can end the connection.
    Broken,
}

/// Tells of an excess, and of the peer's settings.
#[derive(Debug, Default)]
pub struct Alarm {
    excess: Cell<Option<Excess>>,
    raised: Notify,
    is_introduced: Cell<bool>,
    introduced: Notify,
}

/// Finds the heads of frames in the bytes that go one way.
#[derive(Debug, Default)]
struct Heads {
    /// Bytes until the next head.
    skip: usize,
    head: [u8; HEAD_BYTES],
    /// Bytes of the head that are known.
    known: usize,
    /// Heads that were found, or as many as can be counted.
    found: u8,
}

// === impl Guarded ===

impl<T> Guarded<T> {
    /// Guards what a server reads.
    pub(super) fn server(io: T) -> (Self, Rc<Alarm>) {
        Self::new(io, Sender::Peer, Costs::of_client(Instant::now()), End::Silent)
    }

    /// Guards what a server reads whose streams are requests.
    pub fn requests(io: T) -> (Self, Rc<Alarm>) {
        Self::new(io, Sender::Peer, Costs::of_requests(Instant::now()), End::Silent)
    }

    /// Guards what a client reads whose streams are requests, with up to `most_interim` answers to
    /// each before the one that counts. At an excess the stream breaks.
    pub fn answers(io: T, most_interim: u32) -> (Self, Rc<Alarm>) {
        Self::new(io, Sender::Us, Costs::of_answers(most_interim, Instant::now()), End::Broken)
    }

    /// Returns the frame that tells the peer to calm down, where one may be sent now. All that it
    /// has sent may have been acted upon.
    pub fn farewell(&self) -> Option<[u8; FAREWELL.len()]> {
        self.sent.is_between_frames().then_some(FAREWELL)
    }

    /// Guards what a client reads.
    pub(super) fn client(io: T) -> (Self, Rc<Alarm>) {
        Self::new(io, Sender::Us, Costs::of_server(Instant::now()), End::Silent)
    }

    /// Guards what comes through `io`; `preface` says who sends one.
    fn new(io: T, preface: Sender, costs: Costs, end: End) -> (Self, Rc<Alarm>) {
        let alarm = Rc::new(Alarm::default());
        let after_preface = Heads { skip: PREFACE_BYTES, ..Heads::default() };
        let (received, sent) = match preface {
            Sender::Peer => (after_preface, Heads::default()),
            Sender::Us => (Heads::default(), after_preface),
        };
        (Self { io, end, received, sent, costs, alarm: alarm.clone() }, alarm)
    }

    /// Ends what is read.
    fn end(&self, excess: Excess) -> Poll<io::Result<()>> {
        match self.end {
            End::Silent => Poll::Pending,
            End::Broken => Poll::Ready(Err(io::Error::other(excess))),
        }
    }

    /// Judges what the peer has sent.
    fn judge(&mut self, bytes: &[u8]) -> Result<(), Excess> {
        self.received.find(bytes, |head| self.costs.add(head))
    }

    /// Notes what was sent to the peer, which explains some of what comes back.
    fn note_sent(&mut self, bytes: &[u8]) {
        self.costs.add_written(bytes.len());
        let noted: Result<(), Infallible> = self.sent.find(bytes, |head| {
            self.costs.note_sent(head);
            Ok(())
        });
        let Ok(()) = noted;
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Guarded<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(excess) = this.alarm.excess() {
            return this.end(excess);
        }
        // Whoever reads on has dealt with what was read.
        if !this.alarm.is_introduced.get() && this.received.has_frame() {
            this.alarm.introduce();
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
        match this.judge(buf.filled().get(before..).unwrap_or_default()) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(excess) => {
                buf.set_filled(before);
                this.alarm.raise(excess);
                this.end(excess)
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
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, buf))?;
        self.note_sent(buf.get(..written).unwrap_or(buf));
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, bufs))?;
        let mut left = written;
        for buf in bufs {
            let sent = buf.get(..left).unwrap_or(buf);
            self.note_sent(sent);
            left -= sent.len();
        }
        Poll::Ready(Ok(written))
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
    /// Returns the excess, if there was one.
    pub fn excess(&self) -> Option<Excess> {
        self.excess.get()
    }

    /// Waits for an excess.
    pub async fn raised(&self) -> Excess {
        loop {
            if let Some(excess) = self.excess() {
                return excess;
            }
            self.raised.notified().await;
        }
    }

    /// Waits until the settings of the peer hold, with which its preface begins (RFC 9113 section 3.4).
    pub async fn introduced(&self) {
        while !self.is_introduced.get() {
            self.introduced.notified().await;
        }
    }

    fn introduce(&self) {
        self.is_introduced.set(true);
        self.introduced.notify_one();
    }

    fn raise(&self, excess: Excess) {
        self.excess.set(Some(excess));
        self.raised.notify_one();
    }
}

// === impl Heads ===

impl Heads {
    fn is_between_frames(&self) -> bool {
        self.skip == 0 && self.known == 0
    }

    /// Returns whether a whole frame has come by.
    fn has_frame(&self) -> bool {
        self.found > 1 || (self.found == 1 && self.skip == 0)
    }

    /// Gives each head to `each` once it is whole, to the first error.
    fn find<E>(
        &mut self,
        mut bytes: &[u8],
        mut each: impl FnMut(Head) -> Result<(), E>,
    ) -> Result<(), E> {
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
                let head = Head::from(self.head);
                (self.skip, self.known) = (head.length, 0);
                self.found = self.found.saturating_add(1);
                each(head)?;
            }
            bytes = rest;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::{costs::tests::frame, *};

    const PING: u8 = 0x6;

    #[tokio::test]
    async fn a_farewell_is_said_only_between_frames() {
        let (io, _peer) = tokio::io::duplex(1 << 10);
        let (mut io, _alarm) = Guarded::requests(io);
        assert_eq!(io.farewell(), Some(FAREWELL));
        let bytes = frame(PING, 1, 8);
        for cut in 1..bytes.len() {
            io.write_all(&bytes[..cut]).await.unwrap();
            assert_eq!(io.farewell(), None, "after {cut}");
            io.write_all(&bytes[cut..]).await.unwrap();
            assert_eq!(io.farewell(), Some(FAREWELL));
        }
    }

    #[tokio::test]
    async fn what_a_server_says_before_its_answers_is_counted_from_the_first_request_on() {
        const HEADERS: u8 = 0x1;
        let (io, mut server) = tokio::io::duplex(1 << 10);
        let (mut io, alarm) = Guarded::answers(io, 2);
        io.write_all(&[PING; PREFACE_BYTES]).await.unwrap();
        io.write_all(&frame(HEADERS, 1, 8)).await.unwrap();
        let mut block = vec![0; HEAD_BYTES + 8];
        for _ in 0..3 {
            server.write_all(&frame(HEADERS, 1, 8)).await.unwrap();
            io.read_exact(&mut block).await.unwrap();
        }
        server.write_all(&frame(HEADERS, 1, 8)).await.unwrap();
        for _ in 0..2 {
            let broken = io.read(&mut block).await.unwrap_err();
            assert_eq!(broken.to_string(), Excess::InterimAnswers.to_string());
        }
        assert_eq!(alarm.excess(), Some(Excess::InterimAnswers));
    }

    #[tokio::test]
    async fn a_peer_is_introduced_once_its_first_frame_was_read_and_dealt_with() {
        const SETTINGS: u8 = 0x4;
        let (io, mut server) = tokio::io::duplex(1 << 10);
        let (mut io, alarm) = Guarded::answers(io, 2);
        let bytes = frame(SETTINGS, 0, 6);
        for part in [&bytes[..HEAD_BYTES], &bytes[HEAD_BYTES..]] {
            server.write_all(part).await.unwrap();
            io.read_exact(&mut vec![0; part.len()]).await.unwrap();
            assert!(!alarm.is_introduced.get());
        }
        drop(server);
        assert_eq!(io.read(&mut [0]).await.unwrap(), 0);
        alarm.introduced().await;
    }

    #[test]
    fn heads_are_found_whichever_way_the_bytes_come() {
        let frames = [frame(PING, 1, 8), frame(PING, 3, 0), frame(PING, 5, 300)];
        let bytes = [&[PING; PREFACE_BYTES], &*frames.concat()].concat();
        for pieces in [1, 7, 9, 16, 1 << 20] {
            let mut heads = Heads { skip: PREFACE_BYTES, ..Heads::default() };
            let mut found = Vec::new();
            for piece in bytes.chunks(pieces) {
                let all: Result<(), Infallible> = heads.find(piece, |head| {
                    found.push((head.stream, head.length));
                    Ok(())
                });
                all.unwrap();
            }
            assert_eq!(found, [(1, 8), (3, 0), (5, 300)], "{pieces}");
        }
    }
}
