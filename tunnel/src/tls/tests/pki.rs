//! Certificates of every sort, good and bad.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationList,
    CertificateRevocationListParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::identity::svid::Svid;

const HOUR: Duration = Duration::from_hours(1);

/// A CA that signs whatever it is asked to.
pub(crate) struct TestCa {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

/// A certificate with its key.
pub(crate) struct Signed {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) key: KeyPair,
}

impl TestCa {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let params = ca_params("test root");
        let certificate = params.self_signed(&key).unwrap().into();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// Returns a CA certified by this one.
    pub(crate) fn intermediate(&self) -> Self {
        self.intermediate_with(1)
    }

    /// Returns a CA certified by this one under a serial number.
    pub(crate) fn intermediate_with(&self, serial: u64) -> Self {
        let mut params = ca_params("test intermediate");
        params.serial_number = Some(SerialNumber::from(serial));
        let Signed { certificate, key } = self.sign(&params);
        Self { issuer: Issuer::new(params, key), certificate }
    }

    pub(crate) fn root(&self) -> CertificateDer<'static> {
        self.certificate.clone()
    }

    pub(crate) fn sign(&self, params: &CertificateParams) -> Signed {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().into();
        Signed { certificate, key }
    }

    /// Returns a list that revokes the certificates with these serial numbers, and has expired.
    pub(crate) fn revoke(&self, serials: &[u64]) -> CertificateRevocationList {
        let serials = serials.iter().map(|serial| SerialNumber::from(*serial));
        revoke(&self.issuer, serials.collect())
    }

    /// Returns a faultless SVID of this root.
    pub(crate) fn svid(&self, identity: &str) -> Svid {
        let signed = self.sign(&workload_params(identity));
        let key = signed.private_key();
        Svid::new(vec![signed.certificate], &key, vec![self.root()]).unwrap()
    }
}

impl Signed {
    pub(crate) fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.serialize_der().into())
    }
}

/// Returns what a workload's certificate should look like, for tests to spoil.
pub(crate) fn workload_params(spiffe_id: &str) -> CertificateParams {
    let now = SystemTime::now();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![uri(spiffe_id)];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = (now - HOUR).into();
    params.not_after = (now + HOUR).into();
    params
}

/// Returns a list of `issuer` that has expired.
pub(crate) fn revoke(
    issuer: &Issuer<'_, KeyPair>,
    serials: Vec<SerialNumber>,
) -> CertificateRevocationList {
    let now = SystemTime::now();
    let revoked = |serial_number| RevokedCertParams {
        serial_number,
        revocation_time: (now - 2 * HOUR).into(),
        reason_code: None,
        invalidity_date: None,
    };
    let params = CertificateRevocationListParams {
        this_update: (now - 2 * HOUR).into(),
        next_update: (now - HOUR).into(),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: serials.into_iter().map(revoked).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(issuer).unwrap()
}

pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}
