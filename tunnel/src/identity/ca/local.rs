//! The embedded CA: one self-signed root in a directory, leaves signed directly by it.

use std::{
    fmt,
    path::Path,
    time::{Duration, SystemTime},
};

use mesh_api::identity::{Identity, TrustDomain};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use super::{
    CaError,
    root_files::{RootFiles, RootPem, unusable},
};
use crate::identity::{
    leaf::{Validity, uri_names},
    svid::Svid,
};

/// Lifetime of a generated root.
const ROOT_LIFETIME: Duration = Duration::from_hours(10 * 365 * 24);

/// How far a certificate's start lies in the past, so that peers whose clocks are behind accept it.
pub const CLOCK_SKEW_TOLERANCE: Duration = Duration::from_mins(1);

/// Random bytes of a serial number (at most 20 octets: RFC 5280 section 4.1.2.2).
const SERIAL_BYTES: usize = 16;

/// The root signs leaves only.
const ROOT_PATH_LENGTH: u8 = 0;

const REPLACE_ROOT: &str =
    "restore root-cert.pem and root-key.pem, or move both away to make a new root";

/// A CA whose root key lives on this machine.
pub struct LocalCa {
    trust_domain: TrustDomain,
    root: CertificateDer<'static>,
    root_validity: Validity,
    issuer: Issuer<'static, KeyPair>,
}

// === impl LocalCa ===

impl LocalCa {
    /// Opens the root in `dir`, or creates one when there is none.
    ///
    /// Processes that call this at the same moment end with the same root.
    pub fn open_or_create(dir: &Path, trust_domain: &TrustDomain) -> Result<Self, CaError> {
        let now = SystemTime::now();
        let files = RootFiles::within(dir);
        let pem = files.load_or_create(|| generate_root(trust_domain, now))?;
        Self::from_pem(&pem, &files, trust_domain, now)
    }

    /// Returns the root certificate.
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// Issues a certificate with a fresh P-256 key to `identity`.
    pub fn issue(
        &self,
        identity: &Identity,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<Svid, CaError> {
        if identity.trust_domain != self.trust_domain {
            return Err(CaError::ForeignIdentity {
                identity: identity.clone(),
                trust_domain: self.trust_domain.clone(),
            });
        }
        let root_end = self.root_validity.not_after;
        if now >= root_end {
            return Err(CaError::RootExpired(self.trust_domain.clone()));
        }
        let not_after = now.checked_add(ttl).map_or(root_end, |end| end.min(root_end));
        let params = leaf_params(identity, now - CLOCK_SKEW_TOLERANCE, not_after)?;
        let key = KeyPair::generate()?;
        let leaf = params.signed_by(&key, &self.issuer)?;
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        Ok(Svid::new(vec![leaf.into()], &key, vec![self.root.clone()])?)
    }

    fn from_pem(
        pem: &RootPem,
        files: &RootFiles,
        trust_domain: &TrustDomain,
        now: SystemTime,
    ) -> Result<Self, CaError> {
        let key = KeyPair::from_pem(&pem.key)
            .map_err(|_| unusable(&files.key, "it holds no private key", REPLACE_ROOT))?;
        let bad = |problem: String| unusable(&files.certificate, problem, REPLACE_ROOT);
        let root = only_certificate(&pem.certificate).map_err(bad)?;
        let root_validity = check_root(&root, &key, trust_domain, now).map_err(bad)?;
        let issuer = Issuer::from_ca_cert_der(&root, key)?;
        Ok(Self { trust_domain: trust_domain.clone(), root, root_validity, issuer })
    }
}

impl fmt::Debug for LocalCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trust_domain, root: _, root_validity, issuer: _ } = self;
        f.debug_struct("LocalCa")
            .field("trust_domain", trust_domain)
            .field("root_validity", root_validity)
            .finish_non_exhaustive()
    }
}

fn generate_root(trust_domain: &TrustDomain, now: SystemTime) -> Result<RootPem, CaError> {
    let serial = random_serial();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    // Distinct names keep an old and a new root apart in tools that show nothing else.
    params.distinguished_name.push(DnType::CommonName, format!("Fairlead root {serial}"));
    params.serial_number = Some(serial);
    params.subject_alt_names = vec![SanType::URI(trust_domain_uri(trust_domain).try_into()?)];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(ROOT_PATH_LENGTH));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = (now - CLOCK_SKEW_TOLERANCE).into();
    params.not_after = (now + ROOT_LIFETIME).into();
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok(RootPem { certificate: certificate.pem(), key: key.serialize_pem() })
}

fn leaf_params(
    identity: &Identity,
    not_before: SystemTime,
    not_after: SystemTime,
) -> Result<CertificateParams, CaError> {
    let mut params = CertificateParams::default();
    // The SAN alone names the workload; it is critical because the subject is empty.
    params.distinguished_name = DistinguishedName::new();
    params.serial_number = Some(random_serial());
    params.subject_alt_names = vec![SanType::URI(identity.to_string().try_into()?)];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    params.not_before = not_before.into();
    params.not_after = not_after.into();
    Ok(params)
}

fn random_serial() -> SerialNumber {
    let mut serial: [u8; SERIAL_BYTES] = rand::random();
    // Positive and of fixed length in DER.
    serial[0] = serial[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&serial)
}

fn trust_domain_uri(trust_domain: &TrustDomain) -> String {
    format!("spiffe://{trust_domain}")
}

fn only_certificate(pem: &str) -> Result<CertificateDer<'static>, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let certificates = certificates.map_err(|error| format!("it is not PEM ({error:?})"))?;
    let count = certificates.len();
    let [only] = <[_; 1]>::try_from(certificates)
        .map_err(|_| format!("it holds {count} certificates where one is needed"))?;
    Ok(only)
}

fn check_root(
    der: &CertificateDer<'_>,
    key: &KeyPair,
    trust_domain: &TrustDomain,
    now: SystemTime,
) -> Result<Validity, String> {
    let malformed = |_| "the certificate is malformed".to_owned();
    let (_, root) =
        X509Certificate::from_der(der).map_err(|_| "the certificate is malformed".to_owned())?;
    let validity = Validity::of(&root).map_err(|error| error.to_string())?;
    if !root.is_ca()
        || !root.key_usage().map_err(malformed)?.is_none_or(|u| u.value.key_cert_sign())
    {
        return Err("the certificate may not sign others".to_owned());
    }
    if root.public_key().raw != key.subject_public_key_info() {
        return Err("the certificate does not belong to the key in root-key.pem".to_owned());
    }
    if now < validity.not_before || now >= validity.not_after {
        return Err("the certificate has expired or is not valid yet".to_owned());
    }
    let names = root.subject_alternative_name().map_err(malformed)?;
    let own = trust_domain_uri(trust_domain);
    let foreign = names.and_then(|names| uri_names(names.value).find(|uri| *uri != own));
    match foreign {
        Some(uri) => Err(format!("the root belongs to {uri}, not to {own}")),
        None => Ok(validity),
    }
}

#[cfg(test)]
#[path = "local_tests.rs"]
mod tests;
