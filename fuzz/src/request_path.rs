//! The one spelling of a path.

use fairlead_waypoint::route::{Normalisation, normal_path};

/// The input is a path. Its normal spelling is that of the standard, and is its own.
pub fn request_path(data: &[u8]) {
    let path = String::from_utf8_lossy(data);
    for how in
        [Normalisation::Base, Normalisation::MergeSlashes, Normalisation::DecodeAndMergeSlashes]
    {
        let Ok(normal) = normal_path(&path, how) else { continue };
        assert_eq!(normal_path(&normal, how).as_deref(), Ok(&*normal), "{how:?}");
        if path == "*" {
            continue;
        }
        assert!(normal.starts_with('/'), "{normal}");
        assert!(!normal.split('/').any(|segment| matches!(segment, "." | "..")), "{normal}");
        let expected = naive(&path, how == Normalisation::DecodeAndMergeSlashes);
        let merged = |path: &str| {
            let mut path = path.to_owned();
            while path.contains("//") {
                path = path.replace("//", "/");
            }
            path
        };
        match how {
            Normalisation::None | Normalisation::Base => assert_eq!(normal, expected),
            Normalisation::MergeSlashes | Normalisation::DecodeAndMergeSlashes => {
                assert_eq!(normal, merged(&expected));
            }
        }
    }
}

/// Decodes what need not be encoded, then follows RFC 3986 5.2.4 to the letter.
fn naive(path: &str, slashes: bool) -> String {
    let mut decoded = String::new();
    let mut rest = path;
    while let Some(first) = rest.chars().next() {
        let escape = rest.strip_prefix('%').and_then(|rest| rest.get(..2));
        let byte = escape.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte.map(char::from) {
            Some('/' | '\\') if slashes => decoded.push('/'),
            Some(plain @ ('A'..='Z' | 'a'..='z' | '0'..='9' | '-' | '.' | '_' | '~')) => {
                decoded.push(plain);
            }
            Some(_) => decoded.push_str(&rest[..3]),
            None => decoded.push(if first == '\\' { '/' } else { first }),
        }
        rest = &rest[if byte.is_some() { 3 } else { first.len_utf8() }..];
    }
    remove_dot_segments(&decoded)
}

fn remove_dot_segments(path: &str) -> String {
    let mut input = path.to_owned();
    let mut output = String::new();
    while !input.is_empty() {
        if input.starts_with("/./") {
            input.replace_range(..3, "/");
        } else if input == "/." {
            "/".clone_into(&mut input);
        } else if input.starts_with("/../") || input == "/.." {
            let length = input.len().min(4);
            input.replace_range(..length, "/");
            output.truncate(output.rfind('/').unwrap_or_default());
        } else {
            let end = input[1..].find('/').map_or(input.len(), |end| end + 1);
            output.extend(input.drain(..end));
        }
    }
    output
}
