//! Mutual TLS between workloads: TLS 1.3 only, both ends prove a SPIFFE identity.
//!
//! Every check of a peer happens inside the handshake, so a peer that fails one gets a TLS alert
//! and none of its bytes reach HTTP/2. A session that is resumed was checked when it began; what time
//! may have changed is checked again before HTTP/2 begins. Revocation ends what is open, too.

pub mod config;
pub mod failure;
pub mod peer;
pub mod revocation;
mod sessions;
#[cfg(test)]
pub(crate) mod tests;
mod verifier;

pub use self::{
    config::{TlsConfigError, TlsConfigs, server_name},
    failure::HandshakeFailure,
    peer::{PeerError, peer_identity},
    revocation::{RevocationLists, Revocations, TrustedChain},
};
