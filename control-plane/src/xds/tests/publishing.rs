use std::{sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

use super::super::{
    debounce::DebounceOptions,
    fixtures::{gone, workload},
    publisher::{Published, publish},
};
use crate::{
    resource::{Change, Kind},
    telemetry::metrics::Metrics,
};

/// A publisher with its first state.
struct Setting {
    changes: mpsc::Sender<Vec<Change>>,
    published: Arc<Published>,
}

impl Setting {
    async fn new() -> Self {
        let (changes, receiver) = mpsc::channel(1);
        let published = Arc::new(Published::default());
        assert!(!published.has_state());
        let this = Arc::clone(&published);
        tokio::spawn(async move {
            publish(receiver, &this, DebounceOptions::default(), &Metrics::new()).await;
        });
        changes.send(vec![workload("a", 1)]).await.unwrap();
        published.first_state().await;
        Self { changes, published }
    }

    /// Sends changes one after another, with pauses; returns how long the first was kept back.
    async fn kept_back(&self, changes: Vec<Change>, pause: Duration) -> Duration {
        let mut news = self.published.news();
        let start = Instant::now();
        for change in changes {
            self.changes.send(vec![change]).await.unwrap();
            if timeout(pause, news.changed()).await.is_ok() {
                return start.elapsed();
            }
        }
        news.changed().await.unwrap();
        start.elapsed()
    }
}

fn updates(count: u32) -> Vec<Change> {
    (0..count).map(|content| workload("a", 100 + content)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_change_waits_for_a_quiet_moment() {
    let setting = Setting::new().await;
    let pause = Duration::from_millis(50);
    assert_eq!(setting.kept_back(updates(1), pause).await, Duration::from_millis(100));
    assert_eq!(setting.kept_back(updates(3), pause).await, Duration::from_millis(200));
}

#[tokio::test(start_paused = true)]
async fn no_change_waits_for_longer_than_the_limit() {
    let setting = Setting::new().await;
    let kept_back = setting.kept_back(updates(1000), Duration::from_millis(90)).await;
    assert_eq!(kept_back, Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn a_removal_goes_out_at_once() {
    let setting = Setting::new().await;
    let removal = vec![gone(Kind::Workload, "a")];
    let kept_back = setting.kept_back(removal, Duration::from_millis(50)).await;
    assert_eq!(kept_back, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_change_that_changes_nothing_is_no_news() {
    let setting = Setting::new().await;
    setting.changes.send(vec![workload("a", 1)]).await.unwrap();
    let mut news = setting.published.news();
    assert!(timeout(Duration::from_mins(1), news.changed()).await.is_err());
}
