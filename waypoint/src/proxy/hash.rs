//! What of a request says which endpoint it belongs to. Pure.

use std::{fmt::Write as _, net::IpAddr};

use http::{HeaderMap, HeaderValue, header::COOKIE, request::Parts};

use super::http::SCHEME;
use crate::{
    balance::{HashKey, Policy, hash},
    route::authority,
};

/// Returns the hash of what `policy` says of a request; none if it says nothing, or the request has
/// nothing of it.
pub(super) fn of(policy: &Policy, request: &Parts, client: IpAddr) -> Option<u64> {
    match policy.hash_key()? {
        HashKey::Header(name) => header(request, name),
        HashKey::Cookie(wanted) => Some(hash(cookie(&request.headers, &wanted.name)?.as_bytes())),
        HashKey::SourceIp => Some(hash(client.to_string().as_bytes())),
        HashKey::QueryParameter(name) => {
            let parameters = form_urlencoded::parse(request.uri.query()?.as_bytes());
            let mut values = parameters.filter(|(key, _)| *key == **name);
            values.next().map(|(_, value)| hash(value.as_bytes()))
        }
    }
}

/// Returns the hash of a connection that is no HTTP, of which only the client is known.
pub(super) fn of_connection(policy: &Policy, client: IpAddr) -> Option<u64> {
    match policy.hash_key()? {
        HashKey::SourceIp => Some(hash(client.to_string().as_bytes())),
        HashKey::Header(_) | HashKey::Cookie(_) | HashKey::QueryParameter(_) => None,
    }
}

/// Returns the hash of a header, in whatever order it has several values; HTTP/2 has some headers of
/// its own, which are as good for HTTP/1.
fn header(request: &Parts, name: &str) -> Option<u64> {
    match name {
        ":authority" | "host" => Some(hash(authority(request).as_bytes())),
        ":method" => Some(hash(request.method.as_str().as_bytes())),
        ":scheme" => Some(hash(SCHEME.as_bytes())),
        ":path" => Some(hash(request.uri.path_and_query()?.as_str().as_bytes())),
        name => {
            let values = request.headers.get_all(name).iter().map(HeaderValue::as_bytes);
            let mut values: Vec<_> = values.collect();
            values.sort_unstable();
            (!values.is_empty()).then(|| hash(&values.concat()))
        }
    }
}

/// Returns the cookie that a client without one is given, made of `random`, and its hash; none if
/// `policy` wants none made.
pub(super) fn new_cookie(policy: &Policy, random: u64) -> Option<(u64, HeaderValue)> {
    let HashKey::Cookie(wanted) = policy.hash_key()? else { return None };
    let ttl = wanted.ttl?;
    let value = format!("{random:016x}");
    let mut cookie = format!("{}=\"{value}\"", wanted.name);
    // Writing to a string never fails.
    if !ttl.is_zero() {
        let _ = write!(cookie, "; Max-Age={}", ttl.as_secs());
    }
    if !wanted.path.is_empty() {
        let _ = write!(cookie, "; Path={}", wanted.path);
    }
    for (name, value) in &wanted.attributes {
        let _ = match &**value {
            "" => write!(cookie, "; {name}"),
            value => write!(cookie, "; {name}={value}"),
        };
    }
    cookie += "; HttpOnly";
    Some((hash(value.as_bytes()), HeaderValue::try_from(cookie).ok()?))
}

/// Returns the value of a cookie (RFC 6265 section 4.2.1).
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use mesh_api::proto::l7::{self, consistent_hash::Key, load_balancer::Algorithm};

    use super::*;

    fn policy(key: Key) -> Policy {
        let hash = l7::ConsistentHash { key: Some(key), table: None };
        let algorithm = Some(Algorithm::ConsistentHash(hash));
        let load_balancer = Some(l7::LoadBalancer { algorithm, ..Default::default() });
        Policy::try_from(&l7::Variant { load_balancer, ..Default::default() }).unwrap()
    }

    #[test]
    fn the_hash_is_of_what_the_policy_names() {
        let request = http::Request::get("http://shop/cart?user=a%20b&user=c")
            .header("x-user", "jason")
            .header("x-role", "reader")
            .header("x-role", "editor")
            .header("cookie", "theme=dark; session=\"s1\"")
            .body(())
            .unwrap();
        let (parts, ()) = request.into_parts();
        let client: IpAddr = "10.1.0.2".parse().unwrap();
        let cookie = |name: &str| l7::HashCookie { name: name.into(), ..Default::default() };
        for (key, expected) in [
            (Key::Header("x-user".into()), Some("jason")),
            (Key::Header("x-other".into()), None),
            (Key::Header("x-role".into()), Some("editorreader")),
            (Key::Header(":authority".into()), Some("shop")),
            (Key::Header("host".into()), Some("shop")),
            (Key::Header(":path".into()), Some("/cart?user=a%20b&user=c")),
            (Key::Header(":method".into()), Some("GET")),
            (Key::Cookie(cookie("session")), Some("s1")),
            (Key::Cookie(cookie("missing")), None),
            (Key::SourceIp(true), Some("10.1.0.2")),
            (Key::QueryParameter("user".into()), Some("a b")),
            (Key::QueryParameter("missing".into()), None),
        ] {
            let expected = expected.map(|text| hash(text.as_bytes()));
            assert_eq!(of(&policy(key.clone()), &parts, client), expected, "{key:?}");
            let is_of_client = key == Key::SourceIp(true);
            let of_connection = of_connection(&policy(key), client);
            assert_eq!(of_connection, expected.filter(|_| is_of_client));
        }
    }

    #[test]
    fn a_cookie_is_made_where_the_policy_has_a_lifetime_for_it() {
        let cookie = |path: &str, ttl: Option<i64>| {
            let ttl = ttl.map(|seconds| prost_types::Duration { seconds, nanos: 0 });
            let (name, path) = ("user".into(), path.into());
            Key::Cookie(l7::HashCookie { name, path, ttl, ..Default::default() })
        };
        let attribute = |name: &str, value: &str| l7::CookieAttribute {
            name: name.into(),
            value: value.into(),
        };
        let attributes = vec![attribute("SameSite", "Lax"), attribute("Secure", "")];
        let Key::Cookie(plain) = cookie("/", Some(0)) else { unreachable!() };
        let with_attributes = Key::Cookie(l7::HashCookie { attributes, ..plain });
        let value = "00000000000000ff";
        for (key, expected) in [
            (cookie("", Some(0)), Some("user=\"00000000000000ff\"; HttpOnly")),
            (
                cookie("/cart", Some(60)),
                Some("user=\"00000000000000ff\"; Max-Age=60; Path=/cart; HttpOnly"),
            ),
            (
                with_attributes,
                Some("user=\"00000000000000ff\"; Path=/; SameSite=Lax; Secure; HttpOnly"),
            ),
            (cookie("/cart", None), None),
            (Key::Header("user".into()), None),
        ] {
            let made = new_cookie(&policy(key.clone()), 255);
            let expected = expected.map(|text| (hash(value.as_bytes()), text.parse().unwrap()));
            assert_eq!(made, expected, "{key:?}");
        }
    }
}
