//! Which paths a route is for.

use std::borrow::Cow;

use mesh_api::proto::l7::{self, path_match};

use super::{
    invalid::{At, Invalid, Problem},
    pattern::Pattern,
    text::starts_with_in_either_case,
};

/// Which paths match.
#[derive(Clone, Debug)]
pub(crate) struct PathMatch {
    kind: Kind,
    /// The texts of `kind` are in lower case then.
    ignore_case: bool,
}

#[derive(Clone, Debug)]
enum Kind {
    Exact(Box<str>),
    Prefix(Box<str>),
    /// Without a slash at the end, so that of `/` nothing is left.
    Elements(Box<str>),
    Regex(Pattern),
}

/// Where in an index of paths a match belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bucket<'a> {
    /// What all paths that match begin with.
    pub(crate) prefix: &'a str,
    /// Whether they are no longer than that.
    pub(crate) exact: bool,
    /// Whether both hold for paths in lower case.
    pub(crate) ignore_case: bool,
}

// === impl PathMatch ===

impl PathMatch {
    /// Returns whether a path without query matches.
    pub(crate) fn matches(&self, path: &str) -> bool {
        let starts = |prefix: &str| {
            if self.ignore_case {
                starts_with_in_either_case(path.as_bytes(), prefix.as_bytes())
            } else {
                path.starts_with(prefix)
            }
        };
        match &self.kind {
            Kind::Exact(text) => path.len() == text.len() && starts(text),
            Kind::Prefix(text) => starts(text),
            Kind::Elements(text) => {
                let ends = matches!(path.as_bytes().get(text.len()), None | Some(b'/'));
                starts(text) && (ends || text.is_empty())
            }
            Kind::Regex(pattern) => pattern.is_match(path.as_bytes()),
        }
    }

    /// Returns a path that matches with something else in place of what was matched.
    pub(crate) fn replace(&self, path: &str, replacement: &str) -> String {
        let rest = |text: &str| path.get(text.len()..).unwrap_or_default().to_owned();
        let replaced = match &self.kind {
            // Checked when the route was compiled: nothing replaces what they match.
            Kind::Exact(_) | Kind::Regex(_) => replacement.to_owned(),
            Kind::Prefix(text) => [replacement, &rest(text)].concat(),
            Kind::Elements(text) => match rest(text) {
                rest if rest.is_empty() => replacement.to_owned(),
                rest => [replacement.trim_end_matches('/'), &rest].concat(),
            },
        };
        if replaced.starts_with('/') { replaced } else { format!("/{replaced}") }
    }

    /// Returns whether there is something that can be replaced.
    pub(crate) fn is_replaceable(&self) -> bool {
        match self.kind {
            Kind::Exact(_) | Kind::Prefix(_) | Kind::Elements(_) => true,
            Kind::Regex(_) => false,
        }
    }

    /// Returns where the match belongs in an index.
    pub(crate) fn bucket(&self) -> Bucket<'_> {
        let ignore_case = self.ignore_case;
        match &self.kind {
            Kind::Exact(text) => Bucket { prefix: text, exact: true, ignore_case },
            Kind::Prefix(text) | Kind::Elements(text) => {
                Bucket { prefix: text, exact: false, ignore_case }
            }
            Kind::Regex(pattern) => {
                Bucket { prefix: pattern.prefix(), exact: false, ignore_case: false }
            }
        }
    }
}

/// All paths.
impl Default for PathMatch {
    fn default() -> Self {
        Self { kind: Kind::Elements(Box::default()), ignore_case: false }
    }
}

impl TryFrom<l7::PathMatch> for PathMatch {
    type Error = Invalid;

    fn try_from(wire: l7::PathMatch) -> Result<Self, Invalid> {
        let l7::PathMatch { kind, ignore_case } = wire;
        let text = |text: String| -> Box<str> {
            if ignore_case { text.to_ascii_lowercase().into() } else { text.into() }
        };
        let kind = match kind.ok_or(Problem::Missing).at("kind")? {
            path_match::Kind::Exact(exact) => Kind::Exact(text(exact)),
            path_match::Kind::Prefix(prefix) => Kind::Prefix(text(prefix)),
            path_match::Kind::Elements(path) => {
                Kind::Elements(text(path.trim_end_matches('/').to_owned()))
            }
            path_match::Kind::Regex(pattern) => {
                Pattern::whole(&pattern).map(Kind::Regex).at("regex")?
            }
        };
        Ok(Self { kind, ignore_case })
    }
}

/// Returns a path in lower case, for the indexes of matches that ignore case.
pub(crate) fn lower_case(path: &str) -> Cow<'_, str> {
    if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(path.to_ascii_lowercase())
    } else {
        Cow::Borrowed(path)
    }
}

#[cfg(test)]
mod tests {
    use mesh_api::proto::l7::path_match::Kind::{Elements, Exact, Prefix, Regex};

    use super::*;

    fn compiled(kind: path_match::Kind, ignore_case: bool) -> PathMatch {
        PathMatch::try_from(l7::PathMatch { kind: Some(kind), ignore_case }).unwrap()
    }

    #[test]
    fn paths_match_as_they_are_written() {
        let table = [
            (Exact("/foo".into()), false, "/foo", true),
            (Exact("/foo".into()), false, "/foo/", false),
            (Exact("/foo".into()), false, "/Foo", false),
            (Exact("/foO".into()), true, "/Foo", true),
            (Prefix("/foo".into()), false, "/foobar", true),
            (Prefix("/foo".into()), false, "/fo", false),
            (Prefix("/FOO".into()), true, "/fooBar", true),
            (Elements("/foo".into()), false, "/foo", true),
            (Elements("/foo".into()), false, "/foo/", true),
            (Elements("/foo".into()), false, "/foo/bar", true),
            (Elements("/foo".into()), false, "/foobar", false),
            (Elements("/foo/".into()), false, "/foo", true),
            (Elements("/".into()), false, "/x", true),
            (Elements("/Foo".into()), true, "/foo/x", true),
            (Regex("/f.o".into()), false, "/fxo", true),
            (Regex("/f.o".into()), false, "/fxox", false),
            (Regex("/foo".into()), true, "/FOO", false),
            (Prefix("/ä".into()), true, "/ä/x", true),
        ];
        for (kind, ignore_case, path, expected) in table {
            let found = compiled(kind.clone(), ignore_case).matches(path);
            assert_eq!(found, expected, "{kind:?} on {path}");
        }
        assert!(PathMatch::default().matches("/x") && PathMatch::default().matches("*"));
    }

    #[test]
    fn what_was_matched_is_replaced() {
        let table = [
            (Exact("/foo".into()), "/foo", "/bar", "/bar"),
            (Prefix("/foo".into()), "/foobar", "/x", "/xbar"),
            (Prefix("/foo/".into()), "/foo/bar", "/", "/bar"),
            (Prefix("/foo".into()), "/foo", "x", "/x"),
            (Elements("/foo".into()), "/foo/bar", "/xyz", "/xyz/bar"),
            (Elements("/foo".into()), "/foo/bar", "/xyz/", "/xyz/bar"),
            (Elements("/foo/".into()), "/foo/bar", "/xyz", "/xyz/bar"),
            (Elements("/foo".into()), "/foo/", "/xyz", "/xyz/"),
            (Elements("/foo".into()), "/foo", "/xyz", "/xyz"),
            (Elements("/foo".into()), "/foo/bar", "", "/bar"),
            (Elements("/foo".into()), "/foo/", "", "/"),
            (Elements("/foo".into()), "/foo", "", "/"),
            (Elements("/foo".into()), "/foo", "/", "/"),
            (Elements("/".into()), "/a", "/v1", "/v1/a"),
        ];
        for (kind, path, replacement, expected) in table {
            let matched = compiled(kind.clone(), false);
            assert!(matched.matches(path) && matched.is_replaceable());
            assert_eq!(matched.replace(path, replacement), expected, "{kind:?} of {path}");
        }
        assert!(!compiled(Regex("/.*".into()), false).is_replaceable());
    }
}
