//! Which bytes of a client that speaks HTTP/1 the library gets to see.
//!
//! Where one request ends and the next one begins must be beyond doubt: whoever reads the same bytes
//! differently, before us or behind us, sees requests that we have not judged. The library takes
//! what RFC 9112 lets a recipient put up with. Here it is refused, before the library sees the end
//! of the line in question: what it does get to see, it cannot but read as we do.

mod fields;

pub(crate) use self::fields::asks_for_another_protocol;
use self::fields::{Fields, chunk_size, is_request_line, trailer};
use crate::limits::{MAX_HEAD_BYTES, MAX_HEADERS};

/// Longest line that is looked at, in bytes: twice what the library accepts of a whole head, which
/// therefore is the one that refuses, and says that it is too long.
const MAX_LINE_BYTES: usize = 2 * MAX_HEAD_BYTES;

/// How far the bytes of a client are into its requests.
#[derive(Debug, Default)]
pub struct Framing {
    state: State,
    /// The beginning of a line of which the end has not come.
    line: Vec<u8>,
    fields: Fields,
    /// Bytes of the head that is being sent, or of the last one.
    head_bytes: usize,
    is_head_too_large: bool,
}

/// What comes next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// A request line, maybe after empty ones (RFC 9112 2.2).
    #[default]
    Request,
    /// A header, or the empty line after them.
    Field,
    /// So many bytes of a body.
    Body(u64),
    /// The size of a chunk.
    ChunkSize,
    /// So many bytes of a chunk.
    Chunk(u64),
    /// The empty line after a chunk.
    ChunkEnd,
    /// A header after the last chunk, or the empty line after them.
    Trailer,
    /// Another protocol, if the server agrees; if it does not, nothing.
    Other,
}

/// What is wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Violation {
    /// RFC 9112 2.2 lets a recipient take a line feed alone for the end of a line; others do not.
    #[error("a line does not end with a carriage return")]
    BareLineFeed,
    /// RFC 9110 5.5: carriage return, line feed and zero in a value are dangerous.
    #[error("a control character")]
    ControlCharacter,
    /// RFC 9112 3.
    #[error("a request line that is none")]
    RequestLine,
    /// RFC 9112 5.2: a server must reject it or replace it.
    #[error("a folded line")]
    FoldedLine,
    /// RFC 9112 5.1: a server must reject white space between a name and its colon.
    #[error("a header without a name")]
    FieldName,
    /// RFC 9110 8.6: digits, and once.
    #[error("a content-length that is none, or several")]
    ContentLength,
    /// RFC 9112 6.1: no coding but `chunked` is known, and that one is applied once.
    #[error("a transfer-encoding that is unknown, or several")]
    TransferEncoding,
    /// RFC 9112 6.3: such a message ought to be handled as an error.
    #[error("both content-length and transfer-encoding")]
    TwoLengths,
    /// RFC 9112 7.1.
    #[error("a chunk that is none")]
    Chunk,
    /// RFC 9110 6.5.1: a trailer that would say where the message ends, or whom it is for.
    #[error("a trailer that may not be one")]
    Trailer,
    /// No head that is accepted has room for it.
    #[error("an endless line")]
    EndlessLine,
}

/// How many of the bytes are sound, and what is wrong with the next ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Bytes, from the first one, that do no harm.
    pub sound: usize,
    /// What comes then.
    pub violation: Violation,
}

// === impl Framing ===

impl Framing {
    /// Looks at the next bytes. Once some have been refused, there are no next ones.
    pub fn advance(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let sound = bytes.len() - rest.len();
            rest = match self.state {
                State::Other => return Ok(()),
                State::Body(left) => {
                    let (left, rest) = skip(left, rest);
                    self.state = if left == 0 { self.after_request() } else { State::Body(left) };
                    rest
                }
                State::Chunk(left) => {
                    let (left, rest) = skip(left, rest);
                    self.state = if left == 0 { State::ChunkEnd } else { State::Chunk(left) };
                    rest
                }
                State::Request
                | State::Field
                | State::ChunkSize
                | State::ChunkEnd
                | State::Trailer => {
                    let advanced = self.advance_line(rest);
                    advanced.map_err(|violation| Refused { sound, violation })?
                }
            };
        }
        Ok(())
    }

    /// Returns whether a head has begun and not ended.
    pub fn is_in_head(&self) -> bool {
        match self.state {
            State::Request => !self.line.is_empty(),
            State::Field => true,
            State::Body(_)
            | State::ChunkSize
            | State::Chunk(_)
            | State::ChunkEnd
            | State::Trailer
            | State::Other => false,
        }
    }

    /// Returns whether a head was larger than is accepted. It is the library that refuses it.
    pub fn is_head_too_large(&self) -> bool {
        self.is_head_too_large
    }

    /// Looks at a line, as far as it has come; returns what follows it.
    fn advance_line<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Violation> {
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let (part, rest) = match end {
            Some(end) => (&bytes[..end], &bytes[end + 1..]),
            None => (bytes, &bytes[bytes.len()..]),
        };
        if self.line.len() + part.len() > MAX_LINE_BYTES {
            return Err(Violation::EndlessLine);
        }
        if matches!(self.state, State::Request | State::Field) {
            self.head_bytes += bytes.len() - rest.len();
            self.is_head_too_large |= self.head_bytes > MAX_HEAD_BYTES;
        }
        if end.is_none() {
            self.line.extend_from_slice(part);
        } else if self.line.is_empty() {
            self.state = self.end_line(part)?;
        } else {
            let mut line = std::mem::take(&mut self.line);
            line.extend_from_slice(part);
            self.state = self.end_line(&line)?;
        }
        Ok(rest)
    }

    /// Returns what follows a line.
    fn end_line(&mut self, line: &[u8]) -> Result<State, Violation> {
        let line = line.strip_suffix(b"\r").ok_or(Violation::BareLineFeed)?;
        if line.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
            return Err(Violation::ControlCharacter);
        }
        match (self.state, line) {
            (State::Request, []) => Ok(State::Request),
            (State::Request, line) => {
                if !is_request_line(line) {
                    return Err(Violation::RequestLine);
                }
                self.fields = Fields::of(line);
                Ok(State::Field)
            }
            (State::Field, []) => self.end_head(),
            (State::Field, line) => {
                self.fields.add(line)?;
                self.is_head_too_large |= self.fields.count > MAX_HEADERS;
                Ok(State::Field)
            }
            (State::ChunkSize, line) => Ok(match chunk_size(line)? {
                0 => State::Trailer,
                size => State::Chunk(size),
            }),
            (State::ChunkEnd, []) => Ok(State::ChunkSize),
            (State::ChunkEnd, _) => Err(Violation::Chunk),
            (State::Trailer, []) => Ok(self.after_request()),
            (State::Trailer, line) => trailer(line).map(|()| State::Trailer),
            (State::Body(_) | State::Chunk(_) | State::Other, _) => Ok(self.state),
        }
    }

    fn end_head(&mut self) -> Result<State, Violation> {
        self.head_bytes = 0;
        match (self.fields.content_length, self.fields.is_chunked) {
            (Some(_), true) => Err(Violation::TwoLengths),
            (None, true) => Ok(State::ChunkSize),
            (Some(0) | None, false) => Ok(self.after_request()),
            (Some(length), false) => Ok(State::Body(length)),
        }
    }

    fn after_request(&self) -> State {
        if self.fields.asks_for_another_protocol { State::Other } else { State::Request }
    }
}

/// Skips up to `left` bytes; returns how many are still left, and what follows.
fn skip(left: u64, bytes: &[u8]) -> (u64, &[u8]) {
    let skipped = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
    (left - skipped as u64, bytes.get(skipped..).unwrap_or_default())
}

// === impl Violation ===

impl Violation {
    /// Returns what metrics call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BareLineFeed => "bare_line_feed",
            Self::ControlCharacter => "control_character",
            Self::RequestLine => "request_line",
            Self::FoldedLine => "folded_line",
            Self::FieldName => "field_name",
            Self::ContentLength => "content_length",
            Self::TransferEncoding => "transfer_encoding",
            Self::TwoLengths => "two_lengths",
            Self::Chunk => "chunk",
            Self::Trailer => "trailer",
            Self::EndlessLine => "endless_line",
        }
    }
}

#[cfg(test)]
mod tests;
