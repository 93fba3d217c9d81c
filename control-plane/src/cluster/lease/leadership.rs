//! Whether this process leads, for those who act only then.

use std::future::pending;

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

/// Tells whether this process leads. What was said holds until its time is over, even if whoever
/// renews the lease is stuck.
#[derive(Clone, Debug)]
pub struct Leadership(watch::Receiver<Option<Instant>>);

// === impl Leadership ===

impl Leadership {
    pub(crate) fn new(leads_until: watch::Receiver<Option<Instant>>) -> Self {
        Self(leads_until)
    }

    /// Returns the view of a process that never leads.
    pub fn never() -> Self {
        Self(watch::Sender::new(None).subscribe())
    }

    /// Returns whether this process leads now.
    pub fn leads(&self) -> bool {
        super::is_to_come(*self.0.borrow())
    }

    /// Waits until this process leads.
    pub async fn gained(&mut self) {
        // Nobody who could say so is left: it will not.
        if self.0.wait_for(|until| super::is_to_come(*until)).await.is_err() {
            pending::<()>().await;
        }
    }

    /// Waits until this process does not lead.
    pub async fn lost(&mut self) {
        loop {
            let until = *self.0.borrow_and_update();
            let Some(until) = until.filter(|until| Instant::now() < *until) else { return };
            tokio::select! {
                () = sleep_until(until) => {}
                changed = self.0.changed() => if changed.is_err() { return sleep_until(until).await },
            }
        }
    }

    /// Does `work` whenever this process leads, and drops it when it does not any more. Work that
    /// ends is done again when leadership has been lost and gained.
    pub async fn while_leading<F: Future<Output = ()>>(mut self, work: impl Fn() -> F) {
        loop {
            self.gained().await;
            let mut leadership = self.clone();
            tokio::select! {
                () = work() => self.lost().await,
                () = leadership.lost() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicU32, Ordering},
        time::Duration,
    };

    use futures_util::FutureExt as _;

    use super::*;

    const LONG: Duration = Duration::from_secs(10);

    /// Counts down when it is dropped.
    struct Running<'a>(&'a AtomicU32);

    impl Drop for Running<'_> {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_leadership_that_is_not_renewed_ends_by_itself() {
        let (send, receive) = watch::channel(None);
        let mut leadership = Leadership::new(receive);
        assert!(!leadership.leads());
        assert!(leadership.gained().now_or_never().is_none());
        send.send_replace(Some(Instant::now() + LONG));
        leadership.gained().await;
        assert!(leadership.leads());
        let start = Instant::now();
        // Renewed once, half-way.
        tokio::join!(leadership.lost(), async {
            sleep_until(start + LONG / 2).await;
            send.send_replace(Some(start + LONG * 2));
        });
        assert_eq!(start.elapsed(), LONG * 2);
        assert!(!leadership.leads());
    }

    #[tokio::test(start_paused = true)]
    async fn work_is_done_while_leading_and_dropped_afterwards() {
        let (send, receive) = watch::channel(None);
        let (begun, running) = (AtomicU32::new(0), AtomicU32::new(0));
        let work = || async {
            begun.fetch_add(1, Ordering::Relaxed);
            running.fetch_add(1, Ordering::Relaxed);
            let _running = Running(&running);
            pending::<()>().await;
        };
        let counts = || (begun.load(Ordering::Relaxed), running.load(Ordering::Relaxed));
        let observe = async {
            let settle = || tokio::time::sleep(Duration::from_millis(1));
            settle().await;
            assert_eq!(counts(), (0, 0));
            send.send_replace(Some(Instant::now() + LONG));
            settle().await;
            assert_eq!(counts(), (1, 1));
            send.send_replace(None);
            settle().await;
            assert_eq!(counts(), (1, 0));
            send.send_replace(Some(Instant::now() + LONG));
            tokio::time::sleep(LONG * 2).await;
            assert_eq!(counts(), (2, 0));
        };
        tokio::select! {
            () = Leadership::new(receive).while_leading(work) => panic!("it never ends"),
            () = observe => {}
        }
    }
}
