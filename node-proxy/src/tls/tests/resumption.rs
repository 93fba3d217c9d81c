//! Sessions that are resumed, and those that must not be.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use fairlead_component::clock::Clock;
use mesh_api::identity::TrustDomain;
use rustls::HandshakeKind;
use tempfile::TempDir;

use super::{CART, DESK, EARLY_REQUEST, Outcome, failure, handshake, id, plaintext};
use crate::{
    identity::LocalCa,
    tls::{HandshakeFailure, PeerError, TlsConfigs},
};

const HOUR: Duration = Duration::from_hours(1);

/// A CA, and a clock that the test moves.
struct Scene {
    ca: LocalCa,
    now: Arc<Mutex<SystemTime>>,
    _dir: TempDir,
}

// === impl Scene ===

impl Scene {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let ca = LocalCa::open_or_create(dir.path(), &TrustDomain::default()).unwrap();
        Self { ca, now: Arc::new(Mutex::new(SystemTime::now())), _dir: dir }
    }

    fn configs(&self, identity: &str, lifetime: Duration) -> TlsConfigs {
        let svid = self.ca.issue(&id(identity), lifetime, *self.now.lock().unwrap()).unwrap();
        let now = self.now.clone();
        TlsConfigs::new(&svid, &Clock::new(move || *now.lock().unwrap())).unwrap()
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
        assert_eq!(cart.check_client(outcome.server.peer_certificates()), Ok(id(DESK)));
        let shown = outcome.client.peer_certificates();
        assert_eq!(desk.check_server(shown, &[id(CART)]), Ok(()));
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
    assert_eq!(cart.check_client(shown), Err(PeerError::Expired));
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
