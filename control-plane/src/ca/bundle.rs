//! The certificate that signs and the roots that workloads trust, checked to fit each other.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use mesh_api::identity::{Identity, TrustDomain};
use rcgen::{Issuer, KeyPair, PublicKeyData};
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, TrustAnchor, UnixTime, pem::PemObject,
};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _, time::ASN1Time};

use super::{
    contents::{
        CERTIFICATE, CHAIN, CRL, Contents, KEY, NEXT_CERTIFICATE, NEXT_KEY, ROOTS, SignerPem,
    },
    error::CaError,
    rotation::Rotation,
    sign::{self, Issued, MIN_CERTIFICATE_TTL, Subject},
};

/// What certificates are issued with.
pub struct Bundle {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    /// From the signing certificate towards the root, without it; what follows a leaf.
    chain: Vec<CertificateDer<'static>>,
    roots: Vec<CertificateDer<'static>>,
    roots_pem: String,
    crl: Option<String>,
    not_before: SystemTime,
    /// End of the first certificate to end, of the signing one and the chain.
    not_after: SystemTime,
    plugged_in: bool,
    rotation: Option<Rotation>,
    probe: Probe,
}

/// A leaf that verifies where all do that are issued with the same bundle.
#[derive(Clone, Debug)]
pub(super) struct Probe {
    chain: Vec<CertificateDer<'static>>,
    made: SystemTime,
}

struct Parsed {
    spki: Vec<u8>,
    not_before: SystemTime,
    not_after: SystemTime,
    may_sign: bool,
    self_issued: bool,
}

// === impl Bundle ===

impl Bundle {
    /// Checks what the files say: a leaf issued with them has to verify against their roots.
    pub fn load(
        contents: &Contents,
        trust_domain: &TrustDomain,
        now: SystemTime,
    ) -> Result<Self, CaError> {
        let (pem, file, key_file) = signer_of(contents)?;
        let key = KeyPair::from_pem(&pem.key)
            .map_err(|_| CaError::unusable(key_file, "it holds no private key of a known kind"))?;
        let certificate = match &certificates(file, &pem.certificate)?[..] {
            [only] => only.clone(),
            several => {
                let problem = format!("it holds {} certificates, not one", several.len());
                return Err(CaError::unusable(file, problem));
            }
        };
        let parsed = Parsed::signer(file, &certificate, &key)?;
        let roots_pem = contents.roots.clone().unwrap_or_else(|| pem.certificate.clone());
        let roots = certificates(ROOTS, &roots_pem)?;
        let mut chain = match &contents.chain {
            Some(text) => certificates(CHAIN, text)?,
            None => Vec::new(),
        };
        if chain.first() != Some(&certificate) {
            chain.insert(0, certificate.clone());
        }
        // Whoever verifies has the roots; sending them along is in vain.
        chain.retain(|link| !roots.contains(link));
        let mut not_after = parsed.not_after;
        for link in &chain {
            not_after = not_after.min(Parsed::of(CHAIN, link)?.not_after);
        }
        if let Some(crl) = &contents.crl {
            check_crl(crl)?;
        }
        let bundle = Self {
            issuer: Issuer::from_ca_cert_der(&certificate, key)?,
            certificate,
            chain,
            roots,
            roots_pem,
            crl: contents.crl.clone(),
            not_before: parsed.not_before,
            not_after,
            plugged_in: contents.chain.is_some() || !parsed.self_issued,
            rotation: contents.rotation,
            probe: Probe { chain: Vec::new(), made: now },
        };
        let probe = bundle.make_probe(trust_domain, now)?;
        probe.verify(&bundle.roots).map_err(CaError::DoesNotVerify)?;
        Ok(Self { probe, ..bundle })
    }

    /// Issues a certificate of the given lifetime, shortened to that of the signing one.
    pub fn issue(
        &self,
        subject: &Subject,
        key: &impl PublicKeyData,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<Issued, CaError> {
        if now < self.not_before || now >= self.not_after {
            return Err(CaError::SignerNotValid);
        }
        let not_after = now.checked_add(ttl).map_or(self.not_after, |end| end.min(self.not_after));
        let (leaf, not_before) = sign::leaf(subject, key, &self.issuer, now, not_after)?;
        let mut chain = vec![leaf];
        chain.extend(self.chain.iter().cloned());
        Ok(Issued { chain, not_before, not_after })
    }

    /// Returns the roots that workloads trust, as PEM.
    pub fn roots_pem(&self) -> &str {
        &self.roots_pem
    }

    /// Returns the revoked certificates that workloads are told of, as PEM.
    pub fn crl(&self) -> Option<&str> {
        self.crl.as_deref()
    }

    /// Returns the roots that workloads trust.
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// Returns when the signing certificate, or one that leads from it to a root, ends.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Returns when the signing certificate begins.
    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    /// Returns when the last of the roots ends.
    pub fn roots_end(&self) -> SystemTime {
        let ends = self.roots.iter().filter_map(|root| Parsed::of(ROOTS, root).ok());
        ends.map(|root| root.not_after).max().unwrap_or(self.not_after)
    }

    /// Returns whether the signing certificate is replaced by its owner only.
    pub fn is_plugged_in(&self) -> bool {
        self.plugged_in
    }

    /// Returns the rotation that is under way.
    pub fn rotation(&self) -> Option<Rotation> {
        self.rotation
    }

    pub(super) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    pub(super) fn probe(&self) -> &Probe {
        &self.probe
    }

    fn make_probe(&self, trust_domain: &TrustDomain, made: SystemTime) -> Result<Probe, CaError> {
        let invalid = |_| CaError::unusable(CERTIFICATE, "no identity fits its trust domain");
        let identity = Identity {
            trust_domain: trust_domain.clone(),
            namespace: "probe".parse().map_err(invalid)?,
            service_account: "probe".parse().map_err(invalid)?,
        };
        // Its key is thrown away: nobody can use the certificate.
        let key = KeyPair::generate()?;
        let subject = Subject::Workload(identity);
        Ok(Probe { chain: self.issue(&subject, &key, MIN_CERTIFICATE_TTL, made)?.chain, made })
    }
}

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bundle")
            .field("not_after", &self.not_after)
            .field("roots", &self.roots.len())
            .field("plugged_in", &self.plugged_in)
            .field("rotation", &self.rotation)
            .finish_non_exhaustive()
    }
}

// === impl Probe ===

impl Probe {
    /// Verifies the leaf as a workload with the given roots does, as of when it was made.
    pub(super) fn verify(&self, roots: &[CertificateDer<'_>]) -> Result<(), webpki::Error> {
        let (leaf, intermediates) = self.chain.split_first().ok_or(webpki::Error::UnknownIssuer)?;
        let anchors: Vec<TrustAnchor<'_>> =
            roots.iter().filter_map(|root| anchor_from_trusted_cert(root).ok()).collect();
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let made = self.made.duration_since(UNIX_EPOCH).unwrap_or_default();
        EndEntityCert::try_from(leaf)?.verify_for_usage(
            provider.signature_verification_algorithms.all,
            &anchors,
            intermediates,
            UnixTime::since_unix_epoch(made),
            KeyUsage::client_auth(),
            None,
            None,
        )?;
        Ok(())
    }
}

fn signer_of(contents: &Contents) -> Result<(&SignerPem, &'static str, &'static str), CaError> {
    match contents.rotation {
        Some(Rotation::Switched { .. }) => match &contents.next {
            Some(next) => Ok((next, NEXT_CERTIFICATE, NEXT_KEY)),
            None => Err(CaError::unusable(NEXT_CERTIFICATE, "it is missing; restore it")),
        },
        Some(Rotation::Requested | Rotation::Spreading { .. }) | None => {
            Ok((&contents.signer, CERTIFICATE, KEY))
        }
    }
}

fn certificates(file: &'static str, pem: &str) -> Result<Vec<CertificateDer<'static>>, CaError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let all = all.map_err(|error| CaError::unusable(file, format!("it is not PEM ({error:?})")))?;
    if all.is_empty() {
        return Err(CaError::unusable(file, "it holds no certificate"));
    }
    for certificate in &all {
        Parsed::of(file, certificate)?;
    }
    Ok(all)
}

fn check_crl(pem: &str) -> Result<(), CaError> {
    let all: Result<Vec<_>, _> =
        CertificateRevocationListDer::pem_slice_iter(pem.as_bytes()).collect();
    let lists =
        all.map_err(|error| CaError::unusable(CRL, format!("it is not PEM ({error:?})")))?;
    if lists.is_empty() {
        return Err(CaError::unusable(CRL, "it holds no list of revoked certificates"));
    }
    for list in &lists {
        webpki::BorrowedCertRevocationList::from_der(list)
            .map_err(|error| CaError::unusable(CRL, error.to_string()))?;
    }
    Ok(())
}

// === impl Parsed ===

impl Parsed {
    fn of(file: &'static str, der: &CertificateDer<'_>) -> Result<Self, CaError> {
        let malformed = || CaError::unusable(file, "a certificate is malformed");
        let (rest, parsed) = X509Certificate::from_der(der).map_err(|_| malformed())?;
        if !rest.is_empty() {
            return Err(malformed());
        }
        let usage = parsed.key_usage().map_err(|_| malformed())?;
        let time = |time| system_time(time).ok_or_else(malformed);
        Ok(Self {
            spki: parsed.public_key().raw.to_vec(),
            not_before: time(parsed.validity().not_before)?,
            not_after: time(parsed.validity().not_after)?,
            may_sign: parsed.is_ca() && usage.is_none_or(|usage| usage.value.key_cert_sign()),
            self_issued: parsed.subject() == parsed.issuer(),
        })
    }

    fn signer(
        file: &'static str,
        der: &CertificateDer<'_>,
        key: &KeyPair,
    ) -> Result<Self, CaError> {
        let parsed = Self::of(file, der)?;
        if !parsed.may_sign {
            return Err(CaError::unusable(file, "the certificate may not sign others"));
        }
        if parsed.spki != key.subject_public_key_info() {
            return Err(CaError::unusable(file, "the certificate does not belong to the key"));
        }
        Ok(parsed)
    }
}

fn system_time(time: ASN1Time) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(time.timestamp()).ok()?))
}
