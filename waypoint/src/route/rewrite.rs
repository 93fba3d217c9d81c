//! Paths and authorities that endpoints see in place of those that clients ask for.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Uri, request::Parts, uri::PathAndQuery};
use mesh_api::proto::l7::{self, rewrite};
use regex::bytes::{Captures, Regex};

use super::{
    headers::set_authority,
    invalid::{At, Invalid, Problem},
    path::PathMatch,
    pattern,
};

/// Path that the client asked for, where the endpoint sees another one.
pub const ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");

/// What is put in place of path and authority.
#[derive(Clone, Debug)]
pub(crate) struct Rewrite {
    path: Option<PathRewrite>,
    pub(crate) authority: Option<HeaderValue>,
}

#[derive(Clone, Debug)]
enum PathRewrite {
    Full(Box<str>),
    Prefix(Box<str>),
    Regex { pattern: Regex, substitution: Box<[Piece]> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(Box<str>),
    Group(usize),
}

/// A request that cannot be written as its route says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the route makes an address of the request that is none")]
pub struct Unwritable;

// === impl Rewrite ===

impl Rewrite {
    /// Compiles a rewrite of what `matched` matches.
    pub(crate) fn compile(wire: l7::Rewrite, matched: &PathMatch) -> Result<Self, Invalid> {
        let path = match wire.path {
            None => None,
            Some(rewrite::Path::Full(path)) => {
                Some(PathRewrite::Full(checked_path(path).at("full")?))
            }
            Some(rewrite::Path::Prefix(prefix)) => {
                if !matched.is_replaceable() {
                    return Err(Problem::NoPrefix).at("prefix");
                }
                Some(PathRewrite::Prefix(checked_path(prefix).at("prefix")?))
            }
            Some(rewrite::Path::Regex(wire)) => Some(PathRewrite::regex(&wire).at("regex")?),
        };
        let authority = match wire.authority.as_str() {
            "" => None,
            authority => Some(checked_authority(authority).at("authority")?),
        };
        Ok(Self { path, authority })
    }

    /// Rewrites the path of a request; keeps its query, and the whole as it was in a header.
    pub(crate) fn apply_to_path(
        &self,
        request: &mut Parts,
        matched: &PathMatch,
    ) -> Result<(), Unwritable> {
        let Some(rewrite) = &self.path else { return Ok(()) };
        let path = rewrite.rewritten(request.uri.path(), matched)?;
        let target = with_query(path, request.uri.query());
        let original = request.uri.path_and_query().map_or("/", PathAndQuery::as_str);
        let original = HeaderValue::from_str(original).map_err(|_| Unwritable)?;
        let target =
            PathAndQuery::from_maybe_shared(Bytes::from(target)).map_err(|_| Unwritable)?;
        let mut uri = request.uri.clone().into_parts();
        uri.path_and_query = Some(target);
        request.uri = Uri::from_parts(uri).map_err(|_| Unwritable)?;
        request.headers.insert(ORIGINAL_PATH, original);
        Ok(())
    }
}

/// Replaces the authority of a request.
pub(crate) fn apply_to_authority(
    request: &mut Parts,
    authority: &HeaderValue,
) -> Result<(), Unwritable> {
    set_authority(request, authority).map_err(|_| Unwritable)
}

/// Returns a path that may be the one of a request, or begin it.
pub(crate) fn checked_path(path: String) -> Result<Box<str>, Problem> {
    let checked = format!("/{}", path.trim_start_matches('/')).parse::<PathAndQuery>();
    if checked.is_err() || path.contains('#') {
        return Err(Problem::Uri(path));
    }
    Ok(path.into())
}

pub(crate) fn checked_authority(authority: &str) -> Result<HeaderValue, Problem> {
    let invalid = || Problem::Uri(authority.to_owned());
    authority.parse::<http::uri::Authority>().map_err(|_| invalid())?;
    HeaderValue::from_str(authority).map_err(|_| invalid())
}

/// Puts a query after a path that may have one of its own.
fn with_query(path: String, query: Option<&str>) -> String {
    match query {
        None => path,
        Some(query) if path.contains('?') => [&path, "&", query].concat(),
        Some(query) => [&path, "?", query].concat(),
    }
}

// === impl PathRewrite ===

impl PathRewrite {
    fn regex(wire: &l7::RegexRewrite) -> Result<Self, Invalid> {
        let pattern = pattern::anywhere(&wire.pattern).at("pattern")?;
        let substitution = parse_substitution(&wire.substitution, pattern.captures_len());
        Ok(Self::Regex { pattern, substitution: substitution.at("substitution")? })
    }

    fn rewritten(&self, path: &str, matched: &PathMatch) -> Result<String, Unwritable> {
        let rewritten = match self {
            Self::Full(full) => full.to_string(),
            Self::Prefix(prefix) => matched.replace(path, prefix),
            Self::Regex { pattern, substitution } => {
                let substitute = |captures: &Captures<'_>| substituted(substitution, captures);
                let rewritten = pattern.replace_all(path.as_bytes(), substitute);
                String::from_utf8(rewritten.into_owned()).map_err(|_| Unwritable)?
            }
        };
        Ok(if rewritten.starts_with('/') { rewritten } else { format!("/{rewritten}") })
    }
}

fn substituted(pieces: &[Piece], captures: &Captures<'_>) -> Vec<u8> {
    let mut text = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Literal(literal) => text.extend_from_slice(literal.as_bytes()),
            Piece::Group(group) => {
                text.extend_from_slice(captures.get(*group).map_or(b"", |group| group.as_bytes()));
            }
        }
    }
    text
}

/// Parses a text with `\1` for groups and `\\` for a backslash.
fn parse_substitution(text: &str, groups: usize) -> Result<Box<[Piece]>, Problem> {
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            literal.push(character);
            continue;
        }
        match characters.next() {
            Some('\\') => literal.push('\\'),
            Some(digit @ '0'..='9') => {
                let group = digit.to_digit(10).map_or(0, |group| group as usize);
                if group >= groups {
                    return Err(Problem::Group(group));
                }
                if !literal.is_empty() {
                    pieces.push(Piece::Literal(std::mem::take(&mut literal).into()));
                }
                pieces.push(Piece::Group(group));
            }
            _ => return Err(Problem::Uri(text.to_owned())),
        }
    }
    if !literal.is_empty() {
        pieces.push(Piece::Literal(literal.into()));
    }
    Ok(pieces.into())
}

#[cfg(test)]
mod tests {
    use http::Request;
    use mesh_api::proto::l7::path_match::Kind;

    use super::*;

    fn matched(kind: Kind) -> PathMatch {
        PathMatch::try_from(l7::PathMatch { kind: Some(kind), ignore_case: false }).unwrap()
    }

    fn wire(path: rewrite::Path) -> l7::Rewrite {
        l7::Rewrite { path: Some(path), authority: String::new() }
    }

    fn regex(pattern: &str, substitution: &str) -> rewrite::Path {
        let (pattern, substitution) = (pattern.into(), substitution.into());
        rewrite::Path::Regex(l7::RegexRewrite { pattern, substitution })
    }

    #[test]
    fn paths_are_rewritten_with_their_query_kept_and_themselves_in_a_header() {
        let full = |path: &str| rewrite::Path::Full(path.into());
        let prefix = |path: &str| rewrite::Path::Prefix(path.into());
        let a = || Kind::Prefix("/a".into());
        for (kind, rewrite, uri, expected) in [
            (a(), full("/new"), "/a/b?q=1", "/new?q=1"),
            (a(), full("/new?x=2"), "/a/b?q=1", "/new?x=2&q=1"),
            (a(), prefix("/new"), "/a/b?q=/a", "/new/b?q=/a"),
            (a(), prefix("/new"), "/ab", "/newb"),
            (a(), prefix(""), "/a", "/"),
            (Kind::Elements("/a".into()), prefix("/"), "/a/b", "/b"),
            (Kind::Exact("/a".into()), prefix("/new"), "/a?x", "/new?x"),
            (a(), regex("^/a/([^/]+)/(.*)$", "/\\2/of/\\1"), "/a/b/c?q", "/c/of/b?q"),
            (a(), regex("a", "x"), "/a/a", "/x/x"),
            (a(), regex("z", "x"), "/a/a", "/a/a"),
            (a(), regex("^/a", ""), "/a", "/"),
            (a(), regex("(?i)/A(b)?", "/\\0\\1"), "/a", "//a"),
            (Kind::Regex("/.*".into()), full("/new"), "/a", "/new"),
        ] {
            let matched = matched(kind);
            let compiled = Rewrite::compile(wire(rewrite.clone()), &matched).unwrap();
            let (mut parts, ()) = Request::builder().uri(uri).body(()).unwrap().into_parts();
            compiled.apply_to_path(&mut parts, &matched).unwrap();
            assert_eq!(parts.uri.to_string(), expected, "{rewrite:?} of {uri}");
            assert_eq!(parts.headers[ORIGINAL_PATH], uri);
        }
    }

    #[test]
    fn a_request_that_is_not_rewritten_keeps_its_headers() {
        let authority = l7::Rewrite { path: None, authority: "b:80".into() };
        let compiled = Rewrite::compile(authority, &PathMatch::default()).unwrap();
        let (mut parts, ()) = Request::builder().uri("/a").body(()).unwrap().into_parts();
        compiled.apply_to_path(&mut parts, &PathMatch::default()).unwrap();
        assert!(parts.headers.is_empty() && compiled.authority.is_some());
    }

    #[test]
    fn a_rewrite_that_cannot_be_done_is_refused() {
        let regex_match = matched(Kind::Regex("/.*".into()));
        let any = PathMatch::default();
        for (matched, rewrite, field) in [
            (&regex_match, rewrite::Path::Prefix("/x".into()), "prefix"),
            (&any, rewrite::Path::Full("/a b".into()), "full"),
            (&any, rewrite::Path::Full("/a#b".into()), "full"),
            (&any, regex("(", ""), "regex.pattern"),
            (&any, regex("a(b)", "\\2"), "regex.substitution"),
            (&any, regex("a", "\\x"), "regex.substitution"),
            (&any, regex("a", "\\"), "regex.substitution"),
        ] {
            let refused = Rewrite::compile(wire(rewrite), matched);
            assert_eq!(refused.unwrap_err().field, field);
        }
        let authority = l7::Rewrite { path: None, authority: "a b".into() };
        assert_eq!(Rewrite::compile(authority, &any).unwrap_err().field, "authority");
    }
}
