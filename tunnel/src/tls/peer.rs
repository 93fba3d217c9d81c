//! Decides whether a peer's certificate stands for someone we may talk to.
//!
//! Looks at the leaf only: the chain has been verified before.

use std::time::SystemTime;

use mesh_api::identity::{Identity, TrustDomain};
use rustls::pki_types::CertificateDer;

use crate::identity::leaf::{Leaf, LeafError, Validity};

/// Why a peer whose chain is good is refused all the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// The peer showed no certificate.
    #[error("the peer showed no certificate")]
    NoPeerCertificate,
    /// The peer sent more certificates than any sensible chain has.
    #[error("the peer sent a chain of {0} certificates")]
    LongChain(usize),
    /// The peer's certificate is no X.509-SVID of a workload.
    #[error(transparent)]
    Leaf(#[from] LeafError),
    /// A certificate of the peer expired after its session began.
    #[error("a certificate of the peer has expired since its session began")]
    Expired,
    /// A certificate of the peer was revoked after its session began.
    #[error("a certificate of the peer is revoked")]
    Revoked,
    /// The peer belongs to another trust domain.
    #[error("the peer belongs to the trust domain {got}, not to {expected}")]
    TrustDomain {
        /// Our own trust domain.
        expected: TrustDomain,
        /// The peer's trust domain.
        got: TrustDomain,
    },
    /// The peer is a workload, but none that the connection was meant for.
    #[error("the peer is {got}, expected {}", list(expected))]
    UnexpectedIdentity {
        /// Who may answer.
        expected: Box<[Identity]>,
        /// Who answered.
        got: Identity,
    },
}

/// Returns the identity of the peer of a finished handshake.
pub fn peer_identity(certificates: Option<&[CertificateDer<'_>]>) -> Result<Identity, PeerError> {
    let leaf = certificates.and_then(<[_]>::first).ok_or(PeerError::NoPeerCertificate)?;
    Ok(Leaf::parse(leaf)?.identity)
}

/// Returns when the first certificate of a chain expires.
pub(super) fn first_expiry<'a>(
    chain: impl IntoIterator<Item = &'a CertificateDer<'a>>,
) -> Result<Option<SystemTime>, PeerError> {
    let mut first = None;
    for certificate in chain {
        let Validity { not_after, .. } = Validity::of_der(certificate)?;
        first = Some(first.map_or(not_after, |first: SystemTime| first.min(not_after)));
    }
    Ok(first)
}

/// Checks that `leaf` belongs to a workload of `trust_domain`.
pub(super) fn check_member(leaf: &[u8], trust_domain: &TrustDomain) -> Result<(), PeerError> {
    let got = Leaf::parse(leaf)?.identity.trust_domain;
    if got == *trust_domain {
        return Ok(());
    }
    Err(PeerError::TrustDomain { expected: trust_domain.clone(), got })
}

/// Checks that `leaf` belongs to one of `expected`; with nobody expected, nobody passes.
pub(super) fn check_expected(leaf: &[u8], expected: &[Identity]) -> Result<(), PeerError> {
    let got = Leaf::parse(leaf)?.identity;
    if expected.contains(&got) {
        return Ok(());
    }
    Err(PeerError::UnexpectedIdentity { expected: expected.into(), got })
}

fn list(identities: &[Identity]) -> String {
    if identities.is_empty() {
        return "nobody".to_owned();
    }
    let identities: Vec<_> = identities.iter().map(ToString::to_string).collect();
    identities.join(" or ")
}
