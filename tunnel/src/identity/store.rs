//! The certificates of this node: one per workload identity, shared by the identity's pods.
//!
//! Connections read the current certificate without a lock; one task per identity renews it.

mod renewal;
mod slot;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::SystemTime,
};

use fairlead_component::clock::Clock;
use mesh_api::identity::Identity;
use rustls::pki_types::CertificateDer;
use tokio::{runtime::Handle, sync::watch, task::AbortHandle};

use self::slot::Slot;
use super::{ca::CertificateAuthority, leaf::Validity};
use crate::tls::{Revocations, TlsConfigs};

/// The certificates of all identities in use on this node.
#[derive(Clone)]
pub struct IdentityStore {
    shared: Arc<Shared>,
}

/// Keeps one identity's certificate alive; the identity is forgotten with its last handle.
#[derive(Clone)]
pub struct IdentityHandle {
    entry: Arc<Entry>,
}

/// Why an identity cannot be used right now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoCertificate {
    /// The first certificate has been requested and not arrived.
    #[error("the certificate of {0} has not been issued yet")]
    Pending(Identity),
    /// The first certificate could not be obtained so far.
    #[error("no certificate for {identity}: {error}")]
    Failed {
        /// The identity without a certificate.
        identity: Identity,
        /// What the last request ended with.
        error: String,
    },
    /// The certificate ran out before it could be renewed.
    #[error("the certificate of {identity} expired at {not_after:?}")]
    Expired {
        /// The identity whose certificate expired.
        identity: Identity,
        /// When it expired.
        not_after: SystemTime,
    },
}

/// What the admin interface shows of an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateInfo {
    /// The workload identity.
    pub identity: Identity,
    /// Serial number of the certificate in use, if there is one.
    pub serial: Option<String>,
    /// Validity of the certificate in use, if there is one.
    pub validity: Option<Validity>,
    /// The certificates that peers are shown, the workload's own first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The certificates that those of peers must chain to.
    pub roots: Vec<CertificateDer<'static>>,
    /// What the last request ended with, if it failed.
    pub last_error: Option<String>,
}

struct Shared {
    authority: Arc<dyn CertificateAuthority>,
    clock: Clock,
    revocations: Revocations,
    runtime: Handle,
    entries: Mutex<HashMap<Identity, Weak<Entry>>>,
    /// Makes renewals that failed ask again.
    retry: watch::Sender<()>,
}

struct Entry {
    slot: Arc<Slot>,
    renewal: AbortHandle,
    shared: Weak<Shared>,
}

// === impl IdentityStore ===

impl IdentityStore {
    /// Returns an empty store whose renewals run on `runtime`. What its certificates are used for
    /// ends where `revocations` name the certificate of the peer.
    pub fn new(
        authority: Arc<dyn CertificateAuthority>,
        clock: Clock,
        revocations: Revocations,
        runtime: Handle,
    ) -> Self {
        let (entries, retry) = (Mutex::default(), watch::Sender::default());
        Self { shared: Arc::new(Shared { authority, clock, revocations, runtime, entries, retry }) }
    }

    /// Returns a handle to `identity`; the first one makes the store request its certificate.
    pub fn acquire(&self, identity: &Identity) -> IdentityHandle {
        let mut entries = self.shared.entries();
        if let Some(entry) = entries.get(identity).and_then(Weak::upgrade) {
            return IdentityHandle { entry };
        }
        let entry = Arc::new(self.start(identity));
        entries.insert(identity.clone(), Arc::downgrade(&entry));
        IdentityHandle { entry }
    }

    /// Lists the identities in use, sorted.
    pub fn certificates(&self) -> Vec<CertificateInfo> {
        let mut infos: Vec<_> =
            self.shared.in_use().iter().map(|entry| entry.slot.info()).collect();
        infos.sort_by(|a, b| a.identity.cmp(&b.identity));
        infos
    }

    /// Makes requests that failed again, without the rest of the wait between two of them: the CA
    /// may be back.
    pub fn retry(&self) {
        self.shared.retry.send_replace(());
    }

    /// Waits until each identity in use has a valid certificate, or an answer of the CA why not;
    /// the caller sets the time limit.
    pub async fn wait_settled(&self) {
        for entry in self.shared.in_use() {
            entry.slot.settled().await;
        }
    }

    fn start(&self, identity: &Identity) -> Entry {
        let Shared { authority, clock, revocations, runtime, retry, .. } = self.shared.as_ref();
        let slot = Arc::new(Slot::new(identity.clone(), clock.clone()));
        let renewal = renewal::keep_renewed(
            Arc::clone(&slot),
            Arc::clone(authority),
            revocations.clone(),
            retry.subscribe(),
        );
        Entry {
            slot,
            renewal: runtime.spawn(renewal).abort_handle(),
            shared: Arc::downgrade(&self.shared),
        }
    }
}

impl fmt::Debug for IdentityStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.certificates()).finish()
    }
}

// === impl Shared ===

impl Shared {
    fn entries(&self) -> MutexGuard<'_, HashMap<Identity, Weak<Entry>>> {
        // The map is whole between any two of its operations.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn in_use(&self) -> Vec<Arc<Entry>> {
        self.entries().values().filter_map(Weak::upgrade).collect()
    }
}

// === impl Entry ===

impl Drop for Entry {
    fn drop(&mut self) {
        self.renewal.abort();
        let Some(shared) = self.shared.upgrade() else {
            return;
        };
        let mut entries = shared.entries();
        // Someone may have acquired the identity anew since the last handle went.
        let identity = self.slot.identity();
        if entries.get(identity).is_some_and(|entry| entry.strong_count() == 0) {
            entries.remove(identity);
        }
    }
}

// === impl IdentityHandle ===

impl IdentityHandle {
    /// Returns the identity.
    pub fn identity(&self) -> &Identity {
        self.entry.slot.identity()
    }

    /// Returns the TLS configurations to use for a new connection.
    pub fn current(&self) -> Result<Arc<TlsConfigs>, NoCertificate> {
        self.entry.slot.current()
    }

    /// Waits until there is a valid certificate; the caller sets the time limit.
    pub async fn wait_ready(&self) -> Arc<TlsConfigs> {
        self.entry.slot.ready().await
    }
}

impl fmt::Debug for IdentityHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("IdentityHandle").field(&self.entry.slot.info()).finish()
    }
}

#[cfg(test)]
mod tests;
