//! Objects as a watch tells of them: pure.

use std::collections::{BTreeMap, BTreeSet};

use kube::runtime::watcher;

/// Objects as far as they are known, by name.
#[derive(Debug)]
pub(super) struct Followed<K, V> {
    known: BTreeMap<K, V>,
    /// What a list in progress has brought.
    listed: BTreeMap<K, V>,
    /// Whether there has been a whole list.
    is_complete: bool,
}

// === impl Followed ===

impl<K, V> Default for Followed<K, V> {
    fn default() -> Self {
        Self { known: BTreeMap::new(), listed: BTreeMap::new(), is_complete: false }
    }
}

impl<K: Ord + Clone, V> Followed<K, V> {
    /// Returns whether there has been a whole list.
    pub(super) fn is_complete(&self) -> bool {
        self.is_complete
    }

    pub(super) fn get(&self, name: &K) -> Option<&V> {
        self.known.get(name)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.known.values()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &K> {
        self.known.keys()
    }

    /// Takes an event, and adds what may be different because of it to `touched`.
    pub(super) fn take(&mut self, event: watcher::Event<(K, V)>, touched: &mut BTreeSet<K>) {
        match event {
            watcher::Event::Init => self.listed.clear(),
            watcher::Event::InitApply((name, value)) => {
                self.listed.insert(name, value);
            }
            watcher::Event::InitDone => {
                let listed = std::mem::take(&mut self.listed);
                touched.extend(listed.keys().cloned());
                touched.extend(std::mem::replace(&mut self.known, listed).into_keys());
                self.is_complete = true;
            }
            watcher::Event::Apply((name, value)) => {
                touched.insert(name.clone());
                self.known.insert(name, value);
            }
            watcher::Event::Delete((name, _)) => {
                self.known.remove(&name);
                touched.insert(name);
            }
        }
    }
}
