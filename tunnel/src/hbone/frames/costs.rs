//! What the frames of a peer have cost: each kind against what it may be good for.

mod answers;

use tokio::time::Instant;

use self::answers::Answers;
use super::{Excess, HEAD_BYTES};
use crate::limits::{
    ABANDONED_STREAMS_AT_ONCE, ABANDONED_STREAMS_PER_SECOND, BYTES_WRITTEN_PER_UPDATE,
    CONTROL_FRAMES_AT_ONCE, CONTROL_FRAMES_PER_SECOND, MAX_HEADER_BLOCK_BYTES,
    UPDATES_PER_HEADER_BLOCK,
};

/// Types of frames (RFC 9113 section 6).
const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const RST_STREAM: u8 = 0x3;
const PUSH_PROMISE: u8 = 0x5;
const PING: u8 = 0x6;
const WINDOW_UPDATE: u8 = 0x8;
const CONTINUATION: u8 = 0x9;

/// Flag of DATA and HEADERS that ends a stream's direction.
const END_STREAM: u8 = 0x1;

/// A frame's head (RFC 9113 section 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    kind: u8,
    flags: u8,
    /// The stream that it belongs to.
    pub(super) stream: u32,
    /// Bytes of its payload.
    pub(super) length: usize,
}

/// What frames have cost so far.
#[derive(Debug)]
pub(super) struct Costs {
    /// Bytes of the header block that is being sent, or of the last one.
    header_block: usize,
    control_frames: Bucket,
    /// Window updates and resets that traffic explains, in bytes written to the peer.
    explained: u64,
    /// Streams of a client. A server opens none.
    streams: Option<Streams>,
    /// Answers of a server. A tunnel has one to each stream.
    answers: Option<Answers>,
    carries: Carries,
}

/// What streams are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carries {
    /// Connections: what comes of one shows in what is sent through it.
    Connections,
    /// Requests: one that is answered has been put to use. Clients of gRPC measure their path
    /// whenever something arrives, so that their PINGs are explained like window updates.
    Requests,
}

/// The streams that a client opens.
#[derive(Debug)]
struct Streams {
    unused: Unused,
    abandoned: Bucket,
}

/// Which of the last streams are open, and the client has sent nothing through them.
#[derive(Debug)]
struct Unused {
    last: u32,
    /// A bit for each, by its number.
    bits: [u64; Unused::WORDS],
}

/// An allowance that grows with time.
#[derive(Debug)]
struct Bucket {
    most: u32,
    per_second: u32,
    left: u32,
    /// Up to when its growth is part of what is left.
    since: Instant,
}

// === impl Head ===

impl From<[u8; HEAD_BYTES]> for Head {
    fn from([a, b, c, kind, flags, stream @ ..]: [u8; HEAD_BYTES]) -> Self {
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        // The highest bit means nothing.
        let stream = u32::from_be_bytes(stream) & (u32::MAX >> 1);
        Self { kind, flags, stream, length }
    }
}

impl Head {
    /// Returns whether a server refuses a stream with it: an answer and nothing more, or a reset.
    fn refuses_stream(self) -> bool {
        let is_whole_answer = self.kind == HEADERS && self.flags & END_STREAM != 0;
        is_whole_answer || self.kind == RST_STREAM
    }
}

// === impl Costs ===

impl Costs {
    /// Starts with what a client may send.
    pub(super) fn of_client(now: Instant) -> Self {
        Self { streams: Some(Streams::new(now)), ..Self::of_server(now) }
    }

    /// Starts with what a client may send whose streams are requests.
    pub(super) fn of_requests(now: Instant) -> Self {
        Self { carries: Carries::Requests, ..Self::of_client(now) }
    }

    /// Starts with what a server may send.
    pub(super) fn of_server(now: Instant) -> Self {
        let control_frames = Bucket::new(CONTROL_FRAMES_AT_ONCE, CONTROL_FRAMES_PER_SECOND, now);
        let carries = Carries::Connections;
        let (streams, answers) = (None, None);
        Self { header_block: 0, control_frames, explained: 0, streams, answers, carries }
    }

    /// Starts with what a server may send that answers requests, each with up to `most_interim`
    /// answers before the one that counts.
    pub(super) fn of_answers(most_interim: u32, now: Instant) -> Self {
        let answers = Some(Answers::new(most_interim));
        Self { answers, carries: Carries::Requests, ..Self::of_server(now) }
    }

    /// Adds what was written to the peer, in bytes.
    pub(super) fn add_written(&mut self, bytes: usize) {
        self.explained = self.explained.saturating_add(bytes as u64);
    }

    /// Notes a frame that was sent to the peer. A stream that this end refuses, a client may reset.
    pub(super) fn note_sent(&mut self, head: Head) {
        // The answer to a PING does not explain the next one.
        if head.kind == PING {
            self.explained = self.explained.saturating_sub((HEAD_BYTES + head.length) as u64);
        }
        if let Some(answers) = &mut self.answers {
            answers.note_sent(head);
        }
        let Some(streams) = &mut self.streams else { return };
        if self.carries == Carries::Requests && head.kind == HEADERS {
            streams.use_stream(head.stream);
        } else if head.refuses_stream() {
            streams.unused.remove(head.stream);
        }
    }

    /// Adds a frame that came from the peer.
    pub(super) fn add(&mut self, head: Head) -> Result<(), Excess> {
        let Head { kind, flags: _, stream, length } = head;
        if let Some(answers) = &mut self.answers {
            answers.add(head)?;
        }
        match kind {
            // Bounded by flow control and the library.
            DATA => {
                if let Some(streams) = self.streams.as_mut().filter(|_| length > 0) {
                    streams.use_stream(stream);
                }
                Ok(())
            }
            HEADERS | PUSH_PROMISE => {
                if let Some(streams) = &mut self.streams {
                    streams.unused.open(stream);
                }
                let updates = UPDATES_PER_HEADER_BLOCK * BYTES_WRITTEN_PER_UPDATE;
                self.explained = self.explained.saturating_add(updates);
                self.header_block = 0;
                self.add_header_block(length)
            }
            CONTINUATION => self.add_header_block(length),
            RST_STREAM => {
                if let Some(streams) = &mut self.streams {
                    streams.reset(stream)?;
                }
                self.add_update()
            }
            WINDOW_UPDATE => self.add_update(),
            PING if self.carries == Carries::Requests => self.add_update(),
            // Also those that are unknown and ignored.
            _ => self.add_control_frame(),
        }
    }

    fn add_header_block(&mut self, bytes: usize) -> Result<(), Excess> {
        self.header_block = self.header_block.saturating_add(bytes);
        if self.header_block > MAX_HEADER_BLOCK_BYTES {
            return Err(Excess::HeaderBlock);
        }
        Ok(())
    }

    /// Adds a frame that answers traffic, or else carries nothing.
    fn add_update(&mut self) -> Result<(), Excess> {
        match self.explained.checked_sub(BYTES_WRITTEN_PER_UPDATE) {
            Some(explained) => {
                self.explained = explained;
                Ok(())
            }
            None => self.add_control_frame(),
        }
    }

    fn add_control_frame(&mut self) -> Result<(), Excess> {
        if self.control_frames.take(Instant::now()) {
            return Ok(());
        }
        Err(Excess::ControlFrames)
    }
}

// === impl Streams ===

impl Streams {
    fn new(now: Instant) -> Self {
        let unused = Unused { last: 0, bits: [0; Unused::WORDS] };
        let abandoned = Bucket::new(ABANDONED_STREAMS_AT_ONCE, ABANDONED_STREAMS_PER_SECOND, now);
        Self { unused, abandoned }
    }

    /// Notes that a client has sent something through a stream. For the first time this allows
    /// another one to come to nothing: however many a busy client opens, half may.
    fn use_stream(&mut self, stream: u32) {
        if self.unused.remove(stream) {
            self.abandoned.give();
        }
    }

    /// Notes that a client has reset a stream.
    fn reset(&mut self, stream: u32) -> Result<(), Excess> {
        if self.unused.remove(stream) && !self.abandoned.take(Instant::now()) {
            return Err(Excess::AbandonedStreams);
        }
        Ok(())
    }
}

// === impl Unused ===

impl Unused {
    const WORDS: usize = 16;

    /// Streams that are remembered: five times those that may be open at once.
    const STREAMS: u32 = 1_024;

    /// Adds a stream that a header block opens; another one ends a stream.
    fn open(&mut self, stream: u32) {
        if stream > self.last {
            self.last = stream;
            let (word, bit) = self.place(stream);
            *word |= bit;
        }
    }

    /// Removes a stream; returns whether it was one of these.
    fn remove(&mut self, stream: u32) -> bool {
        // Of a client's streams, whose numbers are odd. One that is older has lost its place.
        let is_known = self.last.checked_sub(stream).is_some_and(|age| age / 2 < Self::STREAMS);
        let (word, bit) = self.place(stream);
        let is_unused = is_known && *word & bit != 0;
        if is_unused {
            *word &= !bit;
        }
        is_unused
    }

    /// Returns the word that has the stream's bit, and the bit.
    fn place(&mut self, stream: u32) -> (&mut u64, u64) {
        let number = stream / 2 % Self::STREAMS;
        let word = (number / u64::BITS) as usize % Self::WORDS;
        (&mut self.bits[word], 1 << (number % u64::BITS))
    }
}

// === impl Bucket ===

impl Bucket {
    fn new(most: u32, per_second: u32, now: Instant) -> Self {
        Self { most, per_second, left: most, since: now }
    }

    /// Adds one, unless there are as many as there may be.
    fn give(&mut self) {
        self.left = self.most.min(self.left + 1);
    }

    /// Takes one, if there is one left.
    fn take(&mut self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.since);
        let grown = elapsed.as_millis() * u128::from(self.per_second) / 1000;
        if grown > 0 {
            let left = u128::from(self.left) + grown;
            self.left = u32::try_from(left).map_or(self.most, |left| left.min(self.most));
            self.since = now;
        }
        let taken = self.left.checked_sub(1);
        self.left = taken.unwrap_or(0);
        taken.is_some()
    }
}

#[cfg(test)]
pub(super) mod tests;
