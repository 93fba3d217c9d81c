//! Handshakes with good peers and with every sort of bad one.

pub(crate) mod pki;
mod resumption;
mod revocation;
pub(crate) mod wire;

use std::{
    sync::{Arc, LazyLock},
    time::{Duration, Instant, SystemTime},
};

use fairlead_component::clock::Clock;
use mesh_api::identity::{Identity, TrustDomain};
use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, IsCa,
    KeyUsagePurpose, SanType,
};
use rustls::{
    AlertDescription, CipherSuite, Connection, Error, ProtocolVersion, ServerConnection,
    pki_types::CertificateDer,
};

use self::{
    pki::{Signed, TestCa, uri, workload_params},
    wire::{
        EARLY_REQUEST, Outcome, PEER, feed, handshake, plaintext, reckless_client, reckless_server,
        tls12_client_hello,
    },
};
use super::{HandshakeFailure, PeerError, Revocations, TlsConfigs, peer_identity};
use crate::identity::{LocalCa, Svid};

const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";
const DESK: &str = "spiffe://cluster.local/ns/shop/sa/desk";

/// More than a handshake takes on a slow machine, less than a path-building explosion.
const BOUNDED: Duration = Duration::from_secs(2);

fn id(text: &str) -> Identity {
    text.parse().unwrap()
}

fn configs(svid: &Svid) -> TlsConfigs {
    TlsConfigs::new(svid, &Clock::system(), &Revocations::none()).unwrap()
}

fn failure(result: &Result<(), Error>) -> HandshakeFailure {
    result.as_ref().unwrap_err().into()
}

/// Lets a peer with `chain` knock at our server; the server's request bytes must stay unread.
fn knock(ca: &TestCa, chain: Vec<CertificateDer<'static>>, signed: &Signed) -> Outcome {
    knock_at(&configs(&ca.svid(DESK)), chain, signed)
}

fn knock_at(own: &TlsConfigs, chain: Vec<CertificateDer<'static>>, signed: &Signed) -> Outcome {
    let server = own.server();
    let mut outcome = handshake(reckless_client(Some((chain, signed))).into(), server);
    if outcome.server_result.is_err() {
        assert_eq!(plaintext(&mut outcome.server), b"");
    }
    outcome
}

/// Lets our client, which expects `CART`, call a peer with `chain`.
fn call(ca: &TestCa, chain: Vec<CertificateDer<'static>>, signed: &Signed) -> Outcome {
    call_as(&configs(&ca.svid(DESK)), chain, signed)
}

fn call_as(own: &TlsConfigs, chain: Vec<CertificateDer<'static>>, signed: &Signed) -> Outcome {
    let client = own.client(&[id(CART)]);
    let mut outcome = handshake(client, reckless_server(chain, signed));
    if outcome.client_result.is_err() {
        assert_eq!(plaintext(&mut outcome.server), b"");
    }
    outcome
}

#[test]
fn both_sides_learn_the_identity_of_the_other() {
    let ca = TestCa::new();
    let (cart, desk) = (configs(&ca.svid(CART)), configs(&ca.svid(DESK)));
    let mut outcome = handshake(desk.client(&[id(CART)]), cart.server());
    assert_eq!(outcome.client_result, Ok(()));
    assert_eq!(outcome.server_result, Ok(()));
    assert_eq!(peer_identity(outcome.client.peer_certificates()), Ok(id(CART)));
    assert_eq!(peer_identity(outcome.server.peer_certificates()), Ok(id(DESK)));
    assert_eq!(plaintext(&mut outcome.server), EARLY_REQUEST);
    for side in [&outcome.client, &outcome.server] {
        assert_eq!(side.alpn_protocol(), Some(&b"h2"[..]));
        assert_eq!(side.protocol_version(), Some(ProtocolVersion::TLSv1_3));
        let suite = side.negotiated_cipher_suite().unwrap().suite();
        assert_eq!(suite, CipherSuite::TLS13_AES_128_GCM_SHA256);
    }
    let Connection::Server(server) = outcome.server else { unreachable!() };
    assert_eq!(server.server_name(), None, "the client sends no name");
}

#[test]
fn one_of_several_expected_identities_may_answer() {
    let ca = TestCa::new();
    let (cart, desk) = (configs(&ca.svid(CART)), configs(&ca.svid(DESK)));
    let outcome = handshake(desk.client(&[id(DESK), id(CART)]), cart.server());
    assert_eq!((outcome.client_result, outcome.server_result), (Ok(()), Ok(())));
}

#[test]
fn a_valid_workload_that_was_not_expected_gets_an_alert_and_no_byte() {
    let ca = TestCa::new();
    let (cart, desk) = (configs(&ca.svid(CART)), configs(&ca.svid(DESK)));
    for expected in [&[][..], &[id(DESK)]] {
        let mut outcome = handshake(desk.client(expected), cart.server());
        assert_eq!(failure(&outcome.client_result), HandshakeFailure::PeerIdentity);
        assert_eq!(failure(&outcome.server_result), HandshakeFailure::RefusedByPeer);
        assert_eq!(plaintext(&mut outcome.server), b"");
    }
}

#[test]
fn a_client_without_a_certificate_is_refused() {
    let server = configs(&TestCa::new().svid(CART)).server();
    let mut outcome = handshake(reckless_client(None).into(), server);
    assert_eq!(failure(&outcome.server_result), HandshakeFailure::NoPeerCert);
    let alert = Error::AlertReceived(AlertDescription::CertificateRequired);
    assert_eq!(outcome.client_result, Err(alert));
    assert_eq!(plaintext(&mut outcome.server), b"");
}

#[test]
fn a_client_of_another_trust_domain_is_refused_even_with_our_root() {
    let ca = TestCa::new();
    let signed = ca.sign(&workload_params("spiffe://elsewhere/ns/shop/sa/cart"));
    let outcome = knock(&ca, vec![signed.certificate.clone()], &signed);
    assert_eq!(failure(&outcome.server_result), HandshakeFailure::PeerIdentity);
    let shown = format!("{:?}", outcome.server_result);
    assert!(shown.contains("elsewhere"), "{shown}");
}

/// Certificates that our own root signed and that are refused all the same.
fn spoiled() -> Vec<(&'static str, CertificateParams, HandshakeFailure)> {
    let mut cases = Vec::new();
    for (what, names) in [
        ("two URIs", vec![uri(CART), uri(DESK)]),
        ("the URI twice", vec![uri(CART), uri(CART)]),
        ("a DNS name only", vec![dns("cart.shop")]),
        ("no name", vec![]),
        ("no workload", vec![uri("spiffe://cluster.local")]),
        ("dots", vec![uri("spiffe://cluster.local/ns/../sa/b")]),
    ] {
        let mut params = workload_params(CART);
        params.subject_alt_names = names;
        cases.push((what, params, HandshakeFailure::PeerIdentity));
    }
    let mut params = workload_params(CART);
    params.key_usages = vec![KeyUsagePurpose::KeyAgreement];
    cases.push(("no signatures", params, HandshakeFailure::PeerIdentity));
    cases.extend(spoiled_for_the_chain());
    cases
}

/// The part of [`spoiled`] that chain verification refuses.
fn spoiled_for_the_chain()
-> impl Iterator<Item = (&'static str, CertificateParams, HandshakeFailure)> {
    let now = SystemTime::now();
    let with = |spoil: &dyn Fn(&mut CertificateParams)| {
        let mut params = workload_params(CART);
        spoil(&mut params);
        params
    };
    let ca = with(&|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    let purpose = with(&|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning]);
    let expired = with(&|p| p.not_after = (now - Duration::from_secs(1)).into());
    let early = with(&|p| p.not_before = (now + Duration::from_mins(1)).into());
    [
        ("a CA", ca, HandshakeFailure::UntrustedPeer),
        ("another purpose", purpose, HandshakeFailure::UntrustedPeer),
        ("expired 1 s ago", expired, HandshakeFailure::Expired),
        ("valid in a minute", early, HandshakeFailure::Expired),
    ]
    .into_iter()
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

#[test]
fn spoiled_client_certificates_end_in_an_alert_before_any_request() {
    let ca = TestCa::new();
    for (what, params, expected) in spoiled() {
        let signed = ca.sign(&params);
        let outcome = knock(&ca, vec![signed.certificate.clone()], &signed);
        assert_eq!(failure(&outcome.server_result), expected, "{what}");
        assert_eq!(failure(&outcome.client_result), HandshakeFailure::RefusedByPeer, "{what}");
    }
}

#[test]
fn spoiled_server_certificates_end_in_an_alert_before_any_request() {
    let ca = TestCa::new();
    for (what, params, expected) in spoiled() {
        let signed = ca.sign(&params);
        let outcome = call(&ca, vec![signed.certificate.clone()], &signed);
        assert_eq!(failure(&outcome.client_result), expected, "{what}");
        assert_eq!(failure(&outcome.server_result), HandshakeFailure::RefusedByPeer, "{what}");
    }
}

#[test]
fn a_chain_to_an_unknown_root_is_refused_both_ways() {
    let (ca, other) = (TestCa::new(), TestCa::new());
    let signed = other.sign(&workload_params(CART));
    let chain = vec![signed.certificate.clone(), other.root()];
    let knocked = knock(&ca, chain.clone(), &signed);
    assert_eq!(failure(&knocked.server_result), HandshakeFailure::UntrustedPeer);
    let called = call(&ca, chain, &signed);
    assert_eq!(failure(&called.client_result), HandshakeFailure::UntrustedPeer);
}

#[test]
fn a_certificate_shown_with_a_foreign_key_is_refused() {
    let ca = TestCa::new();
    let stolen = ca.sign(&workload_params(CART)).certificate;
    let thief = ca.sign(&workload_params(DESK));
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&thief.private_key()).unwrap();
    let pair = Arc::new(rustls::sign::CertifiedKey::new(vec![stolen], key));
    let mut client = reckless_client(None);
    client.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(pair));
    let outcome = handshake(client.into(), configs(&ca.svid(DESK)).server());
    assert_eq!(failure(&outcome.server_result), HandshakeFailure::UntrustedPeer);
}

#[test]
fn an_intermediate_is_accepted_both_ways() {
    let ca = TestCa::new();
    let intermediate = ca.intermediate();
    let signed = intermediate.sign(&workload_params(CART));
    let chain = vec![signed.certificate.clone(), intermediate.root()];
    assert_eq!(knock(&ca, chain.clone(), &signed).server_result, Ok(()));
    assert_eq!(call(&ca, chain, &signed).client_result, Ok(()));
}

#[test]
fn a_hundred_intermediates_cost_nothing() {
    let ca = TestCa::new();
    let signed = ca.sign(&workload_params(CART));
    let mut chain = vec![signed.certificate.clone()];
    chain.extend((0..100).map(|_| ca.intermediate().root()));
    let start = Instant::now();
    let knocked = knock(&ca, chain.clone(), &signed);
    let called = call(&ca, chain.clone(), &signed);
    assert!(start.elapsed() < BOUNDED, "{:?}", start.elapsed());
    assert_eq!(failure(&knocked.server_result), HandshakeFailure::UntrustedPeer);
    assert_eq!(failure(&called.client_result), HandshakeFailure::UntrustedPeer);

    chain.truncate(1 + crate::limits::MAX_INTERMEDIATES);
    assert_eq!(knock(&ca, chain, &signed).server_result, Ok(()));
}

#[test]
fn a_chain_beyond_64_kilobytes_is_refused_unread() {
    let ca = TestCa::new();
    let signed = ca.sign(&workload_params(CART));
    let mut bulky = workload_params(CART);
    let oid = [1, 3, 6, 1, 4, 1, 1];
    bulky.custom_extensions = vec![CustomExtension::from_oid_content(&oid, vec![0; 30_000])];
    let bulky = ca.sign(&bulky).certificate;
    let chain = vec![signed.certificate.clone(), bulky.clone(), bulky.clone(), bulky];
    let start = Instant::now();
    let outcome = knock(&ca, chain, &signed);
    assert!(start.elapsed() < BOUNDED, "{:?}", start.elapsed());
    assert_eq!(failure(&outcome.server_result), HandshakeFailure::Other);
}

#[test]
fn a_client_that_knows_tls_1_2_only_gets_the_right_alert() {
    let server = configs(&TestCa::new().svid(CART)).server();
    let mut server = Connection::from(ServerConnection::new(server).unwrap());
    let result = feed(&mut server, &tls12_client_hello());
    assert_eq!(failure(&result), HandshakeFailure::ProtocolVersion);
    let mut answer = Vec::new();
    server.write_tls(&mut answer).unwrap();
    let (alert, fatal, protocol_version) = (0x15, 2, 70);
    assert_eq!(answer[0], alert);
    assert_eq!(answer[5..], [fatal, protocol_version]);
}

#[test]
fn a_client_that_offers_no_http_2_is_refused() {
    let ca = TestCa::new();
    let signed = ca.sign(&workload_params(CART));
    let mut client = reckless_client(Some((vec![signed.certificate.clone()], &signed)));
    client.alpn_protocols = vec![b"http/1.1".to_vec()];
    let outcome = handshake(client.into(), configs(&ca.svid(DESK)).server());
    assert_eq!(failure(&outcome.server_result), HandshakeFailure::Alpn);
    assert_eq!(failure(&outcome.client_result), HandshakeFailure::Alpn);
}

#[test]
fn clocks_may_differ_by_a_minute_and_no_more() {
    let dir = tempfile::TempDir::new().unwrap();
    let ca = LocalCa::open_or_create(dir.path(), &TrustDomain::default()).unwrap();
    let issued = SystemTime::now();
    let hour = Duration::from_hours(1);
    let minute = Duration::from_mins(1);
    let second = Duration::from_secs(1);
    let cart = ca.issue(&id(CART), hour, issued).unwrap();
    let desk = ca.issue(&id(DESK), 2 * hour, issued).unwrap();
    let meets = |now: SystemTime| {
        let server = TlsConfigs::new(&desk, &Clock::new(move || now), &Revocations::none())
            .unwrap()
            .server();
        handshake(configs(&cart).client(&[id(DESK)]), server).server_result
    };
    for (what, now, accepted) in [
        ("5 min behind", issued - 5 * minute, false),
        ("61 s behind", issued - minute - second, false),
        ("59 s behind", issued - minute + second, true),
        ("5 min ahead", issued + 5 * minute, true),
        ("just before the end", issued + hour - second, true),
        ("just after the end", issued + hour + second, false),
    ] {
        let result = meets(now);
        assert_eq!(result.is_ok(), accepted, "{what}: {result:?}");
        if !accepted {
            assert_eq!(failure(&result), HandshakeFailure::Expired, "{what}");
        }
    }
}

#[test]
fn a_connection_without_certificates_has_no_peer() {
    assert_eq!(peer_identity(None), Err(PeerError::NoPeerCertificate));
    assert_eq!(peer_identity(Some(&[])), Err(PeerError::NoPeerCertificate));
}

#[test]
fn debug_output_of_the_configurations_holds_no_key() {
    let ca = TestCa::new();
    let signed = ca.sign(&workload_params(CART));
    let key = signed.private_key();
    let svid = Svid::new(vec![signed.certificate.clone()], &key, vec![ca.root()]).unwrap();
    let shown = format!("{:?}", configs(&svid));
    let secret = &key.secret_der()[36..68];
    let decimal = format!("{:?}", &secret[..4]);
    assert!(!shown.contains(decimal.trim_matches(['[', ']'])));
}

static SERVER: LazyLock<TlsConfigs> = LazyLock::new(|| configs(&TestCa::new().svid(CART)));

proptest! {
    #[test]
    fn random_bytes_instead_of_a_hello_never_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..1024)
    ) {
        let mut server = Connection::from(ServerConnection::new(SERVER.server()).unwrap());
        let _ = feed(&mut server, &bytes);
        prop_assert!(server.is_handshaking());
        prop_assert_eq!(plaintext(&mut server), b"");
    }

    #[test]
    fn a_damaged_hello_never_panics(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)
    ) {
        let client = SERVER.client(&[]);
        let mut client = rustls::ClientConnection::new(client, super::server_name(PEER)).unwrap();
        let mut hello = Vec::new();
        client.write_tls(&mut hello).unwrap();
        for (index, byte) in damage {
            let position = index.index(hello.len());
            hello[position] = byte;
        }
        let mut server = Connection::from(ServerConnection::new(SERVER.server()).unwrap());
        let _ = feed(&mut server, &hello);
        prop_assert!(server.is_handshaking());
    }
}
