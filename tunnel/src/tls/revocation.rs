//! Certificates that are not trusted any more although they have not expired.
//!
//! What a list says counts if the issuer of the certificate signed it. A list does not expire here:
//! one that is not renewed would otherwise end all traffic, or revoke nothing.

use std::{fmt, future::pending, sync::Arc, time::SystemTime};

use arc_swap::ArcSwap;
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime, pem::PemObject},
};
use tokio::sync::watch;
use webpki::{
    ALL_VERIFICATION_ALGS, CertRevocationList, EndEntityCert, Error, KeyUsage,
    OwnedCertRevocationList, RevocationOptionsBuilder, UnknownStatusPolicy,
};

/// What a PEM file has and a DER file has not.
const PEM_MARK: &[u8] = b"-----BEGIN";

/// Lists of revoked certificates, of any number of issuers.
#[derive(Debug, Default)]
pub struct RevocationLists(Vec<CertRevocationList<'static>>);

/// Why bytes are no revocation lists.
#[derive(Debug, thiserror::Error)]
pub enum InvalidLists {
    /// There is no list.
    #[error("no revocation list: give PEM blocks named X509 CRL, or one list as DER")]
    Empty,
    /// The PEM text is broken.
    #[error("broken PEM: {0}")]
    Pem(rustls::pki_types::pem::Error),
    /// A list is malformed, or of a kind that is not supported.
    #[error("list {number} cannot be used: {error}")]
    List {
        /// Its position, from 1.
        number: usize,
        /// What is wrong.
        error: Error,
    },
}

/// The lists in force. All handles share them.
#[derive(Clone)]
pub struct Revocations(Arc<Shared>);

struct Shared {
    lists: ArcSwap<RevocationLists>,
    changed: watch::Sender<()>,
}

/// The certificates by which one end of a connection is trusted, for as long as it lasts.
pub struct TrustedChain {
    certificates: Vec<CertificateDer<'static>>,
    roots: Arc<RootCertStore>,
    usage: KeyUsage,
    /// When the chain was found good: it may expire while the connection lasts.
    verified: UnixTime,
    revocations: Revocations,
}

// === impl RevocationLists ===

impl RevocationLists {
    /// Reads lists from PEM text, or one from DER.
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidLists> {
        let is_pem = bytes.windows(PEM_MARK.len()).any(|window| window == PEM_MARK);
        let lists: Vec<CertificateRevocationListDer<'_>> = if is_pem {
            let blocks = CertificateRevocationListDer::pem_slice_iter(bytes);
            blocks.collect::<Result<_, _>>().map_err(InvalidLists::Pem)?
        } else if bytes.iter().all(u8::is_ascii_whitespace) {
            Vec::new()
        } else {
            vec![bytes.into()]
        };
        if lists.is_empty() {
            return Err(InvalidLists::Empty);
        }
        let parse = |(i, list): (usize, &CertificateRevocationListDer<'_>)| {
            let owned = OwnedCertRevocationList::from_der(list);
            let list = owned.map_err(|error| InvalidLists::List { number: i + 1, error })?;
            Ok(list.into())
        };
        lists.iter().enumerate().map(parse).collect::<Result<_, _>>().map(Self)
    }

    /// Returns the number of lists.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there is no list.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether one of the lists revokes a certificate of a chain that was good at `time`.
    fn revoke(
        &self,
        (end_entity, intermediates): (&CertificateDer<'_>, &[CertificateDer<'_>]),
        roots: &RootCertStore,
        usage: KeyUsage,
        time: UnixTime,
    ) -> bool {
        // Looking a certificate up costs little, verifying the signature of a list does not.
        let named = |list: &&CertRevocationList<'_>| {
            names(list, end_entity) || intermediates.iter().any(|issuer| names(list, issuer))
        };
        self.0.iter().filter(named).any(|list| {
            let Ok(end_entity) = EndEntityCert::try_from(end_entity) else { return true };
            let lists = [list];
            let Ok(options) = RevocationOptionsBuilder::new(&lists) else { return true };
            let options = options.with_status_policy(UnknownStatusPolicy::Allow).build();
            let (algorithms, revocation) = (ALL_VERIFICATION_ALGS, Some(options));
            let verified = end_entity.verify_for_usage(
                algorithms,
                &roots.roots,
                intermediates,
                time,
                usage,
                revocation,
                None,
            );
            match verified {
                // Not of this issuer, whatever it says; or not about such certificates.
                Err(Error::InvalidCrlSignatureForPublicKey) | Ok(_) => false,
                // Also if the list cannot be verified: it may be right.
                Err(_) => true,
            }
        })
    }
}

// === impl Revocations ===

impl Revocations {
    /// Starts without lists.
    pub fn none() -> Self {
        let (lists, changed) = (ArcSwap::default(), watch::Sender::new(()));
        Self(Arc::new(Shared { lists, changed }))
    }

    /// Puts `lists` in force; open connections are judged anew.
    pub fn set(&self, lists: RevocationLists) {
        self.0.lists.store(Arc::new(lists));
        self.0.changed.send_replace(());
    }

    /// Returns the number of lists in force.
    pub fn lists(&self) -> usize {
        self.0.lists.load().len()
    }

    /// Returns whether a certificate of a chain that is good at `time` is revoked.
    pub(super) fn revoke(
        &self,
        chain: (&CertificateDer<'_>, &[CertificateDer<'_>]),
        roots: &RootCertStore,
        usage: KeyUsage,
        time: UnixTime,
    ) -> bool {
        self.0.lists.load().revoke(chain, roots, usage, time)
    }
}

impl fmt::Debug for Revocations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Revocations").field("lists", &self.lists()).finish()
    }
}

// === impl TrustedChain ===

impl TrustedChain {
    /// Returns `certificates`, which have a good chain to `roots` at the time `verified`.
    pub(super) fn new(
        certificates: Vec<CertificateDer<'static>>,
        roots: Arc<RootCertStore>,
        usage: KeyUsage,
        verified: SystemTime,
        revocations: Revocations,
    ) -> Self {
        Self { certificates, roots, usage, verified: unix_time(verified), revocations }
    }

    /// Returns whether one of the certificates is revoked.
    pub fn is_revoked(&self) -> bool {
        let Some((end_entity, intermediates)) = self.certificates.split_first() else {
            return false;
        };
        let chain = (end_entity, intermediates);
        self.revocations.revoke(chain, &self.roots, self.usage, self.verified)
    }

    /// Completes when one of the certificates is revoked.
    pub async fn revoked(&self) {
        let mut changed = self.revocations.0.changed.subscribe();
        while !self.is_revoked() {
            if changed.changed().await.is_err() {
                pending::<()>().await;
            }
        }
    }
}

impl fmt::Debug for TrustedChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let certificates = self.certificates.len();
        f.debug_struct("TrustedChain").field("certificates", &certificates).finish_non_exhaustive()
    }
}

/// Returns `time` as certificates have it.
pub(super) fn unix_time(time: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

/// Returns whether `list` names `certificate`, or cannot say.
fn names(list: &CertRevocationList<'_>, certificate: &CertificateDer<'_>) -> bool {
    EndEntityCert::try_from(certificate).is_ok_and(|certificate| {
        let found = || list.find_serial(certificate.serial());
        list.issuer() == certificate.issuer() && !matches!(found(), Ok(None))
    })
}
