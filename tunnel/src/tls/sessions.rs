//! TLS sessions that a client may resume. They belong to one certificate of ours and one set of
//! expected peers: the library resumes none with another verifier or other credentials.
//!
//! A resumed session shows no certificate, so none is kept longer than the certificates that the
//! peer showed when it began.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use fairlead_component::clock::Clock;
use rustls::{
    NamedGroup,
    client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue},
    pki_types::ServerName,
};

use crate::limits::{MAX_SESSION_PEERS, MAX_SESSIONS};

/// Sessions by peer address.
pub(super) struct Sessions {
    clock: Clock,
    peers: Mutex<HashMap<ServerName<'static>, Peer>>,
}

struct Peer {
    /// When the first of its certificates expires.
    not_after: SystemTime,
    sessions: VecDeque<Tls13ClientSessionValue>,
}

// === impl Sessions ===

impl Sessions {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, peers: Mutex::default() }
    }

    /// Notes that the peer has just shown certificates that are good until `not_after`.
    pub(super) fn verified(&self, name: &ServerName<'_>, not_after: SystemTime) {
        let mut peers = self.peers();
        if peers.len() >= MAX_SESSION_PEERS && !peers.contains_key(name) {
            // Costs each peer a full handshake, once.
            peers.clear();
        }
        let now = self.clock.now();
        let new = || Peer { not_after, sessions: VecDeque::new() };
        let peer = peers.entry(name.to_owned()).or_insert_with(new);
        if peer.not_after < now {
            *peer = new();
        }
        // A session that comes late may be of another handshake with the same peer.
        peer.not_after = peer.not_after.min(not_after);
    }

    fn peers(&self) -> MutexGuard<'_, HashMap<ServerName<'static>, Peer>> {
        // The map is whole between any two of its operations.
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").field("peers", &self.peers().len()).finish_non_exhaustive()
    }
}

impl ClientSessionStore for Sessions {
    fn insert_tls13_ticket(&self, name: ServerName<'static>, session: Tls13ClientSessionValue) {
        let mut peers = self.peers();
        // Of a peer that was not verified nothing is kept.
        let Some(Peer { sessions, .. }) = peers.get_mut(&name) else { return };
        if sessions.len() >= MAX_SESSIONS {
            sessions.pop_front();
        }
        sessions.push_back(session);
    }

    fn take_tls13_ticket(&self, name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        let mut peers = self.peers();
        let peer = peers.get_mut(name)?;
        if peer.not_after < self.clock.now() {
            peers.remove(name);
            return None;
        }
        peer.sessions.pop_back()
    }

    fn set_kx_hint(&self, _name: ServerName<'static>, _group: NamedGroup) {}

    fn kx_hint(&self, _name: &ServerName<'_>) -> Option<NamedGroup> {
        // All peers take the group that is offered first.
        None
    }

    fn set_tls12_session(&self, _name: ServerName<'static>, _session: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _name: &ServerName<'static>) {}
}
