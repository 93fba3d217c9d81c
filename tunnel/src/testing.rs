//! Certificates for tests.
#![expect(clippy::unwrap_used, reason = "what fails, fails the test")]

use std::sync::Arc;

use fairlead_component::clock::Clock;
use tempfile::TempDir;
use tokio::runtime::Handle;

use crate::{
    identity::{DEFAULT_SVID_TTL, IdentityStore, LocalAuthority, LocalCa},
    tls::Revocations,
};

/// Returns certificates of a CA that lives as long as the directory.
pub fn identities() -> (IdentityStore, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::system();
    let ca = LocalCa::open_or_create(dir.path(), &"cluster.local".parse().unwrap()).unwrap();
    let authority =
        LocalAuthority { ca: Arc::new(ca), ttl: DEFAULT_SVID_TTL, clock: clock.clone() };
    let none = Revocations::none();
    (IdentityStore::new(Arc::new(authority), clock, none, Handle::current()), dir)
}
