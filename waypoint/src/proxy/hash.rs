//! What of a request says which endpoint it belongs to. Pure.

use std::net::IpAddr;

use http::{HeaderMap, header::COOKIE, request::Parts};

use crate::balance::{HashKey, Policy, hash};

/// Returns the hash of what `policy` says of a request; none if it says nothing, or the request has
/// nothing of it.
pub(super) fn of(policy: &Policy, request: &Parts, client: IpAddr) -> Option<u64> {
    match policy.hash_key()? {
        HashKey::Header(name) => Some(hash(request.headers.get(&**name)?.as_bytes())),
        HashKey::Cookie(wanted) => Some(hash(cookie(&request.headers, &wanted.name)?.as_bytes())),
        HashKey::SourceIp => Some(hash(client.to_string().as_bytes())),
        HashKey::QueryParameter(name) => {
            let parameters = form_urlencoded::parse(request.uri.query()?.as_bytes());
            let mut values = parameters.filter(|(key, _)| *key == **name);
            values.next().map(|(_, value)| hash(value.as_bytes()))
        }
    }
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
            .header("cookie", "theme=dark; session=\"s1\"")
            .body(())
            .unwrap();
        let (parts, ()) = request.into_parts();
        let client: IpAddr = "10.1.0.2".parse().unwrap();
        let cookie = |name: &str| l7::HashCookie { name: name.into(), ..Default::default() };
        for (key, expected) in [
            (Key::Header("x-user".into()), Some("jason")),
            (Key::Header("x-other".into()), None),
            (Key::Cookie(cookie("session")), Some("s1")),
            (Key::Cookie(cookie("missing")), None),
            (Key::SourceIp(true), Some("10.1.0.2")),
            (Key::QueryParameter("user".into()), Some("a b")),
            (Key::QueryParameter("missing".into()), None),
        ] {
            let expected = expected.map(|text| hash(text.as_bytes()));
            assert_eq!(of(&policy(key.clone()), &parts, client), expected, "{key:?}");
        }
    }
}
