//! When a stream, or anything else that failed, is tried again. Pure: the caller brings the dice.

use std::time::Duration;

/// Wait after the first stream that ended.
const FIRST: Duration = Duration::from_millis(10);

/// Longest wait, so that a control plane that comes back is noticed soon.
const CAP: Duration = Duration::from_secs(15);

/// Part of the wait that is left to chance, so that the nodes of a replica that goes do not all
/// come to the next one at once.
const JITTER: f64 = 0.5;

/// Life of a stream after which what came before it is forgotten. One that ends sooner each time
/// is not tried ever faster.
const STABLE: Duration = CAP;

/// Counts streams that ended soon.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    ended_soon: u32,
}

// === impl Backoff ===

impl Backoff {
    /// Returns how long to wait after a stream that lasted for `lifetime`; `chance` is a random
    /// number from 0 to 1.
    pub fn after(&mut self, lifetime: Duration, chance: f64) -> Duration {
        if lifetime >= STABLE {
            self.ended_soon = 0;
        }
        let doublings = self.ended_soon.min(u32::BITS - 1);
        self.ended_soon = self.ended_soon.saturating_add(1);
        let wait = FIRST.saturating_mul(1 << doublings).min(CAP);
        wait.mul_f64(1.0 - JITTER * chance.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_cap_and_begin_anew_after_a_stream_that_lasted() {
        let mut backoff = Backoff::default();
        let soon = Duration::from_secs(1);
        let waits: Vec<_> = (0..13).map(|_| backoff.after(soon, 0.0).as_millis()).collect();
        assert_eq!(waits, [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5120, 10240, 15000, 15000]);
        assert_eq!(backoff.after(STABLE, 0.0).as_millis(), 10);
        assert_eq!(backoff.after(soon, 1.0).as_millis(), 10, "half of 20 is left to chance");
        for _ in 0..100 {
            assert!(backoff.after(soon, 0.5) <= CAP);
        }
    }
}
