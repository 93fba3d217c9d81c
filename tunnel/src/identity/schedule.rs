//! Decides when a certificate is requested next.
//!
//! Pure: the caller brings the time and the dice.

use std::time::{Duration, SystemTime};

use super::leaf::Validity;

/// Wait after the first failed request.
pub const RETRY_FIRST: Duration = Duration::from_secs(1);

/// Longest wait between two failed requests, so that a CA that comes back is noticed soon.
pub const RETRY_CAP: Duration = Duration::from_secs(150);

/// Part of the wait after a failure that is left to chance, so that nodes do not retry in step.
pub const RETRY_JITTER: f64 = 0.2;

/// Part of the lifetime by which a renewal may come before half life, so that identities which
/// were requested together do not renew together.
pub const RENEWAL_JITTER: f64 = 0.05;

/// Shortest wait after a success, so that a CA which issues certificates already past their half
/// life is not asked in a loop.
pub const RENEWAL_FLOOR: Duration = Duration::from_secs(1);

/// Part of the lifetime after which an outstanding renewal is reported as urgent.
const URGENT_AFTER: f64 = 0.75;

/// Returns when the next certificate is requested.
///
/// `current` is the validity of the certificate in use, `failures` counts the requests that failed
/// since the last success, and `chance` is a random number from 0 to 1.
pub fn next_request(
    now: SystemTime,
    current: Option<Validity>,
    failures: u32,
    chance: f64,
) -> SystemTime {
    match (current, failures) {
        (None, 0) => now,
        (Some(validity), 0) => renewal(validity, chance).max(now + RENEWAL_FLOOR),
        (None, failures) => now + retry_wait(failures, chance),
        (Some(validity), failures) => {
            let retry = now + retry_wait(failures, chance);
            if now < validity.not_after { retry.min(validity.not_after) } else { retry }
        }
    }
}

/// Tells whether so little of the certificate's life is left that a person should know.
pub fn is_urgent(now: SystemTime, current: Option<Validity>) -> bool {
    current.is_none_or(|validity| {
        now >= validity.not_before + validity.lifetime().mul_f64(URGENT_AFTER)
    })
}

fn renewal(validity: Validity, chance: f64) -> SystemTime {
    let early = RENEWAL_JITTER * chance.clamp(0.0, 1.0);
    validity.not_before + validity.lifetime().mul_f64(0.5 - early)
}

fn retry_wait(failures: u32, chance: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(u32::BITS - 1);
    let wait = RETRY_FIRST.saturating_mul(1 << doublings).min(RETRY_CAP);
    // From 1 - RETRY_JITTER to 1 + RETRY_JITTER.
    let factor = 1.0 + RETRY_JITTER * (2.0 * chance.clamp(0.0, 1.0) - 1.0);
    wait.mul_f64(factor).min(RETRY_CAP)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn from_to(not_before: u64, not_after: u64) -> Validity {
        Validity { not_before: at(not_before), not_after: at(not_after) }
    }

    #[test]
    fn requests_follow_the_table() {
        let hour = Some(from_to(1_000, 4_600));
        // (now, current, failures, chance, expected)
        for (now, current, failures, chance, expected) in [
            // Nothing yet: at once, then backing off.
            (500, None, 0, 0.0, 500),
            (500, None, 1, 0.5, 501),
            (500, None, 2, 0.5, 502),
            (500, None, 5, 0.5, 516),
            (500, None, 9, 0.5, 650),
            (500, None, u32::MAX, 1.0, 650),
            // Half life, up to a twentieth of the lifetime earlier.
            (1_000, hour, 0, 0.0, 2_800),
            (1_000, hour, 0, 1.0, 2_620),
            // Issued past its half life: not in a loop.
            (4_000, hour, 0, 0.0, 4_001),
            // Failing while the certificate lives: never later than its end.
            (2_800, hour, 1, 0.5, 2_801),
            (2_800, hour, 12, 0.5, 2_950),
            (4_550, hour, 12, 0.5, 4_600),
            // Failing after its end.
            (4_600, hour, 12, 0.5, 4_750),
            (9_000, hour, 1, 0.5, 9_001),
        ] {
            assert_eq!(
                next_request(at(now), current, failures, chance),
                at(expected),
                "now {now}, {failures} failures, chance {chance}"
            );
        }
    }

    #[test]
    fn a_renewal_is_urgent_after_three_quarters_of_the_lifetime() {
        let current = Some(from_to(0, 100));
        assert!(!is_urgent(at(74), current));
        assert!(is_urgent(at(75), current));
        assert!(is_urgent(at(0), None));
    }

    proptest! {
        #[test]
        fn a_request_is_never_late_and_never_in_a_loop(
            now in 0u64..1_000_000,
            not_before in 0u64..1_000_000,
            lifetime in 0u64..1_000_000,
            failures in 0u32..100,
            chance in 0.0f64..=1.0,
        ) {
            let current = Some(from_to(not_before, not_before + lifetime));
            let next = next_request(at(now), current, failures, chance);
            prop_assert!(next > at(now));
            if now + 1 < not_before + lifetime {
                prop_assert!(next <= at(not_before + lifetime));
            }
            if failures > 0 {
                prop_assert!(next <= at(now) + RETRY_CAP);
            }
        }
    }
}
