//! The certificate authority: signs what node proxies ask for on behalf of their pods.
//!
//! The signing key and the roots live in a directory or in a Secret of the cluster, with the names
//! that Istio gives them, either in the layout of its Secret `istio-ca-secret` (a root that signs
//! itself; made here if there is none) or in that of `cacerts` (an intermediate, plugged in). See
//! [`contents`] for the files and [`rotation`] for how one root gives way to another.

mod authority;
mod authorize;
mod bundle;
pub mod contents;
mod csr;
pub mod directory;
pub mod error;
mod history;
pub mod rotation;
pub mod secret;
mod service;
mod sign;
mod step;

pub use self::{
    authority::{Authority, AuthorityOptions},
    authorize::{Denied, IssuePolicy, Placement},
    bundle::Bundle,
    csr::{Csr, CsrError},
    error::CaError,
    history::Premature,
    secret::CaSecrets,
    service::CertificateService,
    sign::{DEFAULT_CERTIFICATE_TTL, Issued, MAX_CERTIFICATE_TTL, MIN_CERTIFICATE_TTL, Subject},
};

#[cfg(test)]
mod tests;
