//! When changes that come one after another are sent.
//!
//! Pure: no clock; times are given.

use std::time::Duration;

use tokio::time::Instant;

use crate::resource::Urgency;

/// Time that a prompt change waits for others by default: documents of one file come within less.
const PROMPT_QUIET: Duration = Duration::from_millis(10);

/// How long changes wait for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DebounceOptions {
    /// Time without a further change after which they are sent (`PILOT_DEBOUNCE_AFTER`).
    pub quiet: Duration,
    /// The same for prompt changes, if that is less; nothing where their source has gathered what
    /// belongs together.
    pub prompt: Duration,
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
    /// Returns Istio's defaults, with prompt changes ahead.
    fn default() -> Self {
        Self {
            quiet: Duration::from_millis(100),
            prompt: PROMPT_QUIET,
            longest: Duration::from_secs(10),
        }
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
            Urgency::Prompt => self.after(options.quiet.min(options.prompt), options),
            Urgency::Batched => self.after(options.quiet, options),
        }
    }

    /// Returns when it has been quiet for so long, or the wait has been long enough.
    fn after(&self, quiet: Duration, options: &DebounceOptions) -> Instant {
        (self.last + quiet).min(self.first + options.longest)
    }
}

#[cfg(test)]
mod tests {
    use Urgency::{Batched, Immediate, Prompt};

    use super::*;

    #[test]
    fn changes_wait_for_quiet_but_not_forever_and_an_urgent_one_takes_all_along() {
        let options = DebounceOptions::default();
        let gathered = DebounceOptions { prompt: Duration::ZERO, ..options };
        let hasty = DebounceOptions { quiet: Duration::from_millis(2), ..options };
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let after_with = |options: &DebounceOptions, changes: &[(u64, Urgency)]| {
            let waiting = changes.iter().fold(None, |waiting, (ms, urgency)| {
                Some(Waiting::with(waiting, *urgency, at(*ms)))
            });
            waiting.unwrap().due(options)
        };
        let after = |changes: &[(u64, Urgency)]| after_with(&options, changes);
        assert_eq!(after(&[(0, Batched)]), at(100));
        assert_eq!(after(&[(0, Batched), (50, Batched)]), at(150));
        assert_eq!(after(&[(0, Batched), (9_950, Batched)]), at(10_000));
        assert_eq!(after(&[(0, Immediate)]), at(0));
        assert_eq!(after(&[(0, Batched), (50, Immediate)]), at(50));
        assert_eq!(after(&[(0, Prompt)]), at(10));
        assert_eq!(after(&[(0, Prompt), (5, Prompt)]), at(15));
        assert_eq!(after(&[(0, Prompt), (9_995, Prompt)]), at(10_000));
        assert_eq!(after(&[(0, Batched), (50, Prompt)]), at(60));
        assert_eq!(after(&[(0, Prompt), (5, Batched)]), at(15));
        assert_eq!(after(&[(0, Prompt), (5, Immediate)]), at(5));
        assert_eq!(after_with(&gathered, &[(0, Prompt)]), at(0));
        assert_eq!(after_with(&gathered, &[(0, Batched)]), at(100));
        assert_eq!(after_with(&gathered, &[(0, Batched), (50, Prompt)]), at(50));
        assert_eq!(after_with(&hasty, &[(0, Prompt)]), at(2));
    }
}
