//! What the CA answers, checked. Pure.

use std::time::{SystemTime, UNIX_EPOCH};

use rustls::{
    RootCertStore,
    client::verify_server_cert_signed_by_trust_anchor,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject},
    server::ParsedCertificate,
};

use super::CaError;
use crate::identity::svid::Svid;

/// Most certificates of a chain: peers accept a leaf with eight intermediates.
const MAX_CHAIN: usize = 9;

/// Most roots; during a rotation there are two.
const MAX_ROOTS: usize = 16;

/// Returns the SVID that `chain` is, with its `key`: the leaf and its intermediates first, the roots
/// in the last element.
pub(super) fn svid(
    chain: &[String],
    key: &PrivateKeyDer<'_>,
    now: SystemTime,
) -> Result<Svid, CaError> {
    let Some((roots, chain)) = chain.split_last().filter(|(_, chain)| !chain.is_empty()) else {
        return Err(CaError::Answer("it has no certificate, or no root"));
    };
    let chain = certificates(chain, MAX_CHAIN)?;
    let roots = certificates(std::slice::from_ref(roots), MAX_ROOTS)?;
    verify(&chain, &roots, now)?;
    Ok(Svid::new(chain, key, roots)?)
}

fn certificates(
    elements: &[String],
    limit: usize,
) -> Result<Vec<CertificateDer<'static>>, CaError> {
    let mut certificates = Vec::new();
    for element in elements {
        for certificate in CertificateDer::pem_slice_iter(element.as_bytes()) {
            let malformed = |_| CaError::Answer("a certificate in it is not PEM");
            certificates.push(certificate.map_err(malformed)?);
        }
    }
    match certificates.len() {
        0 => Err(CaError::Answer("it has no certificate, or no root")),
        count if count > limit => Err(CaError::Answer("it has too many certificates")),
        _ => Ok(certificates),
    }
}

/// Checks that the leaf is good for those who trust the roots: otherwise the peers would find out.
fn verify(
    chain: &[CertificateDer<'static>],
    roots: &[CertificateDer<'static>],
    now: SystemTime,
) -> Result<(), CaError> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone()).map_err(CaError::Untrusted)?;
    }
    let Some((leaf, intermediates)) = chain.split_first() else {
        return Err(CaError::Answer("it has no certificate, or no root"));
    };
    let leaf = ParsedCertificate::try_from(leaf).map_err(CaError::Untrusted)?;
    let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
    let now = UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).unwrap_or_default());
    verify_server_cert_signed_by_trust_anchor(&leaf, &store, intermediates, now, algorithms.all)
        .map_err(CaError::Untrusted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        identity::SvidError,
        tls::tests::pki::{Signed, TestCa, workload_params},
    };

    const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";

    fn pem(der: &CertificateDer<'_>) -> String {
        pem::encode(&pem::Pem::new("CERTIFICATE", der.as_ref()))
    }

    #[test]
    fn a_chain_with_its_roots_and_the_key_is_an_svid() {
        let (ca, other) = (TestCa::new(), TestCa::new());
        let Signed { certificate, key } = ca.sign(&workload_params(CART));
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let now = SystemTime::now();
        let (leaf, root, foreign) = (pem(&certificate), pem(&ca.root()), pem(&other.root()));
        let both = format!("{root}{foreign}");
        let good = svid(&[leaf.clone(), both], &key, now).unwrap();
        assert_eq!(good.identity().to_string(), CART);
        assert_eq!((good.chain().len(), good.roots().len()), (1, 2), "a rotation is under way");

        let refused = |chain: &[String]| svid(chain, &key, now).unwrap_err();
        assert!(matches!(refused(&[]), CaError::Answer(_)));
        assert!(matches!(refused(std::slice::from_ref(&leaf)), CaError::Answer(_)));
        assert!(matches!(refused(&[leaf.clone(), String::new()]), CaError::Answer(_)));
        assert!(matches!(refused(&["x".into(), root.clone()]), CaError::Answer(_)));
        assert!(matches!(refused(&[leaf.clone(), foreign]), CaError::Untrusted(_)));
        let many = vec![leaf.clone(); MAX_CHAIN + 1];
        assert!(matches!(refused(&[many, vec![root.clone()]].concat()), CaError::Answer(_)));
        let own = rcgen::KeyPair::generate().unwrap().serialize_der();
        let own = PrivateKeyDer::Pkcs8(own.into());
        let error = svid(&[leaf, root], &own, now).unwrap_err();
        assert!(matches!(error, CaError::Svid(SvidError::Key(_))), "{error}");
    }
}
