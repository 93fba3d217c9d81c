//! Work that several want at once and one of them does.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::OnceCell;

/// What is being done, by what it is about. There is an entry for no longer than somebody waits.
#[derive(Debug)]
pub(super) struct Merged<K, V>(Mutex<HashMap<K, Arc<OnceCell<V>>>>);

/// One of those who wait for the same.
struct Place<'a, K: Eq + Hash, V> {
    merged: &'a Merged<K, V>,
    key: K,
    result: Arc<OnceCell<V>>,
}

// === impl Merged ===

impl<K, V> Default for Merged<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Clone + Eq + Hash, V: Clone> Merged<K, V> {
    /// Returns what `work` comes to, or the same work of somebody who began before. If that one goes
    /// away, another one of those who wait begins anew.
    pub(super) async fn share(&self, key: K, work: impl Future<Output = V>) -> V {
        let result = self.places().entry(key.clone()).or_default().clone();
        let place = Place { merged: self, key, result };
        place.result.get_or_init(|| work).await.clone()
    }
}

impl<K, V> Merged<K, V> {
    fn places(&self) -> MutexGuard<'_, HashMap<K, Arc<OnceCell<V>>>> {
        // Every change of the map is a single insert or remove: it is whole even after a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Place ===

impl<K: Eq + Hash, V> Drop for Place<'_, K, V> {
    fn drop(&mut self) {
        let mut places = self.merged.places();
        let is_it = places.get(&self.key).is_some_and(|known| Arc::ptr_eq(known, &self.result));
        // Nobody else can come to wait in between. One is the map's, and one this.
        let is_last = Arc::strong_count(&self.result) <= 2;
        if is_it && (is_last || self.result.initialized()) {
            places.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future::pending};

    use futures_util::{FutureExt as _, future::join_all};
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn what_many_want_at_once_is_done_once_and_anew_afterwards() {
        let (merged, begun) = (Merged::default(), Cell::new(0));
        let work = || async {
            begun.set(begun.get() + 1);
            tokio::task::yield_now().await;
            begun.get()
        };
        for turn in 1..=3 {
            let found = join_all((0..100).map(|_| merged.share("a", work()))).await;
            assert!(found.iter().all(|number| *number == turn), "{found:?}");
            assert_eq!(begun.get(), turn);
            assert!(merged.places().is_empty());
        }
        let other = Merged::default();
        join_all((0..5).map(|key| other.share(key % 2, work()))).await;
        assert_eq!(begun.get(), 5, "once for each of two");
    }

    #[tokio::test]
    async fn another_one_goes_on_when_the_one_that_began_goes_away() {
        let merged = Merged::default();
        let mut first = Box::pin(merged.share("a", pending()));
        assert_eq!(first.as_mut().now_or_never(), None);
        let (send, receive) = oneshot::channel::<u8>();
        let mut second = Box::pin(merged.share("a", receive));
        assert_eq!(second.as_mut().now_or_never(), None);
        send.send(7).unwrap();
        assert_eq!(second.as_mut().now_or_never(), None, "the first one does it");
        drop(first);
        assert_eq!(second.await, Ok(7));
        assert!(merged.places().is_empty());
    }

    #[tokio::test]
    async fn nothing_is_left_of_those_who_go_away() {
        let merged = Merged::<_, ()>::default();
        let mut places: Vec<_> = (0..3).map(|_| Box::pin(merged.share("a", pending()))).collect();
        assert!(places.iter_mut().all(|place| place.now_or_never().is_none()));
        assert_eq!(merged.places().len(), 1);
        drop(places);
        assert!(merged.places().is_empty());
    }
}
