//! X.509-SVIDs: a workload's certificate chain with the key that proves it.

use std::{fmt, sync::Arc};

use mesh_api::identity::Identity;
use rustls::{
    InconsistentKeys,
    crypto::aws_lc_rs::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer},
    sign::CertifiedKey,
};

use super::leaf::{Leaf, LeafError, Validity};

/// A workload's certificate, its private key and the roots that its peers must chain to.
///
/// The key can sign but not be read back, so nothing can log or store it.
#[derive(Clone)]
pub struct Svid {
    leaf: Leaf,
    key: Arc<CertifiedKey>,
    roots: Arc<[CertificateDer<'static>]>,
}

/// Why a chain, a key and roots do not make an SVID.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SvidError {
    /// The chain is empty.
    #[error("the certificate chain is empty")]
    NoCertificate,
    /// There is nothing to verify peers with.
    #[error("no root certificate came with the certificate")]
    NoRoots,
    /// The first certificate of the chain does not stand for a workload.
    #[error(transparent)]
    Leaf(#[from] LeafError),
    /// The key is of an unknown kind or belongs to another certificate.
    #[error("the private key does not fit the certificate: {0}")]
    Key(#[source] rustls::Error),
}

// === impl Svid ===

impl Svid {
    /// Returns the SVID made of `chain` (leaf first, root left out), its private key and `roots`.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: &PrivateKeyDer<'_>,
        roots: Vec<CertificateDer<'static>>,
    ) -> Result<Self, SvidError> {
        let leaf = Leaf::parse(chain.first().ok_or(SvidError::NoCertificate)?)?;
        if roots.is_empty() {
            return Err(SvidError::NoRoots);
        }
        let key = CertifiedKey::new(chain, any_supported_type(key).map_err(SvidError::Key)?);
        match key.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(error) => return Err(SvidError::Key(error)),
        }
        Ok(Self { leaf, key: Arc::new(key), roots: roots.into() })
    }

    /// Returns the workload that the SVID stands for.
    pub fn identity(&self) -> &Identity {
        &self.leaf.identity
    }

    /// Returns what the leaf certificate says.
    pub fn leaf(&self) -> &Leaf {
        &self.leaf
    }

    /// Returns when the SVID may be used.
    pub fn validity(&self) -> Validity {
        self.leaf.validity
    }

    /// Returns the certificates sent to peers, leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.key.cert
    }

    /// Returns the certificates that peers must chain to.
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// Returns the chain with its signing key, for the TLS library.
    pub(crate) fn certified_key(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.key)
    }
}

impl fmt::Debug for Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { leaf, key: _, roots } = self;
        f.debug_struct("Svid")
            .field("leaf", leaf)
            .field("key", &"[redacted]")
            .field("roots", &roots.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use rcgen::KeyPair;

    use super::*;
    use crate::tls::tests::pki::{Signed, TestCa, workload_params};

    const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";

    fn private(key: &KeyPair) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(key.serialize_der().into())
    }

    #[test]
    fn debug_output_holds_no_part_of_the_key() {
        let ca = TestCa::new();
        let Signed { certificate, key } = ca.sign(&workload_params(CART));
        let svid = Svid::new(vec![certificate], &private(&key), vec![ca.root()]).unwrap();
        let shown = format!("{svid:?} {svid:#?}");
        let der = key.serialize_der();
        // A PKCS#8 P-256 key carries its 32 secret bytes from offset 36 on.
        let secret = &der[36..68];
        let hex = secret.iter().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").unwrap();
            hex
        });
        let decimal = format!("{:?}", &secret[..4]);
        let decimal = decimal.trim_matches(['[', ']']);
        assert!(shown.contains("[redacted]"));
        assert!(!shown.to_lowercase().contains(&hex[..8]), "{shown}");
        assert!(!shown.contains(decimal), "{shown}");
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let ca = TestCa::new();
        let certificate = ca.sign(&workload_params(CART)).certificate;
        let other = private(&KeyPair::generate().unwrap());
        let error = Svid::new(vec![certificate], &other, vec![ca.root()]).unwrap_err();
        assert!(matches!(error, SvidError::Key(_)), "{error}");
    }

    #[test]
    fn an_svid_needs_a_chain_and_roots() {
        let ca = TestCa::new();
        let Signed { certificate, key } = ca.sign(&workload_params(CART));
        let key = private(&key);
        let without_chain = Svid::new(vec![], &key, vec![ca.root()]);
        assert_eq!(without_chain.unwrap_err(), SvidError::NoCertificate);
        let without_roots = Svid::new(vec![certificate], &key, vec![]);
        assert_eq!(without_roots.unwrap_err(), SvidError::NoRoots);
    }
}
