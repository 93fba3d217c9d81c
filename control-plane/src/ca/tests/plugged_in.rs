use std::path::Path;

use fairlead_component::clock::Clock;
use mesh_api::identity::TrustDomain;
use rcgen::{CertificateRevocationListParams, KeyIdMethod, SerialNumber};

use super::{
    super::{
        authority::{Authority, AuthorityOptions},
        error::CaError,
        history::Premature,
    },
    pki::{HOUR, TestCa, TestClock, TestWorkload, write},
};
use crate::telemetry::metrics::Metrics;

fn plug_in(directory: &Path, signer: &TestCa, chain: &[&TestCa], roots: &[&TestCa]) {
    let joined = |all: &[&TestCa]| all.iter().map(|ca| ca.certificate.as_str()).collect::<String>();
    write(
        directory,
        &[
            ("ca-cert.pem", &signer.certificate),
            ("ca-key.pem", &signer.key),
            ("cert-chain.pem", &joined(chain)),
            ("root-cert.pem", &joined(roots)),
        ],
    );
}

fn open(directory: &Path) -> Result<(), CaError> {
    let options = AuthorityOptions { trust_domain: TrustDomain::default(), ..Default::default() };
    let metrics = std::sync::Arc::new(Metrics::new());
    Authority::open(directory, options, Clock::system(), metrics).map(drop)
}

#[test]
fn an_intermediate_signs_and_its_chain_goes_along_without_the_root() {
    let directory = tempfile::tempdir().unwrap();
    let root = TestCa::root("root");
    let upper = root.intermediate("upper");
    let lower = upper.intermediate("lower");
    // As Istio's own instructions make it: from the signer to the root.
    plug_in(directory.path(), &lower, &[&lower, &upper, &root], &[&root]);
    let clock = TestClock::new();
    let authority = clock.open(directory.path());
    assert!(authority.bundle().is_plugged_in());
    let workload = TestWorkload::certified_by(&authority, clock.now());
    workload.trusts(&workload, clock.now()).unwrap();
    assert_eq!(authority.bundle().roots().len(), 1);
}

#[test]
fn files_that_do_not_fit_are_refused() {
    let (root, other) = (TestCa::root("root"), TestCa::root("other"));
    let signer = root.intermediate("signer");
    let lower = signer.intermediate("lower");
    let refused = |files: &[(&str, &str)]| {
        let directory = tempfile::tempdir().unwrap();
        plug_in(directory.path(), &signer, &[&signer, &root], &[&root]);
        write(directory.path(), files);
        open(directory.path()).unwrap_err()
    };
    let unusable = |files: &[(&str, &str)]| {
        let error = refused(files);
        let CaError::Unusable { file, .. } = error else { panic!("{error}") };
        file
    };
    assert_eq!(unusable(&[("ca-key.pem", &other.key)]), "ca-cert.pem");
    assert_eq!(unusable(&[("ca-key.pem", "x")]), "ca-key.pem");
    assert_eq!(unusable(&[("ca-cert.pem", "x")]), "ca-cert.pem");
    assert_eq!(unusable(&[("cert-chain.pem", "x")]), "cert-chain.pem");
    assert_eq!(unusable(&[("root-cert.pem", "x")]), "root-cert.pem");
    assert_eq!(unusable(&[("ca-crl.pem", "x")]), "ca-crl.pem");
    assert_eq!(unusable(&[("rotation", "x")]), "rotation");
    let foreign_root = [("root-cert.pem", other.certificate.as_str())];
    assert!(matches!(refused(&foreign_root), CaError::DoesNotVerify(_)));
    let gap = [
        ("ca-cert.pem", lower.certificate.as_str()),
        ("ca-key.pem", &lower.key),
        ("cert-chain.pem", &lower.certificate),
    ];
    assert!(matches!(refused(&gap), CaError::DoesNotVerify(_)));
}

#[test]
fn roots_without_a_signer_are_not_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let root = TestCa::root("root");
    write(directory.path(), &[("root-cert.pem", &root.certificate)]);
    let error = open(directory.path()).unwrap_err();
    assert!(matches!(error, CaError::Unusable { file: "ca-cert.pem", .. }), "{error}");
    let kept = std::fs::read_to_string(directory.path().join("root-cert.pem")).unwrap();
    assert_eq!(kept, root.certificate);
}

#[test]
fn a_key_that_others_may_use_is_refused() {
    use std::{fs, os::unix::fs::PermissionsExt as _};
    let directory = tempfile::tempdir().unwrap();
    open(directory.path()).unwrap();
    let key = directory.path().join("ca-key.pem");
    for (name, mode) in [("ca-key.pem", 0o600), ("ca-cert.pem", 0o600), ("root-cert.pem", 0o644)] {
        let metadata = fs::metadata(directory.path().join(name)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, mode, "{name}");
    }
    fs::set_permissions(key, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(open(directory.path()), Err(CaError::Unusable { file: "ca-key.pem", .. })));
}

#[test]
fn the_steps_of_a_rotation_are_taken_in_their_order_only() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let (a, b) = (TestCa::root("a"), TestCa::root("b"));
    let (signer_a, signer_b) = (a.intermediate("of a"), b.intermediate("of b"));
    let clock = TestClock::new();
    plug_in(path, &signer_a, &[&signer_a], &[&a]);
    let authority = clock.open(path);
    let early = TestWorkload::certified_by(&authority, clock.now());
    let premature = |authority: &Authority| {
        let error = authority.refresh().unwrap_err();
        let CaError::Premature(premature) = error else { panic!("{error}") };
        premature
    };

    plug_in(path, &signer_b, &[&signer_b], &[&a, &b]);
    assert_eq!(premature(&authority), Premature::UnknownRoot);
    assert_eq!(authority.bundle().roots().len(), 1, "it goes on as before");

    plug_in(path, &signer_a, &[&signer_a], &[&a, &b]);
    authority.refresh().unwrap();
    let middle = TestWorkload::certified_by(&authority, clock.now());
    plug_in(path, &signer_b, &[&signer_b], &[&a, &b]);
    assert!(matches!(premature(&authority), Premature::NotSpread(_)));
    early.trusts(&TestWorkload::certified_by(&authority, clock.now()), clock.now()).unwrap();

    clock.advance(HOUR * 20);
    let last_of_a = TestWorkload::certified_by(&authority, clock.now());
    clock.advance(HOUR * 6);
    authority.refresh().unwrap();
    let late = TestWorkload::certified_by(&authority, clock.now());
    middle.trusts(&late, clock.now()).unwrap();
    late.trusts(&last_of_a, clock.now()).unwrap();
    plug_in(path, &signer_b, &[&signer_b], &[&b]);
    assert!(matches!(premature(&authority), Premature::InUse(_)));
    clock.advance(HOUR * 26);
    authority.refresh().unwrap();
    assert_eq!(authority.bundle().roots().len(), 1);
}

#[test]
fn revoked_certificates_are_passed_on() {
    let directory = tempfile::tempdir().unwrap();
    let root = TestCa::root("root");
    let now = std::time::SystemTime::now();
    let list = CertificateRevocationListParams {
        this_update: now.into(),
        next_update: (now + HOUR).into(),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let crl = list.signed_by(root.issuer()).unwrap().pem().unwrap();
    plug_in(directory.path(), &root, &[&root], &[&root]);
    let authority = TestClock::new().open(directory.path());
    assert_eq!(authority.bundle().crl(), None);
    write(directory.path(), &[("ca-crl.pem", &crl)]);
    authority.refresh().unwrap();
    assert_eq!(authority.bundle().crl(), Some(crl.as_str()));
}
