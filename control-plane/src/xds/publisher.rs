//! Takes changes up into the store and tells the streams when there is news.

use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use tracing::debug;

use super::{
    debounce::{DebounceOptions, Waiting},
    store::Store,
};
use crate::{
    resource::{Change, Urgency},
    telemetry::metrics::Metrics,
};

/// Changes taken up without looking whether it is time to publish: a first state comes in as few
/// messages as its source likes.
const MAX_BURST: usize = 64;

/// The store, and word of its changes.
#[derive(Debug)]
pub struct Published {
    store: RwLock<Store>,
    news: watch::Sender<Option<Announcement>>,
}

/// Word that the store changed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Announcement {
    /// When the first of the changes was taken up.
    pub(super) since: Instant,
    /// When the word went out.
    pub(super) published: Instant,
}

/// Takes up `changes` until their source ends.
///
/// The first message is the first state: until it has come, clients are turned away.
pub async fn publish(
    mut changes: mpsc::Receiver<Vec<Change>>,
    published: &Published,
    options: DebounceOptions,
    metrics: &Metrics,
) {
    let mut waiting: Option<Waiting> = None;
    let mut burst = Vec::new();
    loop {
        let due = waiting.map(|waiting| waiting.due(&options));
        tokio::select! {
            biased;
            () = at(due) => {
                if let Some(waiting) = waiting.take() {
                    metrics.debounce_time.observe(waiting.first.elapsed().as_secs_f64());
                    published.announce(waiting.first);
                }
            }
            count = changes.recv_many(&mut burst, MAX_BURST) => {
                if count == 0 {
                    return;
                }
                let urgency = published.take_up(burst.drain(..).flatten(), metrics);
                let first_state = published.news.borrow().is_none();
                if first_state {
                    published.announce(Instant::now());
                } else if let Some(urgency) = urgency {
                    waiting = Some(Waiting::with(waiting, urgency, Instant::now()));
                }
            }
        }
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

// === impl Published ===

impl Default for Published {
    fn default() -> Self {
        Self::new(Store::default())
    }
}

impl Published {
    /// Wraps a store that has no state yet.
    pub fn new(store: Store) -> Self {
        Self { store: RwLock::new(store), news: watch::Sender::new(None) }
    }

    /// Returns the store as it is now.
    pub fn store(&self) -> RwLockReadGuard<'_, Store> {
        self.store.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether the first state has come.
    pub fn has_state(&self) -> bool {
        self.news.borrow().is_some()
    }

    /// Waits for the first state.
    pub async fn first_state(&self) {
        // The sender lives as long as `self`.
        let _ = self.news.subscribe().wait_for(Option::is_some).await;
    }

    pub(super) fn news(&self) -> watch::Receiver<Option<Announcement>> {
        self.news.subscribe()
    }

    fn take_up(&self, changes: impl Iterator<Item = Change>, metrics: &Metrics) -> Option<Urgency> {
        let mut urgency = None;
        // Nothing that holds the lock panics.
        let mut store = self.store.write().unwrap_or_else(PoisonError::into_inner);
        for change in changes {
            let (kind, this) = (change.kind, change.urgency);
            if store.apply(change) {
                metrics.push_trigger(kind).inc();
                urgency = urgency.max(Some(this));
            }
        }
        metrics.set_resources(|kind| store.count(kind));
        urgency
    }

    fn announce(&self, since: Instant) {
        debug!(waited = ?since.elapsed(), "changes published");
        self.news.send_replace(Some(Announcement { since, published: Instant::now() }));
    }
}
