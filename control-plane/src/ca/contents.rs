//! What the authority's files say, wherever they are kept.
//!
//! | File | Content |
//! |---|---|
//! | `ca-cert.pem`, `ca-key.pem` | the certificate that signs, and its key |
//! | `root-cert.pem` | the roots that workloads trust, one or more; without it `ca-cert.pem` |
//! | `cert-chain.pem` | from `ca-cert.pem` towards the root; its presence means that the certificate is plugged in and never replaced from here |
//! | `ca-crl.pem` | revoked certificates, passed on to workloads; optional |
//! | `rotation`, `next-cert.pem`, `next-key.pem` | a rotation under way, see [`super::rotation`] |

use std::time::SystemTime;

use super::{
    error::CaError,
    rotation::{InvalidRotation, Rotation},
};

pub(super) const CERTIFICATE: &str = "ca-cert.pem";
pub(super) const KEY: &str = "ca-key.pem";
pub(super) const ROOTS: &str = "root-cert.pem";
pub(super) const CHAIN: &str = "cert-chain.pem";
pub(super) const CRL: &str = "ca-crl.pem";
pub(super) const ROTATION: &str = "rotation";
pub(super) const NEXT_CERTIFICATE: &str = "next-cert.pem";
pub(super) const NEXT_KEY: &str = "next-key.pem";

/// A file to be written, or to be removed.
pub(super) type Write = (&'static str, Option<String>);

/// What the files say.
#[derive(Clone, PartialEq, Eq)]
pub struct Contents {
    pub(super) signer: SignerPem,
    pub(super) roots: Option<String>,
    pub(super) chain: Option<String>,
    pub(super) crl: Option<String>,
    pub(super) rotation: Option<Rotation>,
    pub(super) next: Option<SignerPem>,
}

/// A certificate and its key.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct SignerPem {
    pub(super) certificate: String,
    pub(super) key: String,
}

// === impl Contents ===

impl Contents {
    /// Returns what the files say that `read` knows by name; none if there is no certificate and no
    /// key.
    pub(super) fn read(
        read: impl Fn(&'static str) -> Result<Option<String>, CaError>,
    ) -> Result<Option<Self>, CaError> {
        let text =
            |file| -> Result<_, CaError> { Ok(read(file)?.filter(|text| !text.trim().is_empty())) };
        let Some(signer) = SignerPem::read(&read, CERTIFICATE, KEY)? else {
            // Somebody trusts these roots, and a new one would take their place.
            return match text(ROOTS)? {
                Some(_) => Err(CaError::unusable(
                    CERTIFICATE,
                    "it is missing while there is a root-cert.pem; restore it and ca-key.pem, or \
                     move root-cert.pem away for a new root",
                )),
                None => Ok(None),
            };
        };
        let unreadable = |error: InvalidRotation| CaError::unusable(ROTATION, error.to_string());
        let rotation = match read(ROTATION)? {
            Some(text) => Some(text.parse().map_err(unreadable)?),
            None => None,
        };
        Ok(Some(Self {
            signer,
            roots: text(ROOTS)?,
            chain: text(CHAIN)?,
            crl: text(CRL)?,
            next: match rotation {
                Some(Rotation::Spreading { .. } | Rotation::Switched { .. }) => {
                    SignerPem::read(&read, NEXT_CERTIFICATE, NEXT_KEY)?
                }
                Some(Rotation::Requested) | None => None,
            },
            rotation,
        }))
    }

    /// Returns the files of a root that was just made. The key comes before the certificate and that
    /// before the roots: what is there has what it needs.
    pub(super) fn of_root(root: &SignerPem) -> [Write; 3] {
        [
            (KEY, Some(root.key.clone())),
            (CERTIFICATE, Some(root.certificate.clone())),
            (ROOTS, Some(root.certificate.clone())),
        ]
    }

    /// Returns what asks for a rotation, if one may be asked for.
    pub(super) fn request_rotation(contents: Option<&Self>) -> Result<Write, CaError> {
        let Some(contents) = contents else {
            return Err(CaError::unusable(CERTIFICATE, "it is missing: there is no root yet"));
        };
        if contents.chain.is_some() {
            return Err(CaError::PluggedIn);
        }
        if contents.rotation.is_some() {
            return Err(CaError::RotationUnderWay);
        }
        Ok((ROTATION, Some(Rotation::Requested.to_string())))
    }

    /// Returns whether `next` is the step that was announced by `self`, at its time. Whoever took it
    /// has waited for the certificates of every process that shares the files.
    pub(super) fn announced(&self, next: &Self, now: SystemTime) -> bool {
        match (self.rotation, next.rotation) {
            (Some(Rotation::Spreading { until }), Some(Rotation::Switched { .. })) => {
                now >= until && self.next == next.next && self.roots == next.roots
            }
            (Some(Rotation::Switched { until }), None) => {
                now >= until && self.next.as_ref() == Some(&next.signer)
            }
            _ => false,
        }
    }
}

// === impl SignerPem ===

impl SignerPem {
    fn read(
        read: impl Fn(&'static str) -> Result<Option<String>, CaError>,
        certificate: &'static str,
        key: &'static str,
    ) -> Result<Option<Self>, CaError> {
        let missing = |file| CaError::unusable(file, "it is missing; restore it");
        match (read(certificate)?, read(key)?) {
            (None, None) => Ok(None),
            (None, Some(_)) => Err(missing(certificate)),
            (Some(_), None) => Err(missing(key)),
            (Some(certificate), Some(key)) => Ok(Some(Self { certificate, key })),
        }
    }
}
