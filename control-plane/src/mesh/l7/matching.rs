//! Conditions on requests.

use mesh_api::{
    crd::{Text, VirtualMatch},
    proto::l7::{
        HeaderMatch, HttpMatch, PathMatch, QueryMatch, StringMatch, path_match, string_match::Kind,
    },
};

/// An expression that the API has stand for any value.
const ANY: &str = "*";
/// Expressions that match every path.
const EVERY_PATH: [&str; 2] = [ANY, ".*"];

/// What headers begin with that stand for claims of a token.
const CLAIMS: &str = "@request.auth.claims";

/// Returns whether an entry matches every request of its port.
pub(super) fn is_catch_all(matched: &VirtualMatch) -> bool {
    let VirtualMatch { uri, scheme, method, authority, headers, .. } = matched;
    let every_path = uri.as_ref().is_none_or(|uri| {
        let regex = uri.regex.as_deref();
        is_presence(uri)
            || uri.prefix.as_deref() == Some("/")
            || regex.is_some_and(|regex| EVERY_PATH.contains(&regex))
    });
    every_path
        && scheme.is_none()
        && method.is_none()
        && authority.is_none()
        && headers.is_empty()
        && matched.without_headers.is_empty()
        && matched.query_params.is_empty()
}

/// Returns the conditions of an entry.
pub(super) fn lower(matched: &VirtualMatch) -> HttpMatch {
    let query = matched.query_params.iter();
    let mut conditions = HttpMatch {
        path: matched.uri.as_ref().and_then(|uri| path(uri, matched.ignore_uri_case)),
        method: matched.method.as_ref().map(string),
        scheme: matched.scheme.as_ref().map(string),
        authority: matched.authority.as_ref().map(string),
        headers: Vec::new(),
        query: query
            .map(|(name, text)| QueryMatch { name: name.clone(), value: Some(string(text)) })
            .collect(),
    };
    for (name, text) in &matched.headers {
        if is_claim(name) {
            // No token is looked at before a request is routed.
            return never();
        }
        // With what is a header in HTTP/2 only, such as `:method`.
        conditions.headers.push(header(name, text, false));
    }
    for (name, text) in &matched.without_headers {
        if !is_claim(name) {
            conditions.headers.push(header(name, text, true));
        }
    }
    conditions
}

/// Returns conditions that no request meets, as no method is empty. The entry that they are of is told
/// nevertheless: a service with routes refuses what none of them is for.
pub(super) fn never() -> HttpMatch {
    let kind = Some(Kind::Exact(String::new()));
    HttpMatch { method: Some(StringMatch { kind }), ..HttpMatch::default() }
}

/// Returns whether the name of a header stands for a claim of a token.
pub(super) fn is_claim(name: &str) -> bool {
    name.starts_with(CLAIMS)
}

fn header(name: &str, text: &Text, invert: bool) -> HeaderMatch {
    HeaderMatch { name: name.to_ascii_lowercase(), value: Some(string(text)), invert }
}

/// Returns a condition on a text.
pub(super) fn string(text: &Text) -> StringMatch {
    let Text { exact, prefix, regex } = text;
    let kind = match (exact, prefix, regex.as_deref()) {
        (Some(exact), _, _) => Kind::Exact(exact.clone()),
        (None, Some(prefix), _) => Kind::Prefix(prefix.clone()),
        (None, None, Some(ANY) | None) => Kind::Present(true),
        (None, None, Some(regex)) => Kind::Regex(regex.to_owned()),
    };
    StringMatch { kind: Some(kind) }
}

fn is_presence(text: &Text) -> bool {
    matches!(string(text).kind, Some(Kind::Present(_)))
}

fn path(text: &Text, ignore_case: bool) -> Option<PathMatch> {
    let kind = match string(text).kind? {
        Kind::Exact(exact) => path_match::Kind::Exact(exact),
        Kind::Prefix(prefix) => path_match::Kind::Prefix(prefix),
        Kind::Regex(regex) => path_match::Kind::Regex(regex),
        // There always is a path.
        Kind::Suffix(_) | Kind::Present(_) => return None,
    };
    Some(PathMatch { kind: Some(kind), ignore_case })
}
