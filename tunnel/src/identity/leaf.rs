//! Reads the leaf of an X.509-SVID and checks it as the SPIFFE X509-SVID standard asks.
//!
//! Our own certificates and those of peers pass the same checks.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mesh_api::identity::{Identity, InvalidIdentity};
use x509_parser::{
    certificate::X509Certificate,
    error::X509Error,
    extensions::{GeneralName, ParsedExtension, SubjectAlternativeName},
    prelude::FromDer,
    time::ASN1Time,
};

/// What the leaf certificate of a workload says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// The workload that the certificate names.
    pub identity: Identity,
    /// Serial number in hexadecimal digits, bytes separated by colons.
    pub serial: String,
    /// When the certificate may be used.
    pub validity: Validity,
}

/// Span of time in which a certificate may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// First moment.
    pub not_before: SystemTime,
    /// Last moment.
    pub not_after: SystemTime,
}

/// Why a certificate is not the leaf of a workload's X.509-SVID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeafError {
    /// The bytes are not a well-formed certificate.
    #[error("the certificate is malformed")]
    Malformed,
    /// No subject alternative name is a URI.
    #[error("the certificate names no SPIFFE identity")]
    NoUriSan,
    /// More than one subject alternative name is a URI.
    #[error("the certificate has {0} URI names where exactly one is allowed")]
    SeveralUriSans(usize),
    /// The URI is not the SPIFFE id of a workload.
    #[error("the certificate names no workload: {0}")]
    NotSpiffe(#[source] InvalidIdentity),
    /// The certificate may sign others.
    #[error("a CA certificate cannot stand for a workload")]
    IsCa,
    /// The key usage lacks digitalSignature, or allows signing certificates.
    #[error("the key usage of the certificate does not fit a workload")]
    KeyUsage,
}

// === impl Leaf ===

impl Leaf {
    /// Reads and checks the leaf certificate `der`.
    pub fn parse(der: &[u8]) -> Result<Self, LeafError> {
        let (rest, certificate) =
            X509Certificate::from_der(der).map_err(|_| LeafError::Malformed)?;
        if !rest.is_empty() || has_unreadable_extension(&certificate) {
            return Err(LeafError::Malformed);
        }
        check_is_no_ca(&certificate)?;
        check_key_usage(&certificate)?;
        Ok(Self {
            identity: identity(&certificate)?,
            serial: certificate.raw_serial_as_string(),
            validity: Validity::of(&certificate)?,
        })
    }
}

// === impl Validity ===

impl Validity {
    /// Reads the validity of any certificate, whatever else it says.
    pub fn of_der(der: &[u8]) -> Result<Self, LeafError> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|_| LeafError::Malformed)?;
        Self::of(&certificate)
    }

    /// Returns the validity of a parsed certificate.
    pub(super) fn of(certificate: &X509Certificate<'_>) -> Result<Self, LeafError> {
        let validity = certificate.validity();
        Ok(Self {
            not_before: system_time(validity.not_before)?,
            not_after: system_time(validity.not_after)?,
        })
    }

    /// Returns the length of the span.
    pub fn lifetime(&self) -> Duration {
        self.not_after.duration_since(self.not_before).unwrap_or_default()
    }
}

// === impl LeafError ===

impl From<X509Error> for LeafError {
    fn from(_: X509Error) -> Self {
        Self::Malformed
    }
}

/// The parser's accessors treat some extensions that they cannot read as absent.
fn has_unreadable_extension(certificate: &X509Certificate<'_>) -> bool {
    certificate
        .extensions()
        .iter()
        .any(|extension| matches!(extension.parsed_extension(), ParsedExtension::ParseError { .. }))
}

fn check_is_no_ca(certificate: &X509Certificate<'_>) -> Result<(), LeafError> {
    match certificate.basic_constraints()? {
        Some(constraints) if constraints.value.ca => Err(LeafError::IsCa),
        Some(_) | None => Ok(()),
    }
}

/// X509-SVID section 4.3: digitalSignature set, keyCertSign and cRLSign clear.
fn check_key_usage(certificate: &X509Certificate<'_>) -> Result<(), LeafError> {
    let Some(usage) = certificate.key_usage()? else {
        return Ok(());
    };
    let usage = usage.value;
    if usage.digital_signature() && !usage.key_cert_sign() && !usage.crl_sign() {
        return Ok(());
    }
    Err(LeafError::KeyUsage)
}

fn identity(certificate: &X509Certificate<'_>) -> Result<Identity, LeafError> {
    let Some(names) = certificate.subject_alternative_name()? else {
        return Err(LeafError::NoUriSan);
    };
    if names.value.general_names.iter().any(|name| matches!(name, GeneralName::Invalid(..))) {
        return Err(LeafError::Malformed);
    }
    let mut uris = uri_names(names.value);
    let uri = uris.next().ok_or(LeafError::NoUriSan)?;
    match uris.count() {
        0 => uri.parse().map_err(LeafError::NotSpiffe),
        more => Err(LeafError::SeveralUriSans(more + 1)),
    }
}

/// Returns the URIs among subject alternative names.
pub(super) fn uri_names<'a>(
    names: &'a SubjectAlternativeName<'_>,
) -> impl Iterator<Item = &'a str> {
    names.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        GeneralName::OtherName(..)
        | GeneralName::RFC822Name(_)
        | GeneralName::DNSName(_)
        | GeneralName::X400Address(_)
        | GeneralName::DirectoryName(_)
        | GeneralName::EDIPartyName(_)
        | GeneralName::IPAddress(_)
        | GeneralName::RegisteredID(_)
        | GeneralName::Invalid(..) => None,
    })
}

fn system_time(time: ASN1Time) -> Result<SystemTime, LeafError> {
    let seconds = u64::try_from(time.timestamp()).map_err(|_| LeafError::Malformed)?;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).ok_or(LeafError::Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyUsagePurpose, SanType};

    use super::*;
    use crate::tls::tests::pki::{TestCa, uri, workload_params};

    const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";

    fn parse(params: &CertificateParams) -> Result<Leaf, LeafError> {
        Leaf::parse(&TestCa::new().sign(params).certificate)
    }

    #[test]
    fn a_workload_certificate_tells_identity_serial_and_validity() {
        let leaf = parse(&workload_params(CART)).unwrap();
        assert_eq!(leaf.identity.to_string(), CART);
        assert!(!leaf.serial.is_empty());
        assert!(leaf.validity.lifetime() > Duration::ZERO);
    }

    #[test]
    fn exactly_one_uri_name_is_allowed() {
        let names = |names: &[SanType]| {
            let mut params = workload_params(CART);
            params.subject_alt_names = names.to_vec();
            parse(&params)
        };
        let dns = SanType::DnsName("cart.shop".try_into().unwrap());
        let other = uri("spiffe://cluster.local/ns/shop/sa/other");
        assert_eq!(names(&[]), Err(LeafError::NoUriSan));
        assert_eq!(names(std::slice::from_ref(&dns)), Err(LeafError::NoUriSan));
        assert_eq!(names(&[uri(CART), other]), Err(LeafError::SeveralUriSans(2)));
        assert_eq!(names(&[uri(CART), uri(CART)]), Err(LeafError::SeveralUriSans(2)));
        assert_eq!(names(&[dns, uri(CART)]).unwrap().identity.to_string(), CART);
    }

    #[test]
    fn uris_that_name_no_workload_are_rejected_and_never_normalised() {
        let long = format!("spiffe://td/ns/a/sa/{}", "x".repeat(2049));
        for bad in [
            "spiffe://td/ns/../sa/b",
            "spiffe://td/ns//sa/b",
            "spiffe://td/ns/%2e/sa/b",
            "spiffe://TD/ns/a/sa/b",
            "spiffe://td/ns/a/sa/",
            "spiffe://td",
            "https://td/ns/a/sa/b",
            "",
            &long,
        ] {
            let error = parse(&workload_params(bad)).unwrap_err();
            assert!(matches!(error, LeafError::NotSpiffe(_)), "{bad}: {error}");
        }
    }

    #[test]
    fn a_certificate_that_may_sign_others_is_no_workload() {
        let mut ca = workload_params(CART);
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        assert_eq!(parse(&ca), Err(LeafError::IsCa));
    }

    #[test]
    fn the_key_usage_must_fit_a_workload() {
        use KeyUsagePurpose::{CrlSign, DigitalSignature, KeyCertSign, KeyEncipherment};
        for (usages, accepted) in [
            (vec![], true),
            (vec![DigitalSignature], true),
            (vec![DigitalSignature, KeyEncipherment], true),
            (vec![KeyEncipherment], false),
            (vec![DigitalSignature, KeyCertSign], false),
            (vec![DigitalSignature, CrlSign], false),
        ] {
            let mut params = workload_params(CART);
            params.key_usages = usages;
            assert_eq!(parse(&params).is_ok(), accepted, "{:?}", params.key_usages);
        }
    }

    #[test]
    fn bytes_after_the_certificate_are_rejected() {
        let mut der = TestCa::new().sign(&workload_params(CART)).certificate.to_vec();
        der.push(0);
        assert_eq!(Leaf::parse(&der), Err(LeafError::Malformed));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(der in proptest::collection::vec(any::<u8>(), 0..2048)) {
            prop_assert!(Leaf::parse(&der).is_err());
        }

        #[test]
        fn a_damaged_certificate_never_panics(
            damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)
        ) {
            static DER: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| {
                TestCa::new().sign(&workload_params(CART)).certificate.to_vec()
            });
            let mut der = DER.clone();
            for (index, byte) in damage {
                let position = index.index(der.len());
                der[position] = byte;
            }
            let _ = Leaf::parse(&der);
        }
    }
}
