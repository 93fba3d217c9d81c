//! Certificate signing requests: what they ask for, and whether it is nothing but an identity.

use mesh_api::identity::Identity;
use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PublicKeyData, SubjectPublicKeyInfo};
use rustls::pki_types::{CertificateSigningRequestDer, pem::PemObject};
use x509_parser::{
    certification_request::X509CertificationRequest,
    cri_attributes::ParsedCriAttribute,
    extensions::{GeneralName, ParsedExtension, X509Extension},
    oid_registry::{
        OID_PKCS1_SHA256WITHRSA, OID_PKCS1_SHA384WITHRSA, OID_PKCS1_SHA512WITHRSA,
        OID_SIG_ECDSA_WITH_SHA256, OID_SIG_ECDSA_WITH_SHA384, Oid,
    },
    prelude::FromDer as _,
    public_key::PublicKey,
};

/// Largest request, in bytes of PEM; one with a large RSA key has about three thousand.
const MAX_CSR_BYTES: usize = 16 * 1024;

/// Smallest and largest RSA key, in bits: those below are weak, those above cost more to check than
/// they are worth.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;

/// A request that asks for one identity, and for nothing else.
#[derive(Debug)]
pub struct Csr {
    uri: String,
    key: SubjectPublicKeyInfo,
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// It is larger than a request with the largest key would be.
    #[error("the request has {0} bytes, more than {MAX_CSR_BYTES}")]
    TooLarge(usize),
    /// It is not one block of PEM with a request.
    #[error("not a PEM block CERTIFICATE REQUEST")]
    NotPem,
    /// What the PEM holds is not a request.
    #[error("the request is malformed")]
    Malformed,
    /// It was not made by the owner of the key, or was altered.
    #[error("the signature does not verify, or is of a kind that is not accepted")]
    Signature,
    /// The key is weak or unknown.
    #[error("the key is not ECDSA P-256 or P-384, nor RSA with 2048 to 4096 bits")]
    Key,
    /// It asks for more than a name.
    #[error("the request asks for something else than a subject alternative name: {0}")]
    Extension(String),
    /// It does not have one name that is a URI, and no other name.
    #[error("the request must have exactly one subject alternative name, a SPIFFE URI")]
    Names,
    /// It asks for another identity than the caller does.
    #[error("the request is for \"{requested}\" where \"{expected}\" is needed")]
    OtherIdentity {
        /// The name in the request, escaped.
        requested: String,
        /// The identity that the caller may have.
        expected: Identity,
    },
}

// === impl Csr ===

impl Csr {
    /// Reads a request and checks everything but for whom it is.
    pub fn parse(pem: &str) -> Result<Self, CsrError> {
        if pem.len() > MAX_CSR_BYTES {
            return Err(CsrError::TooLarge(pem.len()));
        }
        let blocks: Result<Vec<_>, _> =
            CertificateSigningRequestDer::pem_slice_iter(pem.as_bytes()).collect();
        let [der] = &blocks.map_err(|_| CsrError::NotPem)?[..] else {
            return Err(CsrError::NotPem);
        };
        let (rest, csr) =
            X509CertificationRequest::from_der(der).map_err(|_| CsrError::Malformed)?;
        if !rest.is_empty() {
            return Err(CsrError::Malformed);
        }
        let key = check_key(&csr)?;
        check_signature(&csr)?;
        Ok(Self { uri: only_name(&csr)?, key })
    }

    /// Checks that the request is for `identity`, byte for byte.
    pub fn check_identity(&self, identity: &Identity) -> Result<(), CsrError> {
        if self.uri == identity.to_string() {
            return Ok(());
        }
        Err(CsrError::OtherIdentity {
            requested: self.uri.escape_debug().to_string(),
            expected: identity.clone(),
        })
    }

    /// Returns the key to be certified.
    pub fn key(&self) -> &SubjectPublicKeyInfo {
        &self.key
    }
}

fn check_key(csr: &X509CertificationRequest<'_>) -> Result<SubjectPublicKeyInfo, CsrError> {
    let spki = &csr.certification_request_info.subject_pki;
    let key = SubjectPublicKeyInfo::from_der(spki.raw).map_err(|_| CsrError::Key)?;
    let strong = match spki.parsed().map_err(|_| CsrError::Key)? {
        PublicKey::RSA(rsa) => RSA_BITS.contains(&rsa.key_size()),
        PublicKey::EC(_) => {
            [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384].contains(&key.algorithm())
        }
        PublicKey::DSA(_)
        | PublicKey::GostR3410(_)
        | PublicKey::GostR3410_2012(_)
        | PublicKey::Unknown(_) => false,
    };
    if strong { Ok(key) } else { Err(CsrError::Key) }
}

fn check_signature(csr: &X509CertificationRequest<'_>) -> Result<(), CsrError> {
    let accepted: [Oid<'_>; 5] = [
        OID_SIG_ECDSA_WITH_SHA256,
        OID_SIG_ECDSA_WITH_SHA384,
        OID_PKCS1_SHA256WITHRSA,
        OID_PKCS1_SHA384WITHRSA,
        OID_PKCS1_SHA512WITHRSA,
    ];
    if !accepted.contains(&csr.signature_algorithm.algorithm) {
        return Err(CsrError::Signature);
    }
    csr.verify_signature().map_err(|_| CsrError::Signature)
}

/// Returns the one name, if the request asks for nothing else.
fn only_name(csr: &X509CertificationRequest<'_>) -> Result<String, CsrError> {
    let mut extensions: Vec<&X509Extension<'_>> = Vec::new();
    for attribute in csr.certification_request_info.iter_attributes() {
        match attribute.parsed_attribute() {
            ParsedCriAttribute::ExtensionRequest(request) => extensions.extend(&request.extensions),
            ParsedCriAttribute::ChallengePassword(_) | ParsedCriAttribute::UnsupportedAttribute => {
                return Err(CsrError::Extension(attribute.oid.to_id_string()));
            }
        }
    }
    let mut names = None;
    for extension in extensions {
        #[expect(clippy::wildcard_enum_match_arm, reason = "one extension is allowed of all")]
        match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(san) if names.is_none() => {
                names = Some(&san.general_names);
            }
            ParsedExtension::SubjectAlternativeName(_) => return Err(CsrError::Names),
            _ => return Err(CsrError::Extension(extension.oid.to_id_string())),
        }
    }
    match names.map(Vec::as_slice) {
        Some([GeneralName::URI(uri)]) => Ok((*uri).to_owned()),
        Some(_) | None => Err(CsrError::Names),
    }
}
