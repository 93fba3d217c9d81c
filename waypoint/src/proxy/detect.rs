//! What is spoken on a connection, by its first bytes.

/// What the first bytes of a connection say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Detected {
    /// HTTP/1.
    Http1,
    /// HTTP/2, with prior knowledge (RFC 9113 section 3.3).
    Http2,
    /// Something else.
    Bytes,
    /// More is needed to tell.
    Unclear,
}

/// How HTTP/2 begins (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Longest method that HTTP/1 is told by, in bytes; no registered one is longer (IANA, RFC 9110).
const MAX_METHOD_BYTES: usize = 17;

/// Bytes that suffice to tell.
pub(super) const ENOUGH_BYTES: usize = PREFACE.len();

/// Returns what `first`, the first bytes of a connection, begin.
pub(super) fn detect(first: &[u8]) -> Detected {
    let common = first.len().min(PREFACE.len());
    if first[..common] == PREFACE[..common] {
        return if common == PREFACE.len() { Detected::Http2 } else { Detected::Unclear };
    }
    // A method is letters, and then comes a space and a target (RFC 9112 section 3).
    let method =
        first.iter().take_while(|byte| byte.is_ascii_uppercase() || **byte == b'-').count();
    if method > MAX_METHOD_BYTES {
        return Detected::Bytes;
    }
    match (method, first.get(method), first.get(method + 1)) {
        (0 | 1.., None, _) | (1.., Some(b' '), None) => Detected::Unclear,
        (1.., Some(b' '), Some(target)) if target.is_ascii_graphic() => Detected::Http1,
        (_, Some(_), _) => Detected::Bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell_http_from_anything_else() {
        for (first, expected) in [
            ("GET / HTTP/1.1\r\n", Detected::Http1),
            ("OPTIONS * HTTP/1.1\r\n", Detected::Http1),
            ("VERSION-CONTROL /x HTTP/1.1", Detected::Http1),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Detected::Http2),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nmore", Detected::Http2),
            ("PRI * HTTP/1.1\r\n", Detected::Http1),
            ("", Detected::Unclear),
            ("P", Detected::Unclear),
            ("PRI * HT", Detected::Unclear),
            ("GET ", Detected::Unclear),
            ("\x16\x03\x01\x02\x00", Detected::Bytes),
            ("hello", Detected::Bytes),
            ("EHLO\r\n", Detected::Bytes),
            ("GET  /", Detected::Bytes),
            (" GET /", Detected::Bytes),
            ("AVERYLONGWORDTHATISNOMETHOD", Detected::Bytes),
            ("*1\r\n$4\r\nPING\r\n", Detected::Bytes),
        ] {
            assert_eq!(detect(first.as_bytes()), expected, "{first:?}");
        }
    }

    #[test]
    fn enough_bytes_are_never_unclear() {
        for filler in [b'G', b' ', b'x', 0] {
            assert_ne!(detect(&[filler; ENOUGH_BYTES]), Detected::Unclear);
        }
    }
}
