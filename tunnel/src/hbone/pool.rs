//! Tunnels of one thread, shared by the streams of a pod to one peer.

use std::{
    cell::RefCell,
    collections::HashMap,
    future::Future,
    hash::Hash,
    rc::{Rc, Weak},
};

use tokio::sync::watch;

use super::client::{Slot, Tunnel};
use crate::limits::{CLIENT_MAX_STREAMS, MAX_BULK_TUNNELS, MAX_VAIN_DIALS, POOL_IDLE_TIMEOUT};

/// Tunnels by peer.
pub struct Pool<K, E> {
    peers: Rc<Peers<K, E>>,
}

type Peers<K, E> = RefCell<HashMap<K, Peer<E>>>;

/// How a dial in progress ends; whoever waits for it may give up.
type Dial<E> = watch::Receiver<Option<Result<Weak<Tunnel>, E>>>;

struct Peer<E> {
    tunnels: Vec<Rc<Tunnel>>,
    dial: Option<Dial<E>>,
    /// Streams that the peer allows in a tunnel, as far as it has said: a new tunnel is to carry them
    /// before it has heard so itself.
    allows: usize,
}

/// Why there is no tunnel for a stream.
#[derive(Debug)]
pub enum PoolError<E> {
    /// No tunnel could be made.
    Dial(E),
    /// Tunnels could be made, and took no stream.
    NoRoom,
}

// === impl Pool ===

impl<K: Clone + Eq + Hash + 'static, E: Clone + 'static> Pool<K, E> {
    /// Makes an empty pool.
    pub fn new() -> Self {
        Self { peers: Rc::default() }
    }

    /// Takes a place for a stream to the peer `key`, in a tunnel that has room or in one that `dial`
    /// makes.
    ///
    /// Streams that ask while a tunnel is being made wait for that one. Where bulk transfers fill
    /// every tunnel, another one is made meanwhile for those that come later.
    pub async fn reserve<F>(&self, key: &K, dial: impl Fn() -> F) -> Result<Slot, PoolError<E>>
    where
        F: Future<Output = Result<Rc<Tunnel>, E>> + 'static,
    {
        let mut in_vain = 0;
        while in_vain < MAX_VAIN_DIALS {
            let mut dialling = {
                let mut peers = self.peers.borrow_mut();
                let peer = peers.entry(key.clone()).or_default();
                peer.forget_failed_dial();
                let slot = peer.reserve();
                if slot.is_none() || peer.wants_another() {
                    peer.dial.get_or_insert_with(|| self.dial(key, dial()));
                }
                match (slot, &peer.dial) {
                    (Some(slot), _) => return Ok(slot),
                    (None, Some(dial)) => dial.clone(),
                    (None, None) => continue,
                }
            };
            let dialled = dialling.wait_for(Option::is_some).await;
            // Without a result the dial has panicked, or the thread is about to end.
            let Ok(Some(dialled)) = dialled.map(|result| result.clone()) else { break };
            let tunnel = dialled.map_err(PoolError::Dial)?;
            // Others may have taken every place in it: there will be another one for the rest.
            if tunnel.upgrade().is_none_or(|tunnel| tunnel.streams() == 0) {
                in_vain += 1;
            }
        }
        Err(PoolError::NoRoom)
    }

    /// Lets go of the tunnels of the peers that `matches`; their open streams finish.
    pub fn forget(&self, matches: impl Fn(&K) -> bool) {
        self.peers.borrow_mut().retain(|key, _| !matches(key));
    }

    /// Lets go of tunnels that are closed, have carried nothing for [`POOL_IDLE_TIMEOUT`], or are
    /// not needed beside others any more; their open streams finish.
    pub fn sweep(&self) {
        self.peers.borrow_mut().retain(|_, peer| {
            peer.forget_failed_dial();
            peer.sweep();
            !peer.tunnels.is_empty() || peer.dial.is_some()
        });
    }

    /// Makes a tunnel in a task of its own: those who wait for it may give up, and it is for all.
    fn dial(
        &self,
        key: &K,
        dial: impl Future<Output = Result<Rc<Tunnel>, E>> + 'static,
    ) -> Dial<E> {
        let (tell, dialling) = watch::channel(None);
        let (key, peers) = (key.clone(), Rc::downgrade(&self.peers));
        tokio::task::spawn_local(async move {
            let dialled = dial.await;
            let result = dialled.as_ref().map(Rc::downgrade).map_err(E::clone);
            finish(&peers, &key, &tell, dialled.ok());
            tell.send_replace(Some(result));
        });
        dialling
    }
}

/// Adds the tunnel of a finished dial, unless the peer has been forgotten meanwhile.
fn finish<K: Eq + Hash, E>(
    peers: &Weak<Peers<K, E>>,
    key: &K,
    dial: &watch::Sender<Option<Result<Weak<Tunnel>, E>>>,
    tunnel: Option<Rc<Tunnel>>,
) {
    let Some(peers) = peers.upgrade() else { return };
    let mut peers = peers.borrow_mut();
    let Some(peer) = peers.get_mut(key) else { return };
    if peer.dial.take_if(|current| current.same_channel(&dial.subscribe())).is_some() {
        peer.tunnels.extend(tunnel);
    }
}

impl<K: Clone + Eq + Hash + 'static, E: Clone + 'static> Default for Pool<K, E> {
    fn default() -> Self {
        Self::new()
    }
}

// === impl Peer ===

impl<E> Peer<E> {
    /// Takes a place in the tunnel that has the least to do.
    fn reserve(&mut self) -> Option<Slot> {
        self.learn();
        self.tunnels.retain(|tunnel| tunnel.is_open());
        let most = self.allows;
        let with_room = self.tunnels.iter().filter(|tunnel| tunnel.has_room(most));
        with_room.min_by_key(|tunnel| (tunnel.is_filled(), tunnel.streams())).map(Tunnel::reserve)
    }

    /// Notes what the tunnels have heard of the streams that the peer allows: one that has worked has
    /// heard all, the others may know of less. One stream is tried in any case.
    fn learn(&mut self) {
        for tunnel in &self.tunnels {
            let allowed = tunnel.allowed_streams();
            let most = if tunnel.is_proven() { allowed } else { allowed.min(self.allows) };
            self.allows = most.max(1);
        }
    }

    /// Forgets a dial whose task is gone without a result, since it panicked: the next stream dials.
    fn forget_failed_dial(&mut self) {
        self.dial.take_if(|dial| dial.has_changed().is_err());
    }

    /// Returns whether bulk transfers fill every tunnel, and there may be more.
    fn wants_another(&self) -> bool {
        self.tunnels.len() < MAX_BULK_TUNNELS && self.tunnels.iter().all(|t| t.is_filled())
    }

    fn sweep(&mut self) {
        self.learn();
        self.tunnels.retain(|tunnel| {
            let idle = tunnel.idle_since().is_some_and(|t| t.elapsed() >= POOL_IDLE_TIMEOUT);
            tunnel.is_open() && !idle
        });
        if !self.tunnels.iter().any(|tunnel| tunnel.is_filled()) {
            let streams = self.tunnels.iter().map(|tunnel| tunnel.streams()).sum();
            self.tunnels.sort_by_key(|tunnel| std::cmp::Reverse(tunnel.streams()));
            self.tunnels.truncate(needed(streams, self.allows));
        }
    }
}

impl<E> Default for Peer<E> {
    fn default() -> Self {
        Self { tunnels: Vec::new(), dial: None, allows: CLIENT_MAX_STREAMS }
    }
}

/// Returns how many tunnels of `most` streams `streams` need that are not bulk transfers: one more
/// would be opened for them only when these are full.
fn needed(streams: usize, most: usize) -> usize {
    streams / most.max(1) + 1
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, convert::Infallible};

    use prometheus_client::metrics::gauge::Gauge;
    use tokio::task::LocalSet;

    use super::*;
    use crate::hbone::{server, transport::tests::Pair};

    /// Makes a tunnel to a peer that keeps it open.
    async fn dial() -> Result<Rc<Tunnel>, Infallible> {
        let (client, server) = Pair::new().streams().await;
        tokio::task::spawn_local(async move {
            let tunnel = server::Tunnel::accept(server.stream).await.unwrap();
            tunnel.run(std::future::pending(), drop).await.unwrap();
        });
        Ok(Tunnel::connect(client, Gauge::default(), std::future::pending()).await.unwrap())
    }

    #[tokio::test]
    async fn a_burst_of_streams_gets_as_many_tunnels_as_it_takes() {
        const STREAMS: usize = 20 * CLIENT_MAX_STREAMS;
        let work = async {
            let pool = Pool::new();
            let slots = (0..STREAMS).map(|_| pool.reserve(&"peer", dial));
            let slots = futures_util::future::join_all(slots).await;
            assert!(slots.iter().all(Result::is_ok));
            assert_eq!(pool.peers.borrow()["peer"].tunnels.len(), 20);
        };
        LocalSet::new().run_until(work).await;
    }

    #[tokio::test]
    async fn a_dial_that_panics_does_not_block_its_peer() {
        let work = async {
            let pool = Pool::new();
            let panics = Cell::new(true);
            let dial_once_in_vain = || {
                let panics = panics.replace(false);
                async move {
                    assert!(!panics, "as a bug would");
                    dial().await
                }
            };
            let first = pool.reserve(&"peer", dial_once_in_vain).await;
            assert!(matches!(first, Err(PoolError::NoRoom)));
            pool.sweep();
            assert!(pool.peers.borrow().is_empty());
            panics.set(true);
            let first = pool.reserve(&"peer", dial_once_in_vain).await;
            assert!(matches!(first, Err(PoolError::NoRoom)));
            assert!(pool.reserve(&"peer", dial_once_in_vain).await.is_ok());
        };
        LocalSet::new().run_until(work).await;
    }

    #[test]
    fn streams_that_fit_in_fewer_tunnels_keep_no_more() {
        for (streams, tunnels) in [(0, 1), (1, 1), (99, 1), (100, 2), (101, 2), (1_001, 11)] {
            assert_eq!(needed(streams, CLIENT_MAX_STREAMS), tunnels, "{streams}");
        }
        assert_eq!((needed(9, 10), needed(10, 10), needed(51, 10)), (1, 2, 6));
    }
}
