//! Certificates, clocks and workloads for tests.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fairlead_component::clock::Clock;
use mesh_api::identity::Identity;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use super::super::{
    authority::{Authority, AuthorityOptions},
    sign::Subject,
};
use crate::telemetry::metrics::Metrics;

pub(super) const HOUR: Duration = Duration::from_hours(1);
pub(super) const DAY: Duration = Duration::from_hours(24);

/// A clock that a test moves.
#[derive(Clone)]
pub(super) struct TestClock(Arc<Mutex<SystemTime>>);

/// A certificate that may sign others.
pub(super) struct TestCa {
    pub(super) certificate: String,
    pub(super) key: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A workload with its certificate and the roots that came with it.
pub(super) struct TestWorkload {
    chain: Vec<CertificateDer<'static>>,
    roots: Vec<CertificateDer<'static>>,
    pub(super) renew_at: SystemTime,
}

// === impl TestClock ===

impl TestClock {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(SystemTime::now())))
    }

    pub(super) fn now(&self) -> SystemTime {
        *self.0.lock().unwrap()
    }

    pub(super) fn advance(&self, time: Duration) {
        *self.0.lock().unwrap() += time;
    }

    pub(super) fn open(&self, directory: &Path) -> Arc<Authority> {
        let options = AuthorityOptions { max_ttl: DAY, ..AuthorityOptions::default() };
        let this = self.clone();
        let clock = Clock::new(move || this.now());
        Authority::open(directory, options, clock, Arc::new(Metrics::new())).unwrap()
    }
}

// === impl TestCa ===

impl TestCa {
    pub(super) fn root(name: &str) -> Self {
        let (params, key) = ca_params(name);
        let certificate = params.self_signed(&key).unwrap().pem();
        Self::new(certificate, params, key)
    }

    pub(super) fn intermediate(&self, name: &str) -> Self {
        let (params, key) = ca_params(name);
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Self::new(certificate, params, key)
    }

    fn new(certificate: String, params: CertificateParams, key: KeyPair) -> Self {
        Self { certificate, key: key.serialize_pem(), issuer: Issuer::new(params, key) }
    }

    pub(super) fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }
}

fn ca_params(name: &str) -> (CertificateParams, KeyPair) {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params, KeyPair::generate().unwrap())
}

// === impl TestWorkload ===

impl TestWorkload {
    pub(super) fn certified_by(authority: &Authority, now: SystemTime) -> Self {
        let key = KeyPair::generate().unwrap();
        let subject = Subject::Workload(identity("spiffe://cluster.local/ns/shop/sa/cart"));
        let (issued, bundle) = authority.issue(&subject, &key, DAY).unwrap();
        let roots = bundle.roots().to_vec();
        Self { chain: issued.chain, roots, renew_at: now + DAY / 2 }
    }

    pub(super) fn trusts(&self, peer: &Self, now: SystemTime) -> Result<(), webpki::Error> {
        let (leaf, intermediates) = peer.chain.split_first().unwrap();
        let anchors: Vec<_> =
            self.roots.iter().map(|root| anchor_from_trusted_cert(root).unwrap()).collect();
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let now = UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).unwrap());
        EndEntityCert::try_from(leaf)?.verify_for_usage(
            provider.signature_verification_algorithms.all,
            &anchors,
            intermediates,
            now,
            KeyUsage::server_auth(),
            None,
            None,
        )?;
        Ok(())
    }
}

pub(super) fn identity(text: &str) -> Identity {
    text.parse().unwrap()
}

/// Returns the parameters of a request for the given names.
pub(super) fn request_for(names: &[SanType]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = names.to_vec();
    params
}

pub(super) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

/// Writes the files of an authority.
pub(super) fn write(directory: &Path, files: &[(&str, &str)]) {
    for (name, content) in files {
        let path = directory.join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }
}
