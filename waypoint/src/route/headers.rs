//! What a route changes in the headers of requests and responses.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, header::HOST, request::Parts, uri::Authority};
use mesh_api::{l7::FRAMING_HEADERS, proto::l7};

use super::{
    head::RequestHead,
    invalid::{At, Invalid, Problem, each},
    template::{Facts, Missing, Response, Template, View},
};

/// Changes of headers. Most routes make none, and there are many routes.
#[derive(Clone, Debug, Default)]
pub struct HeaderMutation(Option<Box<Changes>>);

/// Removals first, then what is set, then what is added.
#[derive(Clone, Debug)]
struct Changes {
    remove: Box<[HeaderName]>,
    set: Box<[(HeaderName, Value)]>,
    add: Box<[(HeaderName, Value)]>,
    authority: Option<Value>,
}

#[derive(Clone, Debug)]
enum Value {
    Literal(HeaderValue),
    Template(Template),
}

/// Whose headers are changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    /// The request's, whose host may be changed too.
    Request,
    /// The response's.
    Response,
}

// === impl HeaderMutation ===

impl HeaderMutation {
    /// Compiles changes; absent ones change nothing.
    pub(crate) fn compile(wire: Option<l7::HeaderMutation>, whose: Whose) -> Result<Self, Invalid> {
        let Some(l7::HeaderMutation { set, add, remove }) = wire else { return Ok(Self(None)) };
        let mut authority = None;
        let mut keep = |headers: Vec<l7::Header>, field| -> Result<Box<[_]>, Invalid> {
            let mut kept = Vec::with_capacity(headers.len());
            for compiled in each(headers, field, |header| compile(header, whose))? {
                match compiled {
                    (None, value) => authority = authority.take().or(Some(value)),
                    (Some(name), value) => kept.push((name, value)),
                }
            }
            Ok(kept.into())
        };
        let set = keep(set, "set")?;
        let add = keep(add, "add")?;
        let remove = each(remove, "remove", |name| match header_name(name, whose)? {
            Some(name) => Ok(name),
            None => Err(Problem::HeaderName(HOST.to_string())),
        })?;
        let changes = Changes { remove, set, add, authority };
        Ok(Self((!changes.is_empty()).then(|| Box::new(changes))))
    }

    /// Returns whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Changes the headers of a request.
    pub fn apply_to_request(&self, request: &mut Parts, scheme: &str, facts: &Facts<'_>) {
        let Some(changes) = &self.0 else { return };
        for name in &changes.remove {
            request.headers.remove(name);
        }
        let value = |value: &Value, request: &Parts| {
            let view = View { request: RequestHead::of(request, scheme), response: None, facts };
            value.render(&view)
        };
        for (name, template) in &changes.set {
            if let Some(value) = value(template, request) {
                request.headers.insert(name, value);
            }
        }
        for (name, template) in &changes.add {
            if let Some(value) = value(template, request) {
                request.headers.append(name, value);
            }
        }
    }

    /// Returns the authority that a request gets, if it gets another one.
    pub(crate) fn authority(
        &self,
        request: &Parts,
        scheme: &str,
        facts: &Facts<'_>,
    ) -> Option<HeaderValue> {
        let authority = self.0.as_ref()?.authority.as_ref()?;
        authority.render(&View { request: RequestHead::of(request, scheme), response: None, facts })
    }

    /// Changes the headers of a response; `request` is what was asked.
    pub fn apply_to_response(
        &self,
        response: &mut http::response::Parts,
        request: RequestHead<'_>,
        facts: &Facts<'_>,
    ) {
        let Some(changes) = &self.0 else { return };
        for name in &changes.remove {
            response.headers.remove(name);
        }
        let value = |value: &Value, response: &http::response::Parts| {
            let answer = Response { status: response.status, headers: &response.headers };
            value.render(&View { request, response: Some(answer), facts })
        };
        for (name, template) in &changes.set {
            if let Some(value) = value(template, response) {
                response.headers.insert(name, value);
            }
        }
        for (name, template) in &changes.add {
            if let Some(value) = value(template, response) {
                response.headers.append(name, value);
            }
        }
    }
}

// === impl Changes ===

impl Changes {
    fn is_empty(&self) -> bool {
        let Self { remove, set, add, authority } = self;
        remove.is_empty() && set.is_empty() && add.is_empty() && authority.is_none()
    }
}

/// Compiles a header that is set or added; without a name it stands for the authority.
fn compile(wire: l7::Header, whose: Whose) -> Result<(Option<HeaderName>, Value), Invalid> {
    let name = header_name(wire.name, whose).at("name")?;
    Ok((name, Value::parse(&wire.value).at("value")?))
}

/// Returns the name of a header that may be changed; none for the authority.
fn header_name(name: String, whose: Whose) -> Result<Option<HeaderName>, Problem> {
    match (name.as_str(), whose) {
        ("host" | ":authority", Whose::Request) => return Ok(None),
        ("host", Whose::Response) => return Err(Problem::HeaderName(name)),
        (framing, _) if FRAMING_HEADERS.contains(&framing) => {
            return Err(Problem::HeaderName(name));
        }
        _ => {}
    }
    let parsed = HeaderName::from_lowercase(name.as_bytes());
    parsed.map(Some).map_err(|_| Problem::HeaderName(name))
}

/// Replaces whom a request is addressed to: in its target, its host header, or both.
pub fn set_authority(request: &mut Parts, authority: &HeaderValue) -> Result<(), Problem> {
    if request.uri.authority().is_some() {
        let parsed = Authority::from_maybe_shared(Bytes::copy_from_slice(authority.as_bytes()));
        let shown = || String::from_utf8_lossy(authority.as_bytes()).into_owned();
        let mut uri = request.uri.clone().into_parts();
        uri.authority = Some(parsed.map_err(|_| Problem::Uri(shown()))?);
        request.uri = http::Uri::from_parts(uri).map_err(|_| Problem::Uri(shown()))?;
    }
    if request.uri.authority().is_none() || request.headers.contains_key(HOST) {
        request.headers.insert(HOST, authority.clone());
    }
    Ok(())
}

// === impl Value ===

impl Value {
    fn parse(text: &str) -> Result<Self, Problem> {
        let template = Template::parse(text)?;
        if let Some(literal) = template.as_literal() {
            return Ok(Self::Literal(header_value(literal)?));
        }
        // What is around the properties must be fit for a header too.
        header_value(text)?;
        Ok(Self::Template(template))
    }

    /// Returns the value for a request; none if it is empty, as Envoy leaves out such headers.
    fn render(&self, view: &View<'_>) -> Option<HeaderValue> {
        let value = match self {
            Self::Literal(value) => value.clone(),
            Self::Template(template) => {
                let mut text = String::new();
                template.render(view, Missing::Empty, &mut text);
                HeaderValue::from_maybe_shared(Bytes::from(text)).ok()?
            }
        };
        (!value.is_empty()).then_some(value)
    }
}

fn header_value(text: &str) -> Result<HeaderValue, Problem> {
    HeaderValue::from_str(text).map_err(|_| Problem::HeaderValue)
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Request};

    use super::*;

    fn header(name: &str, value: &str) -> l7::Header {
        l7::Header { name: name.into(), value: value.into() }
    }

    #[expect(clippy::unnecessary_wraps, reason = "fields of messages are optional")]
    fn mutation(
        remove: &[&str],
        set: &[(&str, &str)],
        add: &[(&str, &str)],
    ) -> Option<l7::HeaderMutation> {
        let headers = |list: &[(&str, &str)]| list.iter().map(|(n, v)| header(n, v)).collect();
        let remove = remove.iter().map(ToString::to_string).collect();
        Some(l7::HeaderMutation { set: headers(set), add: headers(add), remove })
    }

    fn shown(headers: &HeaderMap) -> Vec<String> {
        let mut lines: Vec<_> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        lines.sort();
        lines
    }

    #[test]
    fn headers_are_removed_then_set_then_added() {
        let table: [(Option<l7::HeaderMutation>, &[&str]); 9] = [
            (None, &["a: 1", "a: 2", "b: 3"]),
            (mutation(&["a"], &[], &[]), &["b: 3"]),
            (mutation(&[], &[("a", "x")], &[]), &["a: x", "b: 3"]),
            (mutation(&[], &[], &[("a", "x")]), &["a: 1", "a: 2", "a: x", "b: 3"]),
            (mutation(&["a"], &[("a", "x")], &[("a", "y")]), &["a: x", "a: y", "b: 3"]),
            (
                mutation(&[], &[("c", "%REQ(b)%-%REQ(:method)%")], &[]),
                &["a: 1", "a: 2", "b: 3", "c: 3-GET"],
            ),
            (mutation(&[], &[("c", "%REQ(none)%")], &[]), &["a: 1", "a: 2", "b: 3"]),
            (mutation(&["b"], &[("c", "%REQ(b)%")], &[]), &["a: 1", "a: 2"]),
            (mutation(&["none"], &[("b", "100%%")], &[]), &["a: 1", "a: 2", "b: 100%"]),
        ];
        for (wire, expected) in table {
            let compiled = HeaderMutation::compile(wire.clone(), Whose::Request).unwrap();
            let request = Request::builder().header("a", "1").header("a", "2").header("b", "3");
            let (mut parts, ()) = request.body(()).unwrap().into_parts();
            compiled.apply_to_request(&mut parts, "http", &Facts::default());
            assert_eq!(shown(&parts.headers), expected, "{wire:?}");
        }
    }

    #[test]
    fn responses_may_tell_of_the_request_and_of_themselves() {
        let wire = mutation(&["b"], &[("a", "%RESP(a)%+%REQ(q)%+%RESPONSE_CODE%")], &[]);
        let compiled = HeaderMutation::compile(wire, Whose::Response).unwrap();
        let (request, ()) = Request::builder().header("q", "7").body(()).unwrap().into_parts();
        let response = http::Response::builder().status(404).header("a", "1").header("b", "2");
        let (mut response, ()) = response.body(()).unwrap().into_parts();
        let head = RequestHead::of(&request, "http");
        compiled.apply_to_response(&mut response, head, &Facts::default());
        assert_eq!(shown(&response.headers), ["a: 1+7+404"]);
    }

    #[test]
    fn headers_that_frame_a_message_and_what_is_no_header_cannot_be_changed() {
        for (whose, wire) in [
            (Whose::Request, mutation(&[], &[("content-length", "1")], &[])),
            (Whose::Request, mutation(&["transfer-encoding"], &[], &[])),
            (Whose::Request, mutation(&["host"], &[], &[])),
            (Whose::Request, mutation(&[], &[], &[("connection", "close")])),
            (Whose::Request, mutation(&[], &[(":path", "/")], &[])),
            (Whose::Request, mutation(&[], &[("Upper", "x")], &[])),
            (Whose::Request, mutation(&[], &[("", "x")], &[])),
            (Whose::Request, mutation(&[], &[("a", "b\r\nc: d")], &[])),
            (Whose::Request, mutation(&[], &[("a", "%REQ(x)%\n")], &[])),
            (Whose::Request, mutation(&[], &[("a", "%NOTHING%")], &[])),
            (Whose::Response, mutation(&[], &[("host", "x")], &[])),
        ] {
            assert!(HeaderMutation::compile(wire.clone(), whose).is_err(), "{wire:?}");
        }
    }

    #[test]
    fn the_authority_is_replaced_wherever_a_request_has_it() {
        for (uri, host, expected_uri, expected_host) in [
            ("/x", Some("a"), "/x", Some("b:80")),
            ("http://a/x?y", None, "http://b:80/x?y", None),
            ("http://a/x", Some("a"), "http://b:80/x", Some("b:80")),
            ("/x", None, "/x", Some("b:80")),
        ] {
            let mut request = Request::builder().uri(uri);
            if let Some(host) = host {
                request = request.header(HOST, host);
            }
            let (mut parts, ()) = request.body(()).unwrap().into_parts();
            set_authority(&mut parts, &HeaderValue::from_static("b:80")).unwrap();
            assert_eq!(parts.uri.to_string(), expected_uri);
            let host = parts.headers.get(HOST).map(|host| host.to_str().unwrap());
            assert_eq!(host, expected_host);
        }
    }
}
