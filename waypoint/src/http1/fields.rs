//! The lines of a request that say where it ends.

use http::{HeaderMap, HeaderValue, Method, header::UPGRADE};

use super::Violation;

/// Digits of a chunk's size: those that a number of 64 bits has.
const MAX_CHUNK_SIZE_DIGITS: usize = 16;

/// Headers that may not come after the body: they say where it ends, or whom it is for (RFC 9110
/// 6.5.1).
const NO_TRAILERS: [&str; 4] = ["content-length", "transfer-encoding", "host", "upgrade"];

/// What the headers so far say.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fields {
    pub(super) content_length: Option<u64>,
    pub(super) is_chunked: bool,
    /// Whether what follows may be no HTTP.
    pub(super) asks_for_another_protocol: bool,
    is_http_10: bool,
    /// How many there are.
    pub(super) count: usize,
}

/// Returns whether a request asks for another protocol after it. What the client sends then is not
/// looked at, and must therefore not be taken for a request if the server does not agree.
pub(crate) fn asks_for_another_protocol(method: &Method, headers: &HeaderMap) -> bool {
    let asked = |value: &HeaderValue| is_another_protocol(value.as_bytes());
    *method == Method::CONNECT || headers.get_all(UPGRADE).iter().any(asked)
}

/// HTTP/2 is not heard of: it would hide requests.
fn is_another_protocol(upgrade: &[u8]) -> bool {
    !upgrade.trim_ascii().eq_ignore_ascii_case(b"h2c")
}

/// Returns whether a line is a method, a target and a version, with a space between them each.
pub(super) fn is_request_line(line: &[u8]) -> bool {
    let mut parts = line.split(|byte| *byte == b' ');
    let (method, target, version) = (parts.next(), parts.next(), parts.next());
    method.is_some_and(is_token)
        && target.is_some_and(|target| !target.is_empty() && target.iter().all(|byte| *byte > b' '))
        && matches!(version, Some(b"HTTP/1.1" | b"HTTP/1.0"))
        && parts.next().is_none()
}

/// Returns whether bytes are a token (RFC 9110 5.6.2).
fn is_token(bytes: &[u8]) -> bool {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !bytes.is_empty() && bytes.iter().all(is_part)
}

/// Returns name and value of a header.
fn split(line: &[u8]) -> Result<(&[u8], &[u8]), Violation> {
    if matches!(line, [b' ' | b'\t', ..]) {
        return Err(Violation::FoldedLine);
    }
    let colon = line.iter().position(|byte| *byte == b':').ok_or(Violation::FieldName)?;
    let (name, value) = line.split_at(colon);
    if is_token(name) { Ok((name, trim(&value[1..]))) } else { Err(Violation::FieldName) }
}

/// Returns a value without the white space around it (RFC 9110 5.6.3): spaces and tabs, no others.
fn trim(value: &[u8]) -> &[u8] {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = value.iter().take_while(|byte| is_blank(byte)).count();
    let end = value[start..].iter().rev().take_while(|byte| is_blank(byte)).count();
    &value[start..value.len() - end]
}

// === impl Fields ===

impl Fields {
    /// Begins with a request line.
    pub(super) fn of(request_line: &[u8]) -> Self {
        Self {
            is_http_10: request_line.ends_with(b"1.0"),
            asks_for_another_protocol: request_line.starts_with(b"CONNECT "),
            ..Self::default()
        }
    }

    /// Takes note of a header.
    pub(super) fn add(&mut self, line: &[u8]) -> Result<(), Violation> {
        let (name, value) = split(line)?;
        self.count += 1;
        if name.eq_ignore_ascii_case(b"content-length") {
            let length = number(value).filter(|_| self.content_length.is_none());
            self.content_length = Some(length.ok_or(Violation::ContentLength)?);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            let is_known = value.eq_ignore_ascii_case(b"chunked");
            // A server that does not know it would take the body for the next request (RFC 9112 6.1).
            if !is_known || self.is_chunked || self.is_http_10 {
                return Err(Violation::TransferEncoding);
            }
            self.is_chunked = true;
        } else if name.eq_ignore_ascii_case(b"upgrade") {
            self.asks_for_another_protocol |= is_another_protocol(value);
        }
        Ok(())
    }
}

/// Returns what digits say.
fn number(digits: &[u8]) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| is_number)?.parse().ok()
}

/// Returns the size that begins a chunk. What follows a semicolon is of no interest.
pub(super) fn chunk_size(line: &[u8]) -> Result<u64, Violation> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (size, rest) = line.split_at(digits);
    let is_over = rest.is_empty() || matches!(trim(rest), [b';', ..]);
    let size = std::str::from_utf8(size).ok().filter(|size| size.len() <= MAX_CHUNK_SIZE_DIGITS);
    let size = size.and_then(|size| u64::from_str_radix(size, 16).ok());
    size.filter(|_| is_over).ok_or(Violation::Chunk)
}

/// Checks a header that comes after the body.
pub(super) fn trailer(line: &[u8]) -> Result<(), Violation> {
    let (name, _) = split(line)?;
    let is_none = NO_TRAILERS.iter().any(|no| name.eq_ignore_ascii_case(no.as_bytes()));
    if is_none { Err(Violation::Trailer) } else { Ok(()) }
}
