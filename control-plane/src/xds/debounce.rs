//! When changes that come one after another are sent.
//!
//! Pure: no clock; times are given.

use std::time::Duration;

use tokio::time::Instant;

use crate::resource::Urgency;

/// How long changes wait for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DebounceOptions {
    /// Time without a further change after which they are sent (`PILOT_DEBOUNCE_AFTER`).
    pub quiet: Duration,
    /// Longest time that a change waits (`PILOT_DEBOUNCE_MAX`).
    pub longest: Duration,
}

/// Changes that wait to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) first: Instant,
    last: Instant,
    urgency: Urgency,
}

// === impl DebounceOptions ===

impl Default for DebounceOptions {
    /// Returns Istio's defaults.
    fn default() -> Self {
        Self { quiet: Duration::from_millis(100), longest: Duration::from_secs(10) }
    }
}

// === impl Waiting ===

impl Waiting {
    /// Returns what waits when changes of the given urgency have come.
    pub(super) fn with(waiting: Option<Self>, urgency: Urgency, now: Instant) -> Self {
        match waiting {
            None => Self { first: now, last: now, urgency },
            Some(waiting) => Self { last: now, urgency: waiting.urgency.max(urgency), ..waiting },
        }
    }

    /// Returns when to send.
    pub(super) fn due(&self, options: &DebounceOptions) -> Instant {
        match self.urgency {
            Urgency::Immediate => self.last,
            Urgency::Batched => (self.last + options.quiet).min(self.first + options.longest),
        }
    }
}

#[cfg(test)]
mod tests {
    use Urgency::{Batched, Immediate};

    use super::*;

    #[test]
    fn changes_wait_for_quiet_but_not_forever_and_an_urgent_one_takes_all_along() {
        let options = DebounceOptions::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let after = |changes: &[(u64, Urgency)]| {
            let waiting = changes.iter().fold(None, |waiting, (ms, urgency)| {
                Some(Waiting::with(waiting, *urgency, at(*ms)))
            });
            waiting.unwrap().due(&options)
        };
        assert_eq!(after(&[(0, Batched)]), at(100));
        assert_eq!(after(&[(0, Batched), (50, Batched)]), at(150));
        assert_eq!(after(&[(0, Batched), (9_950, Batched)]), at(10_000));
        assert_eq!(after(&[(0, Immediate)]), at(0));
        assert_eq!(after(&[(0, Batched), (50, Immediate)]), at(50));
    }
}
