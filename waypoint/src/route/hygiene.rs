//! What applications say in headers that only proxies may say, and what must not pass a proxy.

use std::fmt::Write;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version, header, request::Parts};
use mesh_api::identity::Identity;

/// Identifies a request in logs and traces.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Says whose certificate came with a request, and to whom it was shown.
pub const FORWARDED_CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

/// Longest name of a host with a port, in bytes: of a domain name 253, and `:65535`.
const MAX_AUTHORITY_BYTES: usize = 259;

/// Headers by which proxies tell each other who asks, or tell this one what to do: what an
/// application says in them is not heard.
const RESERVED: [HeaderName; 3] = [
    FORWARDED_CLIENT_CERT,
    HeaderName::from_static("x-forwarded-network"),
    HeaderName::from_static("x-istio-source"),
];

/// Beginning of the names of the headers that control Envoy, and of those that it tells things in.
const CONTROL_PREFIX: &str = "x-envoy-";

/// Headers that are between two neighbours (RFC 9110 7.6.1), whether named in `connection` or not.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("http2-settings"),
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Headers that a message cannot do without, and that `connection` therefore cannot take away: else
/// a client would decide what a policy or an application sees.
const END_TO_END: [HeaderName; 5] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::AUTHORIZATION,
    header::COOKIE,
];

/// Why a request is refused whatever its route says; the answer is 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Neither its target nor a header says whom it is addressed to.
    #[error("the request names no host")]
    NoHost,
    /// It says so twice.
    #[error("the request names several hosts")]
    SeveralHosts,
    /// What it says is no host with an optional port.
    #[error("the request names a host that is none")]
    InvalidHost,
}

/// Makes a request from an application one that can be trusted as far as headers go: one authority,
/// none of the headers that proxies speak in, and an id, made of `random` if it has none.
pub fn sanitise(request: &mut Parts, random: u128) -> Result<(), Malformed> {
    settle_authority(request)?;
    join_cookies(&mut request.headers);
    let reserved: Vec<HeaderName> = reserved(&request.headers).cloned().collect();
    for name in &reserved {
        request.headers.remove(name);
    }
    if !request.headers.contains_key(REQUEST_ID) {
        request.headers.insert(REQUEST_ID, request_id(random));
    }
    Ok(())
}

/// Makes one header of the cookies of a client of HTTP/2, which may send each in its own (RFC 9113
/// 8.2.3): whoever looks at the first, a policy for one, has seen all.
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(header::COOKIE).iter().nth(1).is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> =
        headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    // What values consist of, a value consists of, too.
    if let Ok(cookie) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(header::COOKIE, cookie);
    }
}

/// Returns the value of [`FORWARDED_CLIENT_CERT`] for a request of `client` that came to `own`, as Envoy
/// writes it.
pub fn forwarded_client_cert(own: &Identity, client: &Identity) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("By={own};URI={client}")).ok()
}

/// Removes from a response of an application what only this proxy may say.
pub fn sanitise_response(headers: &mut HeaderMap) {
    let reserved: Vec<HeaderName> = reserved(headers).cloned().collect();
    for name in &reserved {
        headers.remove(name);
    }
}

fn reserved(headers: &HeaderMap) -> impl Iterator<Item = &HeaderName> {
    headers.keys().filter(|name| is_reserved(name))
}

/// Returns whether a name is reserved. To applications that see headers as variables, an underscore
/// in it is a hyphen.
fn is_reserved(name: &HeaderName) -> bool {
    if !name.as_str().contains('_') {
        return RESERVED.contains(name) || name.as_str().starts_with(CONTROL_PREFIX);
    }
    let read = name.as_str().replace('_', "-");
    read.starts_with(CONTROL_PREFIX) || RESERVED.iter().any(|reserved| *reserved == *read)
}

/// Leaves a request with one authority: that of its target, or else of its one host header.
fn settle_authority(request: &mut Parts) -> Result<(), Malformed> {
    let mut hosts = request.headers.get_all(header::HOST).iter();
    let (host, another) = (hosts.next(), hosts.next());
    if another.is_some() {
        return Err(Malformed::SeveralHosts);
    }
    // A target that is a host and nothing else is one of CONNECT (RFC 9112 3.2.3).
    if request.uri.authority().is_some()
        && request.uri.scheme().is_none()
        && request.method != Method::CONNECT
    {
        return Err(Malformed::InvalidHost);
    }
    let authority = match (request.uri.authority(), host) {
        (Some(authority), _) => authority.as_str(),
        (None, Some(host)) => host.to_str().map_err(|_| Malformed::InvalidHost)?,
        (None, None) if request.version <= Version::HTTP_10 => return Ok(()),
        (None, None) => return Err(Malformed::NoHost),
    };
    if !is_authority(authority) {
        return Err(Malformed::InvalidHost);
    }
    // Of two that differ, the application would believe one and this proxy the other.
    if let (Some(authority), Some(host)) = (request.uri.authority(), host)
        && authority.as_str().as_bytes() != host.as_bytes()
    {
        let value =
            HeaderValue::from_str(authority.as_str()).map_err(|_| Malformed::InvalidHost)?;
        request.headers.insert(header::HOST, value);
    }
    Ok(())
}

/// Returns whether a text is a host with an optional port, and nothing else: no user, no path.
fn is_authority(text: &str) -> bool {
    let is_plain = |byte: u8| {
        byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'.' | b'_' | b'~' | b':' | b'[' | b']')
    };
    !text.is_empty() && text.len() <= MAX_AUTHORITY_BYTES && text.bytes().all(is_plain) && {
        let (host, port) = super::split_port(text);
        let port_is_number = port.is_none_or(|port| port.parse::<u16>().is_ok());
        let host_is_one = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => !host.is_empty() && !host.contains([':', '[', ']']),
        };
        port_is_number && host_is_one
    }
}

/// Returns a random UUID (RFC 9562 5.4).
fn request_id(random: u128) -> HeaderValue {
    const VERSION: u128 = 4 << 76;
    const VARIANT: u128 = 2 << 62;
    let bits = random & !(0xf << 76) & !(3 << 62) | VERSION | VARIANT;
    let mut text = String::with_capacity(36);
    for (index, byte) in bits.to_be_bytes().into_iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        // Writing into a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    HeaderValue::from_maybe_shared(Bytes::from(text))
        .unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Removes what is only between two neighbours; returns the protocol that the message asks to be
/// upgraded to, which the caller asks the next neighbour for if it can; an upgrade to HTTP/2 is not
/// heard, for it would hide requests. Of `te` only `trailers` is left, which gRPC needs.
pub fn remove_hop_by_hop(headers: &mut HeaderMap) -> Option<HeaderValue> {
    let named = named_by_connection(headers);
    let upgrade = headers.get(header::UPGRADE).cloned();
    let asks = named.contains(&header::UPGRADE);
    for name in named.iter().filter(|name| !END_TO_END.contains(name)) {
        if *name != header::TE {
            headers.remove(name);
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
    if let Some(te) = headers.remove(header::TE) {
        let mut codings = te.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        if codings.any(|coding| coding.eq_ignore_ascii_case(b"trailers")) {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
    }
    upgrade.filter(|protocol| asks && !protocol.as_bytes().eq_ignore_ascii_case(b"h2c"))
}

/// Returns the headers that `connection` names.
fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn request(uri: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn shown(headers: &HeaderMap) -> Vec<String> {
        let line = |(name, value): (&HeaderName, &HeaderValue)| {
            format!("{name}: {}", value.to_str().unwrap())
        };
        let mut lines: Vec<_> = headers.iter().map(line).collect();
        lines.sort();
        lines
    }

    #[test]
    fn what_only_proxies_may_say_is_not_heard_from_applications() {
        for (name, kept) in [
            ("x-forwarded-client-cert", false),
            ("X-Forwarded-Client-Cert", false),
            ("x-envoy-retry-on", false),
            ("x-envoy-max-retries", false),
            ("x-envoy-upstream-rq-timeout-ms", false),
            ("x-envoy-original-path", false),
            ("x-envoy-attempt-count", false),
            ("x-envoy-anything-new", false),
            ("x-istio-source", false),
            ("x-forwarded-network", false),
            ("x_forwarded_client_cert", false),
            ("x-forwarded_client-cert", false),
            ("x_envoy_original_path", false),
            ("x_forwarded_for", true),
            ("x-forwarded-for", true),
            ("x-b3-traceid", true),
            ("traceparent", true),
            ("baggage", true),
            ("authorization", true),
        ] {
            let mut parts = request("/", &[("host", "a"), (name, "one"), (name, "two")]);
            sanitise(&mut parts, 7).unwrap();
            assert_eq!(parts.headers.contains_key(name), kept, "{name}");
        }
        let mut response = request("/", &[("x-envoy-overloaded", "true"), ("etag", "x")]).headers;
        sanitise_response(&mut response);
        assert_eq!(shown(&response), ["etag: x"]);
    }

    #[test]
    fn who_asks_is_told_as_envoy_tells_it() {
        let [own, client] = ["waypoint", "web"].map(|account| {
            let identity = format!("spiffe://cluster.local/ns/shop/sa/{account}");
            identity.parse::<Identity>().unwrap()
        });
        assert_eq!(
            forwarded_client_cert(&own, &client).unwrap(),
            "By=spiffe://cluster.local/ns/shop/sa/waypoint;\
             URI=spiffe://cluster.local/ns/shop/sa/web"
        );
    }

    #[test]
    fn a_request_has_an_id_its_own_or_a_random_one() {
        let mut parts = request("/", &[("host", "a")]);
        sanitise(&mut parts, u128::MAX).unwrap();
        assert_eq!(parts.headers[REQUEST_ID], "ffffffff-ffff-4fff-bfff-ffffffffffff");
        let mut parts = request("/", &[("host", "a")]);
        sanitise(&mut parts, 0x1234).unwrap();
        assert_eq!(parts.headers[REQUEST_ID], "00000000-0000-4000-8000-000000001234");
        let mut parts = request("/", &[("host", "a"), ("x-request-id", "mine")]);
        sanitise(&mut parts, 1).unwrap();
        assert_eq!(parts.headers[REQUEST_ID], "mine");
    }

    #[test]
    fn cookies_that_come_one_by_one_are_one_header() {
        for (cookies, expected) in [
            (&["a=b"][..], &["cookie: a=b"][..]),
            (&["a=b", "c=d; e=f", "g"], &["cookie: a=b; c=d; e=f; g"]),
            (&[], &[]),
        ] {
            let headers: Vec<_> = cookies.iter().map(|cookie| ("cookie", *cookie)).collect();
            let mut parts = request("http://a/", &headers);
            sanitise(&mut parts, 1).unwrap();
            parts.headers.remove(REQUEST_ID);
            assert_eq!(shown(&parts.headers), expected);
        }
    }

    #[test]
    fn a_request_is_addressed_to_one_host() {
        for (uri, hosts, expected) in [
            ("/", &["a"][..], Ok("a")),
            ("/", &["a:80"], Ok("a:80")),
            ("/", &["[::1]:80"], Ok("[::1]:80")),
            ("http://b/", &["a"], Ok("b")),
            ("http://b/", &[], Ok("b")),
            ("/", &[], Err(Malformed::NoHost)),
            ("/", &["a", "b"], Err(Malformed::SeveralHosts)),
            ("/", &["a", "a"], Err(Malformed::SeveralHosts)),
            ("/", &[""], Err(Malformed::InvalidHost)),
            ("/", &["a b"], Err(Malformed::InvalidHost)),
            ("/", &["a/b"], Err(Malformed::InvalidHost)),
            ("/", &["user@a"], Err(Malformed::InvalidHost)),
            ("http://user@a/", &[], Err(Malformed::InvalidHost)),
            ("a:80", &["a"], Err(Malformed::InvalidHost)),
            ("a", &["a"], Err(Malformed::InvalidHost)),
            ("/", &["a:b"], Err(Malformed::InvalidHost)),
            ("/", &["a:80:80"], Err(Malformed::InvalidHost)),
            ("/", &["a:99999"], Err(Malformed::InvalidHost)),
            ("/", &["[a]"], Err(Malformed::InvalidHost)),
            ("/", &["a,b"], Err(Malformed::InvalidHost)),
        ] {
            let headers: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
            let mut parts = request(uri, &headers);
            let found = sanitise(&mut parts, 1).map(|()| crate::route::authority(&parts));
            assert_eq!(found, expected, "{uri} {hosts:?}");
            if let (Ok(expected), Some(host)) = (expected, parts.headers.get("host")) {
                assert_eq!(host, expected);
            }
        }
    }

    #[test]
    fn what_is_between_neighbours_stays_between_them() {
        for (headers, expected, upgrade) in [
            (&[("a", "1"), ("connection", "close")][..], &["a: 1"][..], None),
            (&[("a", "1"), ("connection", "A, b"), ("b", "2"), ("c", "3")], &["c: 3"], None),
            (&[("connection", "x"), ("connection", "y"), ("x", "1"), ("y", "2")], &[], None),
            (&[("keep-alive", "5"), ("proxy-connection", "x"), ("a", "1")], &["a: 1"], None),
            (&[("transfer-encoding", "chunked"), ("a", "1")], &["a: 1"], None),
            (&[("te", "gzip, Trailers"), ("connection", "te")], &["te: trailers"], None),
            (&[("te", "gzip")], &[], None),
            (&[("connection", "Upgrade"), ("upgrade", "websocket")], &[], Some("websocket")),
            (&[("upgrade", "websocket")], &[], None),
            (&[("connection", "upgrade"), ("upgrade", "h2c"), ("http2-settings", "x")], &[], None),
            (
                &[("connection", "host, authorization"), ("host", "a"), ("authorization", "b")],
                &["authorization: b", "host: a"],
                None,
            ),
            (&[("connection", "a b, \u{7f}"), ("a", "1")], &["a: 1"], None),
        ] {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                let value = HeaderValue::from_bytes(value.as_bytes());
                let Ok(value) = value else { continue };
                map.append(HeaderName::from_static(name), value);
            }
            let asked = remove_hop_by_hop(&mut map);
            assert_eq!(shown(&map), expected, "{headers:?}");
            assert_eq!(asked.as_ref().map(|value| value.to_str().unwrap()), upgrade);
        }
    }
}
