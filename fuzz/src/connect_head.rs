//! The head of a CONNECT: what a peer may write, and what is written for peers.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use fairlead_tunnel::{
    hbone::headers::{
        Authority, Baggage, client_address, connect_request, parse_authority, parse_forwarded,
    },
    limits::MAX_BAGGAGE_BYTES,
};
use http::{HeaderMap, HeaderName, HeaderValue, header::FORWARDED};
use mesh_api::{proto, workload::Workload};

const BAGGAGE: HeaderName = HeaderName::from_static("baggage");

/// Address of the peer that reads and of the client that writes.
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 0, 2));

/// Entries that a description of a workload has at most.
const MAX_ENTRIES: usize = 7;

/// The lines of the input are an authority, a `forwarded` header, a host name, and the names of a
/// workload.
pub fn connect_head(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let mut next = || lines.next().unwrap_or_default();
    let (asked, forwarded) = (next(), next());
    authority(&String::from_utf8_lossy(asked));
    hint(forwarded);
    let mut next = || String::from_utf8_lossy(next()).into_owned();
    let host = next();
    let wire = proto::workload::Workload {
        uid: next(),
        namespace: next(),
        service_account: next(),
        cluster_id: next(),
        workload_name: next(),
        canonical_name: next(),
        canonical_revision: next(),
        locality: Some(proto::workload::Locality { region: next(), zone: next(), subzone: next() }),
        addresses: vec![vec![10, 1, 0, 2].into()],
        ..Default::default()
    };
    if let Ok(workload) = Workload::try_from(wire) {
        head(&workload, Some(&*host).filter(|host| !host.is_empty()));
    }
}

/// What is taken for an authority means the same when it is written again.
fn authority(text: &str) {
    match parse_authority(text) {
        Some(Authority::Address(address)) => {
            assert!(address.port() != 0 && address.ip() == address.ip().to_canonical());
            assert_eq!(parse_authority(&address.to_string()), Some(Authority::Address(address)));
        }
        Some(Authority::Name(name, port)) => {
            assert_ne!(port, 0);
            let again = format!("{name}:{port}");
            assert_eq!(parse_authority(&again), Some(Authority::Name(name, port)));
        }
        None => {}
    }
}

/// Whatever the hint says, the client is the tunnel's peer.
fn hint(value: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(value) else { return };
    let mut headers = HeaderMap::new();
    headers.insert(BAGGAGE, value.clone());
    headers.insert("x-forwarded-network", HeaderValue::from_static("elsewhere"));
    headers.insert(FORWARDED, value);
    let forwarded = parse_forwarded(&headers);
    assert_eq!(client_address(PEER, &forwarded).ip(), PEER);
    let baggage = forwarded.baggage.unwrap_or_else(|| panic!("no baggage"));
    for name in [&baggage.cluster, &baggage.service, &baggage.revision] {
        assert!(name.len() < MAX_BAGGAGE_BYTES && !name.contains([',', '"', ' ']), "{name}");
    }
}

/// What is written for a peer says what it should, and nothing that a name smuggles in.
fn head(workload: &Workload, host: Option<&str>) {
    let client = SocketAddr::new(PEER, 4242);
    let target = SocketAddr::new(PEER, 80);
    let request = connect_request(Authority::Address(target), client, workload, host);
    let request = request.unwrap_or_else(|error| panic!("{workload:?}: {error}"));
    let asked = request.uri().authority().map(http::uri::Authority::as_str);
    assert_eq!(asked.and_then(parse_authority), Some(Authority::Address(target)));
    let forwarded = parse_forwarded(request.headers());
    assert_eq!(forwarded.client, Some(client), "{host:?}");
    assert!(forwarded.host.is_none() || forwarded.host.as_deref() == host, "{forwarded:?}");
    let baggage = request.headers().get(BAGGAGE).map(HeaderValue::to_str);
    let Some(Ok(baggage)) = baggage else { panic!("{baggage:?}") };
    let entries: Vec<&str> = baggage.split(',').collect();
    assert!(entries.len() <= MAX_ENTRIES, "{baggage}");
    for entry in entries {
        let (key, value) = entry.split_once('=').unwrap_or_default();
        assert!(key.contains('.') && !value.is_empty(), "{baggage}");
    }
    // Names of any length are written, and those of a usual one are understood.
    if baggage.len() <= MAX_BAGGAGE_BYTES {
        let known = Baggage::parse(request.headers());
        let known = known.workload(workload.identity.clone(), workload.network.clone());
        let again = connect_request(Authority::Address(target), client, &known, None);
        let again = again.unwrap_or_else(|error| panic!("{known:?}: {error}"));
        assert_eq!(again.headers().get(BAGGAGE), request.headers().get(BAGGAGE));
    }
}
