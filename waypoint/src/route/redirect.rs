//! Redirects: where clients are told to go.

use http::{HeaderValue, StatusCode};
use mesh_api::proto::l7::{self, PortOrigin, redirect};

use super::{
    head::{RequestHead, split_port},
    invalid::{At, Invalid, Problem},
    path::PathMatch,
    rewrite::{Unwritable, checked_authority, checked_path},
    wire,
};

/// Where clients are told to go.
#[derive(Clone, Debug)]
pub struct Redirect {
    scheme: Option<Box<str>>,
    authority: Option<Box<str>>,
    port: Port,
    path: Path,
    status: StatusCode,
    matched: PathMatch,
}

#[derive(Clone, Copy, Debug)]
enum Port {
    /// What the authority names.
    AsWritten,
    Number(u16),
    /// The scheme's own.
    OfScheme,
    /// The one that the request came to.
    OfListener,
}

#[derive(Clone, Debug)]
enum Path {
    Kept,
    Full(Box<str>),
    Prefix(Box<str>),
}

// === impl Redirect ===

impl Redirect {
    pub(crate) fn compile(wire: l7::Redirect, matched: &PathMatch) -> Result<Self, Invalid> {
        let scheme = match wire.scheme.as_str() {
            "" => None,
            "http" | "https" => Some(wire.scheme.into()),
            _ => return Err(Problem::Uri(wire.scheme)).at("scheme"),
        };
        if !wire.authority.is_empty() {
            checked_authority(&wire.authority).at("authority")?;
        }
        let port = match wire.port {
            None => Port::AsWritten,
            Some(redirect::Port::Number(number)) => match wire::port(number).at("number")? {
                Some(number) => Port::Number(number.get()),
                None => return Err(Problem::Port(number)).at("number"),
            },
            Some(redirect::Port::Derived(origin)) => match PortOrigin::try_from(origin) {
                Ok(PortOrigin::Scheme) => Port::OfScheme,
                Ok(PortOrigin::Listener) => Port::OfListener,
                Ok(PortOrigin::OriginUnspecified) | Err(_) => {
                    return Err(Problem::Unknown(origin)).at("derived");
                }
            },
        };
        let path = match wire.path {
            None => Path::Kept,
            Some(redirect::Path::Full(path)) => Path::Full(checked_path(path).at("full")?),
            Some(redirect::Path::Prefix(_)) if !matched.is_replaceable() => {
                return Err(Problem::NoPrefix).at("prefix");
            }
            Some(redirect::Path::Prefix(path)) => Path::Prefix(checked_path(path).at("prefix")?),
        };
        let authority = (!wire.authority.is_empty()).then(|| wire.authority.into());
        let status = wire::redirect_status(wire.status).at("status")?;
        Ok(Self { scheme, authority, port, path, status, matched: matched.clone() })
    }

    /// Returns the status of the answer.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Returns the `location` that a client is told; `listener_port` is the port that it came to.
    pub fn location(
        &self,
        request: &RequestHead<'_>,
        listener_port: u16,
    ) -> Result<HeaderValue, Unwritable> {
        let scheme = self.scheme.as_deref().unwrap_or(request.scheme);
        let (host, port) = self.host_and_port(request, scheme, listener_port);
        let mut location = [scheme, "://", host].concat();
        if let Some(port) = port.filter(|port| !port.is_empty() && *port != default_port(scheme)) {
            location.push(':');
            location.push_str(&port);
        }
        location.push_str(&self.target(request));
        HeaderValue::from_str(&location).map_err(|_| Unwritable)
    }

    fn host_and_port<'a>(
        &'a self,
        request: &RequestHead<'a>,
        scheme: &str,
        listener_port: u16,
    ) -> (&'a str, Option<String>) {
        let (request_host, request_port) = split_port(request.authority);
        let (host, written) = match &self.authority {
            Some(authority) => split_port(authority),
            // The port of a scheme is not the one of another.
            None if scheme != request.scheme
                && request_port == Some(default_port(request.scheme)) =>
            {
                (request_host, None)
            }
            None => (request_host, request_port),
        };
        let port = match self.port {
            Port::AsWritten => written.map(str::to_owned),
            Port::Number(number) => Some(number.to_string()),
            Port::OfScheme => None,
            Port::OfListener => Some(listener_port.to_string()),
        };
        (host, port)
    }

    /// Returns path and query.
    fn target(&self, request: &RequestHead<'_>) -> String {
        let path = match &self.path {
            Path::Kept => request.path.to_owned(),
            Path::Full(full) if full.starts_with('/') => full.to_string(),
            Path::Full(full) => format!("/{full}"),
            Path::Prefix(prefix) => self.matched.replace(request.path, prefix),
        };
        match request.query {
            Some(query) if !path.contains('?') => [&path, "?", query].concat(),
            _ => path,
        }
    }
}

fn default_port(scheme: &str) -> &'static str {
    if scheme == "https" { "443" } else { "80" }
}

#[cfg(test)]
mod tests {
    use http::Request;
    use mesh_api::proto::l7::path_match::Kind;

    use super::*;

    fn location(wire: l7::Redirect, host: &str, uri: &str) -> String {
        let kind = Some(Kind::Elements("/a".into()));
        let matched = PathMatch::try_from(l7::PathMatch { kind, ignore_case: false }).unwrap();
        let wire = l7::Redirect { status: 301, ..wire };
        let compiled = Redirect::compile(wire, &matched).unwrap();
        let request = Request::builder().uri(uri).header("host", host).body(()).unwrap();
        let (parts, ()) = request.into_parts();
        let head = RequestHead::of(&parts, "http");
        let location = compiled.location(&head, 8080).unwrap();
        location.to_str().unwrap().to_owned()
    }

    #[test]
    fn what_a_redirect_does_not_say_comes_from_the_request() {
        let scheme = |scheme: &str| l7::Redirect { scheme: scheme.into(), ..Default::default() };
        let authority = |name: &str| l7::Redirect { authority: name.into(), ..Default::default() };
        let number =
            |wire, number| l7::Redirect { port: Some(redirect::Port::Number(number)), ..wire };
        let derived = |wire, origin: PortOrigin| l7::Redirect {
            port: Some(redirect::Port::Derived(origin.into())),
            ..wire
        };
        let path = |path| l7::Redirect { path: Some(path), ..Default::default() };
        let full = |text: &str| path(redirect::Path::Full(text.into()));
        let prefix = |text: &str| path(redirect::Path::Prefix(text.into()));
        for (wire, host, uri, expected) in [
            (scheme(""), "shop", "/a?q", "http://shop/a?q"),
            (scheme(""), "shop:8080", "/a", "http://shop:8080/a"),
            (scheme(""), "shop:80", "/a", "http://shop/a"),
            (scheme("https"), "shop", "/a", "https://shop/a"),
            (scheme("https"), "shop:80", "/a", "https://shop/a"),
            (scheme("https"), "shop:8080", "/a", "https://shop:8080/a"),
            (authority("other"), "shop:8080", "/a", "http://other/a"),
            (authority("other:99"), "shop:8080", "/a", "http://other:99/a"),
            (authority("[::1]"), "shop", "/a", "http://[::1]/a"),
            (number(scheme("https"), 443), "shop", "/a", "https://shop/a"),
            (number(scheme(""), 443), "shop", "/a", "http://shop:443/a"),
            (number(scheme(""), 80), "shop:8080", "/a", "http://shop/a"),
            (derived(scheme(""), PortOrigin::Listener), "shop", "/a", "http://shop:8080/a"),
            (derived(scheme(""), PortOrigin::Scheme), "shop:99", "/a", "http://shop/a"),
            (full("/new"), "shop", "/a?q", "http://shop/new?q"),
            (full("/new?x"), "shop", "/a?q", "http://shop/new?x"),
            (full("new"), "shop", "/a", "http://shop/new"),
            (prefix("/new"), "shop", "/a/b?q", "http://shop/new/b?q"),
            (prefix("/"), "shop", "/a", "http://shop/"),
        ] {
            assert_eq!(location(wire.clone(), host, uri), expected, "{wire:?}");
        }
    }

    #[test]
    fn a_redirect_that_leads_nowhere_is_refused() {
        let valid = l7::Redirect { status: 302, ..Default::default() };
        let regex = Some(Kind::Regex("/.*".into()));
        let regex = PathMatch::try_from(l7::PathMatch { kind: regex, ignore_case: false }).unwrap();
        for (wire, field) in [
            (l7::Redirect { status: 200, ..valid.clone() }, "status"),
            (l7::Redirect { scheme: "javascript".into(), ..valid.clone() }, "scheme"),
            (l7::Redirect { authority: "a/b".into(), ..valid.clone() }, "authority"),
            (l7::Redirect { port: Some(redirect::Port::Number(0)), ..valid.clone() }, "number"),
            (l7::Redirect { port: Some(redirect::Port::Derived(0)), ..valid.clone() }, "derived"),
            (l7::Redirect { port: Some(redirect::Port::Derived(9)), ..valid.clone() }, "derived"),
            (
                l7::Redirect { path: Some(redirect::Path::Prefix("/".into())), ..valid.clone() },
                "prefix",
            ),
        ] {
            assert_eq!(Redirect::compile(wire, &regex).unwrap_err().field, field);
        }
    }
}
