//! The CONNECT request of a tunnel stream and the headers that describe its ends.

mod baggage;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use http::{HeaderMap, HeaderValue, Method, Request, Version, header::HeaderName};
use mesh_api::workload::{Network, Workload};

pub use self::baggage::Baggage;
use self::baggage::baggage;
use crate::limits::{MAX_FORWARDED_BYTES, MAX_TRACEPARENT_BYTES};

const BAGGAGE: HeaderName = HeaderName::from_static("baggage");
const FORWARDED: HeaderName = http::header::FORWARDED;
const X_FORWARDED_NETWORK: HeaderName = HeaderName::from_static("x-forwarded-network");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Longest host name, in bytes (RFC 1035 section 2.3.4).
const MAX_HOSTNAME_BYTES: usize = 253;

/// What the headers say of the client. Only ever a hint: any peer may write anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forwarded {
    /// Address of the client's socket.
    pub client: Option<SocketAddr>,
    /// Host name of the service that the client connected to.
    pub host: Option<String>,
    /// Network of the client, if the stream came through the gateway of another one.
    pub network: Option<String>,
    /// What a client of another network says of its workload.
    pub baggage: Option<Box<Baggage>>,
}

/// What a CONNECT asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authority<'a> {
    /// An address.
    Address(SocketAddr),
    /// A port of a service, by its host name.
    Name(&'a str, u16),
}

/// Returns the CONNECT request that opens a stream to `authority`.
pub fn connect_request(
    authority: Authority<'_>,
    client: SocketAddr,
    source: &Workload,
    host: Option<&str>,
) -> Result<Request<()>, http::Error> {
    let mut forwarded = format!("for=\"{client}\"");
    // The peer does without a name that it could take for more than a name.
    if let Some(host) = host.filter(|host| is_hostname(host)) {
        forwarded.push_str(";host=");
        forwarded.push_str(host);
    }
    Request::builder()
        .method(Method::CONNECT)
        .uri(authority.to_string())
        .version(Version::HTTP_2)
        .header(BAGGAGE, baggage(source))
        .header(FORWARDED, never_again(forwarded)?)
        .header(TRACEPARENT, never_again(traceparent())?)
        .body(())
}

/// Adds the header that says which network the client is on, behind the gateway of another one.
pub fn from_network(headers: &mut HeaderMap, network: &Network) {
    if let Ok(value) = HeaderValue::from_str(&network.0) {
        headers.insert(X_FORWARDED_NETWORK, value);
    }
}

/// Makes a value that is left out of the compression table: no other stream will have it, and it
/// would push out what all have.
fn never_again(value: String) -> Result<HeaderValue, http::Error> {
    let mut value = HeaderValue::try_from(value)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Adds the header that describes the destination to the answer of a stream.
pub fn describe(headers: &mut HeaderMap, destination: &Workload) {
    if let Ok(value) = HeaderValue::from_str(&baggage(destination)) {
        headers.insert(BAGGAGE, value);
    }
}

/// Parses the authority of a CONNECT: an address or a host name, and a port that is not 0.
pub fn parse_authority(authority: &str) -> Option<Authority<'_>> {
    match authority.parse() {
        Ok(address) => checked(address).map(Authority::Address),
        Err(_) => parse_name(authority),
    }
}

fn parse_name(authority: &str) -> Option<Authority<'_>> {
    let (hostname, port) = authority.split_once(':')?;
    // What begins otherwise is a number to some, and not to others.
    let is_plain = !port.starts_with('+');
    let port = port.parse().ok().filter(|port| *port != 0)?;
    (is_plain && is_hostname(hostname)).then_some(Authority::Name(hostname, port))
}

fn is_hostname(text: &str) -> bool {
    let is_part = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_');
    (1..=MAX_HOSTNAME_BYTES).contains(&text.len()) && text.bytes().all(is_part)
}

fn checked(parsed: SocketAddr) -> Option<SocketAddr> {
    let scoped = matches!(parsed, SocketAddr::V6(v6) if v6.scope_id() != 0);
    (parsed.port() != 0 && !scoped)
        .then(|| SocketAddr::new(parsed.ip().to_canonical(), parsed.port()))
}

/// Parses the first `forwarded` element (RFC 7239) and the client's network; what is malformed is
/// left out.
pub fn parse_forwarded(headers: &HeaderMap) -> Forwarded {
    let text = |name| headers.get(name).and_then(forwarded_text);
    let network = text(X_FORWARDED_NETWORK).map(str::to_owned);
    // Within the network its address says more.
    let baggage = network.as_ref().map(|_| Box::new(Baggage::parse(headers)));
    let mut forwarded = Forwarded { network, baggage, ..Forwarded::default() };
    let Some(text) = text(FORWARDED) else { return forwarded };
    let first = text.split(',').next().unwrap_or_default();
    for pair in first.split(';') {
        let Some((name, value)) = pair.split_once('=') else { continue };
        let value = value.trim().trim_matches('"');
        match name.trim().to_ascii_lowercase().as_str() {
            "for" => forwarded.client = value.parse().ok(),
            "host" => forwarded.host = Some(value.to_owned()),
            _ => {}
        }
    }
    forwarded
}

/// Returns the names of headers that are too long or no text: they are left out.
pub fn unreadable(headers: &HeaderMap) -> impl Iterator<Item = &'static str> {
    let is_any = |name: HeaderName, text: fn(&HeaderValue) -> Option<&str>| {
        headers.get_all(name).iter().any(|value| text(value).is_none())
    };
    let forwarded =
        is_any(FORWARDED, forwarded_text) || is_any(X_FORWARDED_NETWORK, forwarded_text);
    let baggage = is_any(BAGGAGE, Baggage::readable);
    let traceparent = is_any(TRACEPARENT, |value| readable(value, MAX_TRACEPARENT_BYTES));
    [("forwarded", forwarded), ("baggage", baggage), ("traceparent", traceparent)]
        .into_iter()
        .filter_map(|(name, is_unreadable)| is_unreadable.then_some(name))
}

fn forwarded_text(value: &HeaderValue) -> Option<&str> {
    readable(value, MAX_FORWARDED_BYTES)
}

fn readable(value: &HeaderValue, most: usize) -> Option<&str> {
    (value.len() <= most).then_some(value)?.to_str().ok()
}

/// W3C trace context: version 00, fresh ids, not sampled.
fn traceparent() -> String {
    let (trace, span): (u128, u64) = (rand::random(), rand::random());
    format!("00-{trace:032x}-{span:016x}-00")
}

/// Returns the client's socket address to use towards the application: the tunnel's peer, with the
/// client's own port if the header names one for the same address.
pub fn client_address(peer: IpAddr, forwarded: &Forwarded) -> SocketAddr {
    match forwarded.client {
        Some(client) if client.ip().to_canonical() == peer => SocketAddr::new(peer, client.port()),
        _ => SocketAddr::new(peer, 0),
    }
}

// === impl Authority ===

impl fmt::Display for Authority<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Name(hostname, port) => write!(f, "{hostname}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::MAX_BAGGAGE_BYTES;

    #[test]
    fn an_authority_is_an_address_or_a_name_and_a_port() {
        for (text, expected) in [
            ("10.0.0.1:80", Some("10.0.0.1:80")),
            ("[fd00::1]:80", Some("[fd00::1]:80")),
            ("[::ffff:10.0.0.1]:80", Some("10.0.0.1:80")),
            ("10.0.0.1:0", None),
            ("10.0.0.1:65536", None),
            ("10.0.0.1", None),
            ("[fe80::1%1]:80", None),
            ("user@10.0.0.1:80", None),
            ("fd00::1:80", None),
            ("", None),
            (&"1".repeat(1 << 20), None),
        ] {
            let expected = expected.map(|e| Authority::Address(e.parse().unwrap()));
            assert_eq!(parse_authority(text), expected, "{}", &text[..text.len().min(40)]);
        }
        let longest = "a".repeat(MAX_HOSTNAME_BYTES);
        for (text, expected) in [
            ("web.shop:80", Some(("web.shop", 80))),
            ("Web_1.shop-2:65535", Some(("Web_1.shop-2", 65535))),
            (&format!("{longest}:80"), Some((longest.as_str(), 80))),
            (&format!("{longest}a:80"), None),
            ("web.shop:0", None),
            ("web.shop:+80", None),
            ("web.shop:65536", None),
            ("web.shop:80:80", None),
            ("web.shop", None),
            (":80", None),
            ("a b:80", None),
            ("w\u{eb}b:80", None),
        ] {
            let expected = expected.map(|(name, port)| Authority::Name(name, port));
            assert_eq!(parse_authority(text), expected, "{text}");
        }
    }

    #[test]
    fn a_forwarded_header_is_a_hint_that_may_be_malformed() {
        let parse = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(FORWARDED, HeaderValue::from_str(text).unwrap());
            let Forwarded { client, host, .. } = parse_forwarded(&headers);
            (client.map(|c| c.to_string()), host)
        };
        let client = Some("10.0.0.1:4242".to_owned());
        assert_eq!(parse("for=\"10.0.0.1:4242\""), (client.clone(), None));
        let host = Some("web.shop".to_owned());
        assert_eq!(parse("for=\"10.0.0.1:4242\";host=web.shop"), (client.clone(), host));
        assert_eq!(parse("For=10.0.0.1:4242, for=1.1.1.1"), (client, None));
        let v6 = Some("[fd00::1]:1".to_owned());
        assert_eq!(parse("for=\"[fd00::1]:1\""), (v6, None));
        for bad in ["", "for", "for=", "for=unknown", ";;;=", "host"] {
            assert_eq!(parse(bad).0, None, "{bad}");
        }
        let long = format!("for=\"10.0.0.1:1\";x={}", "y".repeat(2000));
        for bad in [&long, "for=\"10.0.0.1:1\";host=\u{eb}"] {
            assert_eq!(parse(bad), (None, None), "{bad}");
            for name in [FORWARDED, X_FORWARDED_NETWORK] {
                let headers = HeaderMap::from_iter([(name, HeaderValue::from_str(bad).unwrap())]);
                assert!(unreadable(&headers).eq(["forwarded"]), "{bad}");
            }
        }
        let long = "x".repeat(MAX_BAGGAGE_BYTES + 1);
        for (name, expected) in [(BAGGAGE, "baggage"), (TRACEPARENT, "traceparent")] {
            for bad in [long.as_bytes(), b"\xff"] {
                let value = HeaderValue::from_bytes(bad).unwrap();
                assert!(unreadable(&HeaderMap::from_iter([(name.clone(), value)])).eq([expected]));
            }
        }
        assert_eq!(unreadable(&HeaderMap::new()).count(), 0);
    }

    #[test]
    fn a_peer_takes_no_name_for_more_than_a_name() {
        let address = "10.0.0.1:80".parse().unwrap();
        let written = |host: &str, cluster: &str| {
            let wire = mesh_api::proto::workload::Workload {
                uid: "u".to_owned(),
                namespace: "shop".to_owned(),
                service_account: "front".to_owned(),
                cluster_id: cluster.to_owned(),
                addresses: vec![vec![10, 0, 0, 1].into()],
                ..Default::default()
            };
            let workload = Workload::try_from(wire).unwrap();
            let request =
                connect_request(Authority::Address(address), address, &workload, Some(host))
                    .unwrap();
            let text = |name: HeaderName| request.headers()[name].to_str().unwrap().to_owned();
            (text(FORWARDED), text(BAGGAGE))
        };
        let (forwarded, baggage) = written("web.shop", "c1");
        assert_eq!(forwarded, "for=\"10.0.0.1:80\";host=web.shop");
        assert!(baggage.starts_with("k8s.cluster.name=c1,k8s.namespace.name=shop"), "{baggage}");
        for odd in ["a;for=\"10.9.9.9:1\"", "a,for=1.1.1.1", "\"", "a b", "a\nb", "\u{eb}"] {
            let (forwarded, baggage) = written(odd, odd);
            assert_eq!(forwarded, "for=\"10.0.0.1:80\"", "{odd:?}");
            assert!(baggage.starts_with("k8s.namespace.name=shop"), "{baggage}");
        }
    }

    #[test]
    fn the_network_of_a_client_is_read_as_it_was_written() {
        for network in ["", "west", "a b"] {
            let mut headers = HeaderMap::new();
            from_network(&mut headers, &Network(network.into()));
            assert_eq!(parse_forwarded(&headers).network.as_deref(), Some(network));
        }
        let mut headers = HeaderMap::new();
        assert_eq!(parse_forwarded(&headers).network, None);
        from_network(&mut headers, &Network("a\nb".into()));
        assert_eq!(parse_forwarded(&headers).network, None, "no header has that");
        from_network(&mut headers, &Network("x".repeat(MAX_FORWARDED_BYTES + 1).into()));
        assert_eq!(parse_forwarded(&headers).network, None, "too long");
    }

    #[test]
    fn the_client_port_counts_only_for_the_tunnels_own_peer() {
        let peer = "10.0.0.1".parse().unwrap();
        let from = |client: &str| Forwarded { client: client.parse().ok(), ..Forwarded::default() };
        let (own, forged) = (from("10.0.0.1:4242"), from("10.0.0.9:4242"));
        assert_eq!(client_address(peer, &own).to_string(), "10.0.0.1:4242");
        assert_eq!(client_address(peer, &forged).to_string(), "10.0.0.1:0");
    }
}
