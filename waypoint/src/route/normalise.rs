//! One spelling for each path, so that no other one gets past a route or a policy.
//!
//! What is matched is what is forwarded: the path of the request is replaced by the normal one.

use std::borrow::Cow;

use bytes::Bytes;
use http::{StatusCode, request::Parts, uri::PathAndQuery};
use mesh_api::proto::l7::PathNormalisation;

/// How far paths are normalised; Istio's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Normalisation {
    /// As they come.
    None,
    /// Without dot segments and without escapes of unreserved characters (RFC 3986 6.2.2), and with
    /// slashes for backslashes.
    #[default]
    Base,
    /// As [`Base`](Self::Base), with one slash for several.
    MergeSlashes,
    /// As [`MergeSlashes`](Self::MergeSlashes), after escaped slashes and backslashes are decoded.
    DecodeAndMergeSlashes,
}

/// Why a path has no normal spelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unnormalisable {
    /// It does not begin with a slash.
    #[error("the path does not begin with a slash")]
    NotAbsolute,
    /// A percent sign is not followed by two hexadecimal digits: decoders differ in what it means.
    #[error("the path has an incomplete escape")]
    Escape,
    /// A zero byte, or a control character, which end strings for some.
    #[error("the path has an escaped control character")]
    Control,
    /// A fragment, which has no place in a request.
    #[error("the path has a fragment")]
    Fragment,
}

// === impl Normalisation ===

impl From<PathNormalisation> for Normalisation {
    fn from(wire: PathNormalisation) -> Self {
        match wire {
            PathNormalisation::Base => Self::Base,
            PathNormalisation::None => Self::None,
            PathNormalisation::MergeSlashes => Self::MergeSlashes,
            PathNormalisation::DecodeAndMergeSlashes => Self::DecodeAndMergeSlashes,
        }
    }
}

// === impl Unnormalisable ===

impl Unnormalisable {
    /// What such a request is answered.
    pub const STATUS: StatusCode = StatusCode::BAD_REQUEST;
}

/// Gives a request the normal spelling of its path; what has no path is left as it is.
pub fn normalise(parts: &mut Parts, how: Normalisation) -> Result<(), Unnormalisable> {
    let Some(target) = parts.uri.path_and_query() else { return Ok(()) };
    let normal = match normal_path(target.path(), how)? {
        Cow::Borrowed(_) => return Ok(()),
        Cow::Owned(path) => path,
    };
    let spelling = match target.query() {
        Some(query) => [normal.as_str(), "?", query].concat(),
        None => normal,
    };
    let target = PathAndQuery::from_maybe_shared(Bytes::from(spelling));
    let mut uri = std::mem::take(&mut parts.uri).into_parts();
    uri.path_and_query = Some(target.map_err(|_| Unnormalisable::Escape)?);
    parts.uri = http::Uri::from_parts(uri).map_err(|_| Unnormalisable::NotAbsolute)?;
    Ok(())
}

/// Returns the normal spelling of a path without query; the path itself where it is that.
pub fn normal_path(path: &str, how: Normalisation) -> Result<Cow<'_, str>, Unnormalisable> {
    // Of all the server.
    if how == Normalisation::None || path == "*" {
        return Ok(Cow::Borrowed(path));
    }
    if !path.starts_with('/') {
        return Err(Unnormalisable::NotAbsolute);
    }
    let merge = match how {
        Normalisation::None | Normalisation::Base => false,
        Normalisation::MergeSlashes | Normalisation::DecodeAndMergeSlashes => true,
    };
    if is_normal(path.as_bytes(), merge) {
        return Ok(Cow::Borrowed(path));
    }
    let decoded = decode(path, how == Normalisation::DecodeAndMergeSlashes)?;
    let mut normal = without_dot_segments(&decoded);
    if merge {
        merge_slashes(&mut normal);
    }
    Ok(Cow::Owned(normal))
}

/// Returns whether nothing in a path needs a closer look.
fn is_normal(path: &[u8], merge: bool) -> bool {
    let suspicious = |pair: &[u8]| match pair {
        [b'/', b'.'] => true,
        [b'/', b'/'] => merge,
        _ => false,
    };
    !path.iter().any(|byte| matches!(byte, b'%' | b'\\' | b'#' | 0..=0x1f | 0x7f))
        && !path.windows(2).any(suspicious)
}

/// Decodes escapes of unreserved characters and, if so asked, of slashes.
fn decode(path: &str, slashes: bool) -> Result<String, Unnormalisable> {
    let mut decoded = String::with_capacity(path.len());
    let mut rest = path;
    let special = |c: char| matches!(c, '%' | '\\' | '#') || c.is_ascii_control();
    while let Some(at) = rest.find(special) {
        let (plain, special) = rest.split_at(at);
        decoded.push_str(plain);
        match special.as_bytes() {
            [b'\\', ..] => decoded.push('/'),
            [b'%', high, low, ..] => {
                let byte = hex(*high).zip(hex(*low)).map(|(high, low)| high << 4 | low);
                match byte.ok_or(Unnormalisable::Escape)? {
                    0..=0x1f | 0x7f => return Err(Unnormalisable::Control),
                    b'/' | b'\\' if slashes => decoded.push('/'),
                    byte if is_unreserved(byte) => decoded.push(char::from(byte)),
                    _ => decoded.push_str(&special[..3]),
                }
                rest = &special[3..];
                continue;
            }
            [b'%', ..] => return Err(Unnormalisable::Escape),
            [b'#', ..] => return Err(Unnormalisable::Fragment),
            _ => return Err(Unnormalisable::Control),
        }
        rest = &special[1..];
    }
    decoded.push_str(rest);
    Ok(decoded)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Removes `.` and `..` (RFC 3986 5.2.4) from a path that begins with a slash.
fn without_dot_segments(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path[1..].split('/').peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." => {}
            ".." => {
                kept.pop();
            }
            _ => {
                kept.push(segment);
                continue;
            }
        }
        // What ends with a dot segment names a directory.
        if is_last {
            kept.push("");
        }
    }
    let mut normal = String::with_capacity(path.len());
    for segment in kept {
        normal.push('/');
        normal.push_str(segment);
    }
    normal
}

fn merge_slashes(path: &mut String) {
    let mut previous = None;
    path.retain(|character| {
        let repeated = character == '/' && previous == Some('/');
        previous = Some(character);
        !repeated
    });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Normalisation::*, *};

    #[test]
    fn each_path_has_one_spelling() {
        let table = [
            ("/", "/", "/", "/"),
            ("/a/b", "/a/b", "/a/b", "/a/b"),
            ("/a/../b", "/b", "/b", "/b"),
            ("/a/./b", "/a/b", "/a/b", "/a/b"),
            ("/../../x", "/x", "/x", "/x"),
            ("/a/..", "/", "/", "/"),
            ("/a/.", "/a/", "/a/", "/a/"),
            ("/a/b/..", "/a/", "/a/", "/a/"),
            ("/a/%2e%2E/b", "/b", "/b", "/b"),
            ("/%61dmin", "/admin", "/admin", "/admin"),
            ("/%7Euser", "/~user", "/~user", "/~user"),
            ("/a//b", "/a//b", "/a/b", "/a/b"),
            ("//a", "//a", "/a", "/a"),
            ("/a//../b", "/a/b", "/a/b", "/a/b"),
            ("\\a", "", "", ""),
            ("/\\a", "//a", "/a", "/a"),
            ("/a\\..\\b", "/b", "/b", "/b"),
            ("/a%2fb", "/a%2fb", "/a%2fb", "/a/b"),
            ("/a%2F..%2Fb", "/a%2F..%2Fb", "/a%2F..%2Fb", "/b"),
            ("/a%5cb", "/a%5cb", "/a%5cb", "/a/b"),
            ("/a%252fb", "/a%252fb", "/a%252fb", "/a%252fb"),
            ("/a%252e", "/a%252e", "/a%252e", "/a%252e"),
            ("/a;x/../b", "/b", "/b", "/b"),
            ("/a;x", "/a;x", "/a;x", "/a;x"),
            ("/A", "/A", "/A", "/A"),
            ("/...", "/...", "/...", "/..."),
            ("/.a", "/.a", "/.a", "/.a"),
            ("/%C3%A4", "/%C3%A4", "/%C3%A4", "/%C3%A4"),
            ("*", "*", "*", "*"),
        ];
        for (path, base, merged, decoded) in table {
            for (how, expected) in [
                (None, path),
                (Base, base),
                (MergeSlashes, merged),
                (DecodeAndMergeSlashes, decoded),
            ] {
                let normal = normal_path(path, how);
                let found = normal.as_deref().unwrap_or_default();
                assert_eq!(found, expected, "{path} by {how:?}");
            }
        }
    }

    #[test]
    fn a_path_without_a_normal_spelling_is_refused() {
        for (path, expected) in [
            ("", Unnormalisable::NotAbsolute),
            ("a/b", Unnormalisable::NotAbsolute),
            ("/%", Unnormalisable::Escape),
            ("/%2", Unnormalisable::Escape),
            ("/%zz", Unnormalisable::Escape),
            ("/%2%65", Unnormalisable::Escape),
            ("/a%00", Unnormalisable::Control),
            ("/a%0d%0ab", Unnormalisable::Control),
            ("/a\0", Unnormalisable::Control),
            ("/a#b", Unnormalisable::Fragment),
            ("/%€", Unnormalisable::Escape),
        ] {
            for how in [Base, MergeSlashes, DecodeAndMergeSlashes] {
                assert_eq!(normal_path(path, how), Err(expected), "{path}");
            }
        }
    }

    #[test]
    fn what_is_forwarded_is_the_normal_path_with_the_query_as_it_was() {
        for (uri, expected) in [
            ("/a/../b?x=/../y&z=%61", "/b?x=/../y&z=%61"),
            ("http://host:80/a/%2e./b", "http://host:80/b"),
            ("/plain?x", "/plain?x"),
            ("*", "*"),
        ] {
            let (mut parts, ()) = http::Request::builder().uri(uri).body(()).unwrap().into_parts();
            normalise(&mut parts, Base).unwrap();
            assert_eq!(parts.uri.to_string(), expected, "{uri}");
        }
    }

    proptest! {
        #[test]
        fn the_normal_spelling_of_a_normal_path_is_itself(
            path in "/([a./%\\\\]|%2[eEfF5]|%5[cC]|%[0-9a-fA-F]{2}|ä){0,12}"
        ) {
            for how in [Base, MergeSlashes, DecodeAndMergeSlashes] {
                if let Ok(normal) = normal_path(&path, how) {
                    prop_assert!(normal.starts_with('/'));
                    prop_assert!(!normal.split('/').any(|segment| segment == "." || segment == ".."));
                    let again = normal_path(&normal, how);
                    prop_assert_eq!(again.as_deref(), Ok(&*normal));
                }
            }
        }
    }
}
