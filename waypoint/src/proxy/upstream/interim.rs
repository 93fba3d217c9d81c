//! Interim answers (RFC 9110 section 15.2) over HTTP/1. They are not passed on, but the library would
//! take any number of them. Over HTTP/2 the connection is guarded instead.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};

use hyper::{Request, ext::on_informational};
use tokio::sync::Notify;

use crate::limits::MAX_INTERIM_ANSWERS;

/// The interim answers to a request.
#[derive(Debug, Default)]
pub(super) struct Interim {
    seen: AtomicU32,
    too_many: Notify,
}

// === impl Interim ===

impl Interim {
    /// Counts the interim answers to `request`.
    pub(super) fn count<B>(request: &mut Request<B>) -> Arc<Self> {
        let interim = Arc::<Self>::default();
        let counted = interim.clone();
        on_informational(request, move |_| counted.add());
        interim
    }

    /// Waits until there are more than there may be.
    pub(super) async fn excess(&self) {
        self.too_many.notified().await;
    }

    fn add(&self) {
        if self.seen.fetch_add(1, Relaxed) == MAX_INTERIM_ANSWERS {
            self.too_many.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_few_may_come_and_no_more() {
        let interim = Interim::default();
        for _ in 0..MAX_INTERIM_ANSWERS {
            interim.add();
        }
        assert!(timeout(Duration::ZERO, interim.excess()).await.is_err());
        interim.add();
        timeout(Duration::ZERO, interim.excess()).await.unwrap();
    }
}
