//! Where certificates come from.

mod local;
mod remote;
mod root_files;

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use fairlead_component::clock::Clock;
use futures_util::future::BoxFuture;
use mesh_api::{
    control_plane::ConnectError,
    identity::{Identity, TrustDomain},
};

pub use self::{
    local::{CLOCK_SKEW_TOLERANCE, LocalCa},
    remote::RemoteAuthority,
};
use super::svid::{Svid, SvidError};

/// Lifetime of a workload's certificate unless configured (Istio's default).
pub const DEFAULT_SVID_TTL: Duration = Duration::from_hours(24);

/// Issues certificates to the workloads of this node.
pub trait CertificateAuthority: Send + Sync + 'static {
    /// Returns a certificate for `identity` with a fresh key.
    fn issue<'a>(&'a self, identity: &'a Identity) -> BoxFuture<'a, Result<Svid, CaError>>;
}

/// The local CA with the lifetime and the clock that it issues by.
#[derive(Clone, Debug)]
pub struct LocalAuthority {
    /// The CA that signs.
    pub ca: Arc<LocalCa>,
    /// Lifetime of each certificate.
    pub ttl: Duration,
    /// Clock that validity counts from.
    pub clock: Clock,
}

/// Why there is no CA, or no certificate from it.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The operating system refused access to the CA's files.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The CA's files are not usable as they are.
    #[error("{}: {problem}; {remedy}", path.display())]
    Unusable {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// What the operator can do.
        remedy: &'static str,
    },
    /// The root certificate is past its end.
    #[error("the root certificate of trust domain {0} has expired")]
    RootExpired(TrustDomain),
    /// The identity belongs to another trust domain.
    #[error("cannot issue to {identity}: this CA serves the trust domain {trust_domain}")]
    ForeignIdentity {
        /// The identity asked for.
        identity: Identity,
        /// The CA's trust domain.
        trust_domain: TrustDomain,
    },
    /// The certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Generate(#[from] rcgen::Error),
    /// The CA cannot be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The CA answered with an error, or the connection to it broke.
    #[error("the request to the CA failed, {code:?}: {message}")]
    Refused {
        /// Kind of the error.
        code: tonic::Code,
        /// What it says.
        message: String,
    },
    /// The CA took too long.
    #[error("the CA did not answer in time")]
    Timeout,
    /// The CA's answer cannot be used.
    #[error("the CA's answer cannot be used: {0}")]
    Answer(&'static str),
    /// What was issued is no good for those who trust the CA's roots.
    #[error("the certificate does not fit the roots that came with it: {0}")]
    Untrusted(#[source] rustls::Error),
    /// What was issued is not an SVID.
    #[error(transparent)]
    Svid(#[from] SvidError),
}

// === impl CaError ===

impl CaError {
    /// Returns whether the CA, or what it is asked by, has decided: to ask again at once brings
    /// nothing else. Everything else is a matter of reaching it.
    pub fn is_answer(&self) -> bool {
        use tonic::Code;

        match self {
            Self::Connect(_) | Self::Timeout => false,
            Self::Refused { code, .. } => !matches!(
                code,
                Code::Aborted
                    | Code::Cancelled
                    | Code::DeadlineExceeded
                    | Code::Internal
                    | Code::ResourceExhausted
                    | Code::Unavailable
                    | Code::Unknown
            ),
            Self::Io { .. }
            | Self::Unusable { .. }
            | Self::RootExpired(_)
            | Self::ForeignIdentity { .. }
            | Self::Generate(_)
            | Self::Answer(_)
            | Self::Untrusted(_)
            | Self::Svid(_) => true,
        }
    }
}

impl From<tonic::Status> for CaError {
    fn from(status: tonic::Status) -> Self {
        Self::Refused { code: status.code(), message: status.message().to_owned() }
    }
}

// === impl LocalAuthority ===

impl CertificateAuthority for LocalAuthority {
    fn issue<'a>(&'a self, identity: &'a Identity) -> BoxFuture<'a, Result<Svid, CaError>> {
        Box::pin(async move { self.ca.issue(identity, self.ttl, self.clock.now()) })
    }
}
