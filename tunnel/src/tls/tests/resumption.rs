//! Sessions that are resumed, and those that must not be.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use fairlead_component::clock::Clock;
use mesh_api::identity::TrustDomain;
use rcgen::{Issuer, KeyPair, SerialNumber};
use rustls::HandshakeKind;
use tempfile::TempDir;

use super::{CART, DESK, EARLY_REQUEST, Outcome, failure, handshake, id, pki, plaintext};
use crate::{
    identity::LocalCa,
    tls::{HandshakeFailure, PeerError, RevocationLists, Revocations, TlsConfigs},
};

const HOUR: Duration = Duration::from_hours(1);

/// A CA, and a clock that the test moves.
struct Scene {
    ca: LocalCa,
    now: Arc<Mutex<SystemTime>>,
    revocations: Revocations,
    dir: TempDir,
}

// === impl Scene ===

impl Scene {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let ca = LocalCa::open_or_create(dir.path(), &TrustDomain::default()).unwrap();
        let (now, revocations) = (Arc::new(Mutex::new(SystemTime::now())), Revocations::none());
        Self { ca, now, revocations, dir }
    }

    fn configs(&self, identity: &str, lifetime: Duration) -> TlsConfigs {
        self.with_serial(identity, lifetime).0
    }

    fn with_serial(&self, identity: &str, lifetime: Duration) -> (TlsConfigs, SerialNumber) {
        let svid = self.ca.issue(&id(identity), lifetime, *self.now.lock().unwrap()).unwrap();
        let serial = svid.leaf().serial.replace(':', "");
        let serial = u128::from_str_radix(&serial, 16).unwrap().to_be_bytes();
        let now = self.now.clone();
        let clock = Clock::new(move || *now.lock().unwrap());
        let configs = TlsConfigs::new(&svid, &clock, &self.revocations).unwrap();
        (configs, SerialNumber::from_slice(&serial))
    }

    fn revoke(&self, serial: SerialNumber) {
        let read = |name| std::fs::read_to_string(self.dir.path().join(name)).unwrap();
        let key = KeyPair::from_pem(&read("root-key.pem")).unwrap();
        let issuer = Issuer::from_ca_cert_pem(&read("root-cert.pem"), key).unwrap();
        let list = pki::revoke(&issuer, vec![serial]);
        self.revocations.set(RevocationLists::parse(list.der()).unwrap());
    }

    fn wait(&self, time: Duration) {
        *self.now.lock().unwrap() += time;
    }
}

fn meet(client: &TlsConfigs, server: &TlsConfigs) -> Outcome {
    handshake(client.client(&[id(CART)]), server.server())
}

fn kinds(outcome: &Outcome) -> [Option<HandshakeKind>; 2] {
    assert_eq!((&outcome.client_result, &outcome.server_result), (&Ok(()), &Ok(())));
    [outcome.client.handshake_kind(), outcome.server.handshake_kind()]
}

const FULL: [Option<HandshakeKind>; 2] = [Some(HandshakeKind::Full); 2];
const RESUMED: [Option<HandshakeKind>; 2] = [Some(HandshakeKind::Resumed); 2];

#[test]
fn a_second_tunnel_of_a_pair_resumes_the_session_of_the_first() {
    let scene = Scene::new();
    let (cart, desk) = (scene.configs(CART, HOUR), scene.configs(DESK, HOUR));
    assert_eq!(kinds(&meet(&desk, &cart)), FULL);
    for _ in 0..5 {
        let mut outcome = meet(&desk, &cart);
        assert_eq!(kinds(&outcome), RESUMED);
        let (client, _) = cart.check_client(outcome.server.peer_certificates()).unwrap();
        assert_eq!(client, id(DESK));
        assert!(desk.check_server(outcome.client.peer_certificates(), &[id(CART)]).is_ok());
        assert_eq!(plaintext(&mut outcome.server), EARLY_REQUEST);
    }
}

#[test]
fn a_session_is_of_its_expected_identities_only() {
    let scene = Scene::new();
    let (cart, desk) = (scene.configs(CART, HOUR), scene.configs(DESK, HOUR));
    assert_eq!(kinds(&meet(&desk, &cart)), FULL);
    let outcome = handshake(desk.client(&[id(DESK)]), cart.server());
    assert_eq!(failure(&outcome.client_result), HandshakeFailure::PeerIdentity);
    let outcome = handshake(desk.client(&[id(DESK), id(CART)]), cart.server());
    assert_eq!(kinds(&outcome), FULL);
    let shown = outcome.client.peer_certificates();
    assert!(matches!(
        desk.check_server(shown, &[id(DESK)]),
        Err(PeerError::UnexpectedIdentity { .. })
    ));
}

#[test]
fn a_renewed_certificate_of_either_side_ends_its_sessions() {
    let scene = Scene::new();
    let (cart, desk) = (scene.configs(CART, HOUR), scene.configs(DESK, HOUR));
    assert_eq!(kinds(&meet(&desk, &cart)), FULL);
    assert_eq!(kinds(&meet(&desk, &scene.configs(CART, HOUR))), FULL);
    assert_eq!(kinds(&meet(&scene.configs(DESK, HOUR), &cart)), FULL);
}

#[test]
fn a_session_ends_with_the_certificate_of_the_server() {
    let scene = Scene::new();
    let (cart, desk) = (scene.configs(CART, HOUR), scene.configs(DESK, 3 * HOUR));
    assert_eq!(kinds(&meet(&desk, &cart)), FULL);
    scene.wait(2 * HOUR);
    let outcome = meet(&desk, &cart);
    assert_eq!(failure(&outcome.client_result), HandshakeFailure::Expired);
}

#[test]
fn a_session_ends_with_the_certificate_of_the_client() {
    let scene = Scene::new();
    let (cart, desk) = (scene.configs(CART, 3 * HOUR), scene.configs(DESK, HOUR));
    assert_eq!(kinds(&meet(&desk, &cart)), FULL);
    scene.wait(2 * HOUR);
    let outcome = meet(&desk, &cart);
    assert_eq!(kinds(&outcome), RESUMED, "the server learns who it is before it can judge");
    let shown = outcome.server.peer_certificates();
    assert_eq!(cart.check_client(shown).unwrap_err(), PeerError::Expired);
}

#[test]
fn a_session_ends_with_the_revocation_of_either_side() {
    for revoked in [CART, DESK] {
        let scene = Scene::new();
        let (cart, of_cart) = scene.with_serial(CART, HOUR);
        let (desk, of_desk) = scene.with_serial(DESK, HOUR);
        assert_eq!(kinds(&meet(&desk, &cart)), FULL);
        scene.revoke(if revoked == CART { of_cart } else { of_desk });
        let outcome = meet(&desk, &cart);
        assert_eq!(kinds(&outcome), RESUMED, "who it is has to be known first");
        let (client, server) =
            (outcome.server.peer_certificates(), outcome.client.peer_certificates());
        let by_server = cart.check_client(client).map(|_| ());
        let by_client = desk.check_server(server, &[id(CART)]).map(|_| ());
        let (good, bad) = (Ok(()), Err(PeerError::Revoked));
        let expected = if revoked == CART { (good, bad) } else { (bad, good) };
        assert_eq!((by_server, by_client), expected, "{revoked}");
    }
}

#[test]
fn sets_of_peers_beyond_the_bound_are_served_all_the_same() {
    let scene = Scene::new();
    let (cart, desk) = (scene.configs(CART, HOUR), scene.configs(DESK, HOUR));
    for n in 0..200 {
        let other = id(&format!("spiffe://cluster.local/ns/shop/sa/other-{n}"));
        let outcome = handshake(desk.client(&[id(CART), other]), cart.server());
        assert_eq!(kinds(&outcome), FULL);
    }
}
