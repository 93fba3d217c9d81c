//! Certificates that a list revokes.

use std::time::Duration;

use rcgen::SerialNumber;
use rustls::AlertDescription;
use tokio::time::timeout;

use super::*;
use crate::tls::RevocationLists;

const LEAF: u64 = 7;
const INTERMEDIATE: u64 = 8;

/// More than any of this takes.
const SOON: Duration = Duration::from_secs(10);

/// A root, an intermediate of it, and a certificate of that.
struct Scene {
    root: TestCa,
    intermediate: TestCa,
    leaf: Signed,
    revocations: Revocations,
}

impl Scene {
    fn new() -> Self {
        let root = TestCa::new();
        let intermediate = root.intermediate_with(INTERMEDIATE);
        let mut params = workload_params(CART);
        params.serial_number = Some(SerialNumber::from(LEAF));
        let leaf = intermediate.sign(&params);
        Self { root, intermediate, leaf, revocations: Revocations::none() }
    }

    fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.leaf.certificate.clone(), self.intermediate.root()]
    }

    /// Returns our own side, to which the lists are known.
    fn own(&self) -> TlsConfigs {
        let svid = self.root.svid(DESK);
        TlsConfigs::new(&svid, &Clock::system(), &self.revocations).unwrap()
    }

    fn revoke(&self, lists: &[rcgen::CertificateRevocationList]) {
        let pem: String = lists.iter().map(|list| list.pem().unwrap()).collect();
        self.revocations.set(RevocationLists::parse(pem.as_bytes()).unwrap());
    }
}

#[test]
fn a_certificate_that_its_issuer_revoked_is_refused_both_ways() {
    let scene = Scene::new();
    let (root, intermediate) = (&scene.root, &scene.intermediate);
    // Signs for another CA of the same name.
    let stranger = root.intermediate_with(9);
    for (what, lists, refused) in [
        ("nothing", vec![intermediate.revoke(&[]), root.revoke(&[])], false),
        ("another one", vec![intermediate.revoke(&[1, 2, 3]), root.revoke(&[LEAF])], false),
        ("the leaf", vec![root.revoke(&[]), intermediate.revoke(&[1, LEAF])], true),
        ("the intermediate", vec![root.revoke(&[INTERMEDIATE])], true),
        ("the leaf, by a stranger", vec![stranger.revoke(&[LEAF])], false),
        (
            "by a stranger and by the issuer",
            vec![stranger.revoke(&[LEAF]), intermediate.revoke(&[LEAF])],
            true,
        ),
    ] {
        scene.revoke(&lists);
        let own = scene.own();
        let knocked = knock_at(&own, scene.chain(), &scene.leaf);
        let called = call_as(&own, scene.chain(), &scene.leaf);
        if refused {
            assert_eq!(failure(&knocked.server_result), HandshakeFailure::Revoked, "{what}");
            let alert = Error::AlertReceived(AlertDescription::CertificateRevoked);
            assert_eq!(knocked.client_result, Err(alert.clone()), "{what}");
            assert_eq!(failure(&called.client_result), HandshakeFailure::Revoked, "{what}");
            assert_eq!(called.server_result, Err(alert), "{what}");
        } else {
            assert_eq!((knocked.server_result, called.client_result), (Ok(()), Ok(())), "{what}");
        }
    }
}

#[test]
fn lists_that_come_later_count_for_the_next_handshake_and_go_again() {
    let scene = Scene::new();
    let own = scene.own();
    let knocks = || knock_at(&own, scene.chain(), &scene.leaf).server_result.is_ok();
    assert!(knocks());
    scene.revoke(&[scene.intermediate.revoke(&[LEAF])]);
    assert!(!knocks());
    scene.revocations.set(RevocationLists::default());
    assert!(knocks());
}

#[tokio::test]
async fn an_open_connection_learns_of_the_revocation_of_its_peer() {
    let scene = Scene::new();
    let own = scene.own();
    let shown = scene.chain();
    let (client, as_client) = own.check_client(Some(&shown)).unwrap();
    assert_eq!(client, id(CART));
    let as_server = own.check_server(Some(&shown), &[id(CART)]).unwrap();
    scene.revoke(&[scene.intermediate.revoke(&[1])]);
    assert!(!as_client.is_revoked() && !as_server.is_revoked());
    let later = async { scene.revoke(&[scene.intermediate.revoke(&[LEAF])]) };
    let both = async { tokio::join!(as_client.revoked(), as_server.revoked(), later) };
    timeout(SOON, both).await.unwrap();
    assert_eq!(own.check_client(Some(&shown)).unwrap_err(), PeerError::Revoked);
    assert_eq!(own.check_server(Some(&shown), &[id(CART)]).unwrap_err(), PeerError::Revoked);
}

#[test]
fn the_own_certificate_may_be_the_one_that_is_revoked() {
    let scene = Scene::new();
    let key = scene.leaf.private_key();
    let svid = Svid::new(scene.chain(), &key, vec![scene.root.root()]).unwrap();
    let own = TlsConfigs::new(&svid, &Clock::system(), &scene.revocations).unwrap();
    assert!(!own.own_chain().is_revoked());
    scene.revoke(&[scene.intermediate.revoke(&[LEAF])]);
    assert!(own.own_chain().is_revoked());
}

#[test]
fn lists_are_pem_blocks_or_one_list_as_der() {
    let ca = TestCa::new();
    let (one, two) = (ca.revoke(&[1]), ca.revoke(&[2]));
    let (one_pem, two_pem) = (one.pem().unwrap(), two.pem().unwrap());
    let count = |bytes: &[u8]| {
        RevocationLists::parse(bytes).map(|lists| lists.len()).map_err(|error| error.to_string())
    };
    assert_eq!(count(one_pem.as_bytes()), Ok(1));
    assert_eq!(count(format!("# two\n{one_pem}\n{two_pem}").as_bytes()), Ok(2));
    assert_eq!(count(one.der()), Ok(1));
    let certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let broken = one_pem.replacen('M', "!", 1);
    let cut = &one.der()[..40];
    for (what, bytes, expected) in [
        ("nothing", &b""[..], "no revocation list"),
        ("white space", b" \n", "no revocation list"),
        ("a certificate", certificate.as_bytes(), "no revocation list"),
        ("broken PEM", broken.as_bytes(), "broken PEM"),
        ("words", b"revoked: all", "list 1 cannot be used"),
        ("half a list", cut, "list 1 cannot be used"),
    ] {
        let error = count(bytes).unwrap_err();
        assert!(error.starts_with(expected), "{what}: {error}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_lists_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = RevocationLists::parse(&bytes);
    }
}
