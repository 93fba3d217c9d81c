//! Why there is no authority, or no certificate from it.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::history::Premature;
use crate::watch::WatchError;

/// Why there is no authority, or no certificate from it.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The operating system refused access to a file.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// A file cannot serve as it is.
    #[error("{file}: {problem}")]
    Unusable {
        /// Name of the file.
        file: &'static str,
        /// What is wrong with it, and perhaps what to do.
        problem: String,
    },
    /// Leaves signed as the files say would not be trusted by their own roots.
    #[error(
        "a certificate signed with ca-key.pem does not verify against root-cert.pem ({0}); \
         cert-chain.pem has to lead from ca-cert.pem to one of the roots"
    )]
    DoesNotVerify(webpki::Error),
    /// The files take a step of a rotation too early.
    #[error(transparent)]
    Premature(#[from] Premature),
    /// The files cannot be watched.
    #[error(transparent)]
    Watch(#[from] WatchError),
    /// The API server refuses.
    #[error("the API server: {0}")]
    Api(#[from] kube::Error),
    /// The API server does not answer.
    #[error("the API server does not answer in time")]
    ApiSilent,
    /// Somebody else changed the Secret at the same time.
    #[error("the Secret was changed by somebody else at the same time; try again")]
    Busy,
    /// A rotation of the root was asked for while one is under way.
    #[error("a rotation of the root is under way already")]
    RotationUnderWay,
    /// The root is not one that this process may replace.
    #[error("the signing certificate is plugged in (there is a cert-chain.pem); replace its files")]
    PluggedIn,
    /// The signing certificate has expired, or is not valid yet.
    #[error("the signing certificate has expired or is not valid yet")]
    SignerNotValid,
    /// The wished lifetime is too short to be of use.
    #[error("certificates live for {} s at least", super::sign::MIN_CERTIFICATE_TTL.as_secs())]
    TooShort,
    /// The certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Generate(#[from] rcgen::Error),
}

impl CaError {
    /// Returns whether the API server is the cause: it may answer later.
    pub(super) fn is_of_api(&self) -> bool {
        matches!(self, Self::Api(_) | Self::ApiSilent)
    }

    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    pub(super) fn unusable(file: &'static str, problem: impl Into<String>) -> Self {
        Self::Unusable { file, problem: problem.into() }
    }
}
