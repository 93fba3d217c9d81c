//! Tunnels of one thread, shared by the streams of a pod to one peer.

use std::{cell::RefCell, collections::HashMap, future::Future, hash::Hash, rc::Rc};

use futures_util::{
    FutureExt,
    future::{LocalBoxFuture, Shared},
};

use super::{
    client::{Slot, Tunnel},
    limits::POOL_IDLE_TIMEOUT,
};

/// Tunnels that a stream waits for in vain before it is given up: each was full, or its peer allows
/// no streams.
const MAX_DIALS: usize = 8;

/// A dial in progress, shared by all who wait for it.
type Dial<E> = Shared<LocalBoxFuture<'static, Result<Rc<Tunnel>, E>>>;

/// Tunnels by peer.
pub struct Pool<K, E: Clone> {
    peers: RefCell<HashMap<K, Peer<E>>>,
}

struct Peer<E: Clone> {
    tunnels: Vec<Rc<Tunnel>>,
    dial: Option<Dial<E>>,
}

/// Why there is no tunnel for a stream.
#[derive(Debug)]
pub enum PoolError<E> {
    /// No tunnel could be made.
    Dial(E),
    /// Every tunnel was full at once.
    NoRoom,
}

// === impl Pool ===

impl<K: Clone + Eq + Hash, E: Clone> Pool<K, E> {
    /// Makes an empty pool.
    pub fn new() -> Self {
        Self { peers: RefCell::new(HashMap::new()) }
    }

    /// Takes a place for a stream to the peer `key`, in a tunnel that has room or in one that `dial`
    /// makes.
    ///
    /// Streams that ask while a tunnel is being made wait for that one.
    pub async fn reserve<F>(&self, key: &K, dial: impl Fn() -> F) -> Result<Slot, PoolError<E>>
    where
        F: Future<Output = Result<Rc<Tunnel>, E>> + 'static,
    {
        for _ in 0..MAX_DIALS {
            let pending = {
                let mut peers = self.peers.borrow_mut();
                let peer = peers.entry(key.clone()).or_insert_with(Peer::new);
                if let Some(slot) = peer.reserve() {
                    return Ok(slot);
                }
                peer.dial.get_or_insert_with(|| dial().boxed_local().shared()).clone()
            };
            let dialled = pending.clone().await;
            self.finish(key, &pending, dialled.as_ref().ok());
            dialled.map_err(PoolError::Dial)?;
        }
        Err(PoolError::NoRoom)
    }

    /// Lets go of the tunnels of the peers that `matches`; their open streams finish.
    pub fn forget(&self, matches: impl Fn(&K) -> bool) {
        self.peers.borrow_mut().retain(|key, _| !matches(key));
    }

    /// Lets go of tunnels that are closed or have carried nothing for [`POOL_IDLE_TIMEOUT`].
    pub fn sweep(&self) {
        self.peers.borrow_mut().retain(|_, peer| {
            peer.tunnels.retain(|tunnel| {
                let idle = tunnel.idle_since().is_some_and(|t| t.elapsed() >= POOL_IDLE_TIMEOUT);
                tunnel.is_open() && !idle
            });
            !peer.tunnels.is_empty() || peer.dial.is_some()
        });
    }

    /// Adds the tunnel of a finished dial; of the many who waited the first does it.
    fn finish(&self, key: &K, dial: &Dial<E>, tunnel: Option<&Rc<Tunnel>>) {
        let mut peers = self.peers.borrow_mut();
        let Some(peer) = peers.get_mut(key) else { return };
        if !peer.dial.as_ref().is_some_and(|current| current.ptr_eq(dial)) {
            return;
        }
        peer.dial = None;
        peer.tunnels.extend(tunnel.cloned());
    }
}

impl<K: Clone + Eq + Hash, E: Clone> Default for Pool<K, E> {
    fn default() -> Self {
        Self::new()
    }
}

// === impl Peer ===

impl<E: Clone> Peer<E> {
    fn new() -> Self {
        Self { tunnels: Vec::new(), dial: None }
    }

    fn reserve(&mut self) -> Option<Slot> {
        self.tunnels.retain(|tunnel| tunnel.is_open());
        self.tunnels.iter().find_map(Tunnel::reserve)
    }
}
