//! When a process that died is started again.

use std::time::Duration;

/// Pause before the second start in a row; the first is at once.
const SHORTEST_DELAY: Duration = Duration::from_millis(100);

/// Longest pause: a node whose mistake has been mended waits no longer than this.
const LONGEST_DELAY: Duration = Duration::from_secs(5);

/// A process that lived as long had no trouble starting; its death is again the first.
pub(super) const STABLE_TIME: Duration = Duration::from_secs(10);

/// Pauses that grow while a process dies soon after each start.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    next: Duration,
}

// === impl Backoff ===

impl Backoff {
    /// Returns the pause before the next start of a process that died after `lifetime`.
    pub(super) fn delay(&mut self, lifetime: Duration) -> Duration {
        let delay = if lifetime < STABLE_TIME { self.next } else { Duration::ZERO };
        self.next = (delay * 2).clamp(SHORTEST_DELAY, LONGEST_DELAY);
        delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_while_a_process_dies_young_and_start_over_when_it_lived() {
        let mut backoff = Backoff::default();
        let (young, stable) = (9_999, 10_000);
        for (step, (lifetime, delay)) in [
            (young, 0),
            (young, 100),
            (0, 200),
            (young, 400),
            (0, 800),
            (0, 1_600),
            (0, 3_200),
            (0, 5_000),
            (0, 5_000),
            (stable, 0),
            (young, 100),
            (stable * 9, 0),
            (stable, 0),
        ]
        .into_iter()
        .enumerate()
        {
            let got = backoff.delay(Duration::from_millis(lifetime));
            assert_eq!(got, Duration::from_millis(delay), "step {step}");
        }
    }
}
