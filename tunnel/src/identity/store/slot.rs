//! One identity's certificate as connections see it.

use std::sync::Arc;

use arc_swap::ArcSwap;
use fairlead_component::clock::Clock;
use mesh_api::identity::Identity;
use tokio::sync::Notify;

use super::{CertificateInfo, NoCertificate};
use crate::{identity::svid::Svid, tls::TlsConfigs};

/// Place of one identity's certificate: written by its renewal, read by every connection.
pub(super) struct Slot {
    identity: Identity,
    clock: Clock,
    state: ArcSwap<State>,
    /// Wakes who waits for another state.
    set: Notify,
}

/// What is known about the identity; replaced as a whole.
#[derive(Clone, Default)]
pub(super) struct State {
    /// The newest certificate, valid or expired.
    pub(super) certificate: Option<Certificate>,
    /// What the last request ended with, if it failed.
    pub(super) failure: Option<Failure>,
}

/// Why a request brought no certificate.
#[derive(Clone)]
pub(super) struct Failure {
    pub(super) message: String,
    /// Whether the CA has decided so; otherwise it could not be reached.
    pub(super) is_answer: bool,
}

/// A certificate in use.
#[derive(Clone)]
pub(super) struct Certificate {
    pub(super) svid: Svid,
    pub(super) tls: Arc<TlsConfigs>,
}

// === impl Slot ===

impl Slot {
    pub(super) fn new(identity: Identity, clock: Clock) -> Self {
        Self { identity, clock, state: ArcSwap::default(), set: Notify::new() }
    }

    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(super) fn state(&self) -> Arc<State> {
        self.state.load_full()
    }

    /// Replaces the state and wakes whoever waits for another.
    pub(super) fn set(&self, state: State) {
        self.state.store(Arc::new(state));
        self.set.notify_waiters();
    }

    pub(super) fn current(&self) -> Result<Arc<TlsConfigs>, NoCertificate> {
        let state = self.state.load();
        let identity = || self.identity.clone();
        match (&state.certificate, &state.failure) {
            (Some(Certificate { tls, .. }), _) if self.clock.now() < tls.not_after() => {
                Ok(Arc::clone(tls))
            }
            (Some(Certificate { tls, .. }), _) => {
                Err(NoCertificate::Expired { identity: identity(), not_after: tls.not_after() })
            }
            (None, Some(Failure { message, .. })) => {
                Err(NoCertificate::Failed { identity: identity(), error: message.clone() })
            }
            (None, None) => Err(NoCertificate::Pending(identity())),
        }
    }

    pub(super) async fn ready(&self) -> Arc<TlsConfigs> {
        self.wait(|slot| slot.current().ok()).await
    }

    /// Waits until there is a valid certificate, or the CA has answered that there is none.
    pub(super) async fn settled(&self) {
        self.wait(|slot| {
            let is_answered = || slot.state.load().failure.as_ref().is_some_and(|f| f.is_answer);
            (slot.current().is_ok() || is_answered()).then_some(())
        })
        .await;
    }

    async fn wait<T>(&self, look: impl Fn(&Self) -> Option<T>) -> T {
        loop {
            // Before the look, so that what is set in between is not missed.
            let set = self.set.notified();
            if let Some(found) = look(self) {
                return found;
            }
            set.await;
        }
    }

    pub(super) fn info(&self) -> CertificateInfo {
        let State { certificate, failure } = self.state.load().as_ref().clone();
        let svid = certificate.map(|certificate| certificate.svid);
        CertificateInfo {
            identity: self.identity.clone(),
            serial: svid.as_ref().map(|svid| svid.leaf().serial.clone()),
            validity: svid.as_ref().map(Svid::validity),
            chain: svid.as_ref().map(|svid| svid.chain().to_vec()).unwrap_or_default(),
            roots: svid.map(|svid| svid.roots().to_vec()).unwrap_or_default(),
            last_error: failure.map(|failure| failure.message),
        }
    }
}
