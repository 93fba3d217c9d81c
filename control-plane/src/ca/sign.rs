//! Signs leaf certificates.

use std::{
    net::IpAddr,
    time::{Duration, SystemTime},
};

use mesh_api::identity::{Identity, TrustDomain};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;

use super::{contents::SignerPem, error::CaError};

/// Lifetime of a workload's certificate unless wished otherwise (Istio's default).
pub const DEFAULT_CERTIFICATE_TTL: Duration = Duration::from_hours(24);

/// Longest lifetime of a workload's certificate unless configured (Istio's default).
pub const MAX_CERTIFICATE_TTL: Duration = Duration::from_hours(90 * 24);

/// Shortest lifetime, for trials: renewal begins at half of it and may take some seconds.
pub const MIN_CERTIFICATE_TTL: Duration = Duration::from_secs(10);

/// Lifetime of a root made here.
pub(super) const ROOT_LIFETIME: Duration = Duration::from_hours(10 * 365 * 24);

/// How far a certificate's start lies in the past, so that peers whose clocks are behind accept it.
const CLOCK_SKEW_TOLERANCE: Duration = Duration::from_mins(1);

/// The same for short lives, one part of the life in so many: half of what the certificate says is
/// then about half of its life, when it is renewed.
const CLOCK_SKEW_PART: u32 = 10;

/// Random bytes of a serial number (at most 20 octets: RFC 5280 section 4.1.2.2).
const SERIAL_BYTES: usize = 16;

/// A root made here signs leaves only.
const ROOT_PATH_LENGTH: u8 = 0;

/// Whom a certificate names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A workload.
    Workload(Identity),
    /// This server, under its DNS names and addresses.
    Server(Vec<String>),
}

/// A certificate that was issued, with those that lead to a root.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The leaf, then its intermediates.
    pub chain: Vec<CertificateDer<'static>>,
    /// When it begins.
    pub not_before: SystemTime,
    /// When it ends.
    pub not_after: SystemTime,
}

/// Signs a leaf that ends at `not_after`.
pub(super) fn leaf(
    subject: &Subject,
    key: &impl PublicKeyData,
    issuer: &Issuer<'static, KeyPair>,
    now: SystemTime,
    not_after: SystemTime,
) -> Result<(CertificateDer<'static>, SystemTime), CaError> {
    let mut params = CertificateParams::default();
    // The alternative names are critical because the subject is empty.
    params.distinguished_name = DistinguishedName::new();
    params.serial_number = Some(random_serial());
    params.subject_alt_names = subject.names()?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    let life = not_after.duration_since(now).unwrap_or_default();
    let not_before = now - CLOCK_SKEW_TOLERANCE.min(life / CLOCK_SKEW_PART);
    params.not_before = not_before.into();
    params.not_after = not_after.into();
    Ok((params.signed_by(key, issuer)?.into(), not_before))
}

/// Makes a root that signs itself.
pub(super) fn new_root(trust_domain: &TrustDomain, now: SystemTime) -> Result<SignerPem, CaError> {
    let serial = random_serial();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    // Distinct names keep an old and a new root apart in tools that show nothing else.
    params.distinguished_name.push(DnType::CommonName, format!("Fairlead root {serial}"));
    params.serial_number = Some(serial);
    params.subject_alt_names = vec![SanType::URI(format!("spiffe://{trust_domain}").try_into()?)];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(ROOT_PATH_LENGTH));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = (now - CLOCK_SKEW_TOLERANCE).into();
    params.not_after = (now + ROOT_LIFETIME).into();
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok(SignerPem { certificate: certificate.pem(), key: key.serialize_pem() })
}

fn random_serial() -> SerialNumber {
    let mut serial: [u8; SERIAL_BYTES] = rand::random();
    // Positive and of fixed length in DER.
    serial[0] = serial[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&serial)
}

// === impl Subject ===

impl Subject {
    fn names(&self) -> Result<Vec<SanType>, CaError> {
        match self {
            Self::Workload(identity) => Ok(vec![SanType::URI(identity.to_string().try_into()?)]),
            Self::Server(names) => names
                .iter()
                .map(|name| match name.parse::<IpAddr>() {
                    Ok(address) => Ok(SanType::IpAddress(address)),
                    Err(_) => Ok(SanType::DnsName(name.as_str().try_into()?)),
                })
                .collect(),
        }
    }
}
