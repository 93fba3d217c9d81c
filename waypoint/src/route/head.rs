//! What decisions see of a request.

use http::{HeaderMap, Method, header::HOST, request::Parts};

/// A request as decisions see it, its path normalised.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// Method.
    pub method: &'a Method,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// Whom it is addressed to, with the port if it names one.
    pub authority: &'a str,
    /// Path, without query.
    pub path: &'a str,
    /// What follows the question mark.
    pub query: Option<&'a str>,
    /// Headers.
    pub headers: &'a HeaderMap,
}

// === impl RequestHead ===

impl<'a> RequestHead<'a> {
    /// Sees a request. The scheme is what it came by, never what it says it came by.
    pub fn of(parts: &'a Parts, scheme: &'a str) -> Self {
        Self {
            method: &parts.method,
            scheme,
            authority: authority(parts),
            path: parts.uri.path(),
            query: parts.uri.query(),
            headers: &parts.headers,
        }
    }

    /// Returns path and query.
    pub fn path_and_query(&self) -> String {
        match self.query {
            Some(query) => [self.path, "?", query].concat(),
            None => self.path.to_owned(),
        }
    }

    /// Returns whether it is a gRPC call, whose refusals travel in a header.
    pub fn is_grpc(&self) -> bool {
        let value = self.headers.get(http::header::CONTENT_TYPE).map_or(&[][..], |v| v.as_bytes());
        let kind = value.strip_prefix(b"application/grpc");
        kind.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
    }
}

/// Returns whom a request is addressed to: its target says, or else its host header.
pub fn authority(parts: &Parts) -> &str {
    let host = || parts.headers.get(HOST).and_then(|host| host.to_str().ok());
    parts.uri.authority().map(http::uri::Authority::as_str).or_else(host).unwrap_or_default()
}

/// Splits an authority into host and port. The brackets of an IPv6 address stay with the host.
pub(crate) fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_of_an_authority_is_told_from_an_address() {
        for (authority, split) in [
            ("a", ("a", None)),
            ("a:80", ("a", Some("80"))),
            ("[::1]", ("[::1]", None)),
            ("[::1]:80", ("[::1]", Some("80"))),
            ("a:", ("a", Some(""))),
        ] {
            assert_eq!(split_port(authority), split, "{authority}");
        }
    }

    #[test]
    fn the_target_of_a_request_says_whom_it_is_addressed_to_before_its_host() {
        for (uri, host, expected) in
            [("/x", Some("a:80"), "a:80"), ("http://b/x", Some("a"), "b"), ("/x", None, "")]
        {
            let mut request = http::Request::builder().uri(uri);
            if let Some(host) = host {
                request = request.header(HOST, host);
            }
            let (parts, ()) = request.body(()).unwrap().into_parts();
            assert_eq!(authority(&parts), expected, "{uri}");
        }
    }

    #[test]
    fn calls_of_grpc_are_known_by_their_content_type() {
        for (kind, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc; x", true),
            ("application/grpc-web", false),
            ("text/plain", false),
        ] {
            let request = http::Request::builder().header("content-type", kind).body(()).unwrap();
            let (parts, ()) = request.into_parts();
            assert_eq!(RequestHead::of(&parts, "http").is_grpc(), expected, "{kind}");
        }
    }
}
