//! For how long no byte has passed.

use std::time::{Duration, Instant};

/// Looks at a connection in the time after which it is idle: it ends no more than an eighth late.
const LOOKS: u32 = 8;

/// Shortest pause between two looks at all connections.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

/// When bytes of a connection were last seen to have passed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Idleness {
    bytes: u64,
    /// None before the first look.
    since: Option<Instant>,
}

/// Returns the pause between two looks at connections that are idle after `limit`.
pub(in crate::proxy) fn pause(limit: Duration) -> Duration {
    (limit / LOOKS).max(SHORTEST_PAUSE)
}

// === impl Idleness ===

impl Idleness {
    /// Notes that `bytes` have passed in all by `now`; returns whether none has for `limit`.
    pub(super) fn look(&mut self, bytes: u64, now: Instant, limit: Duration) -> bool {
        match self.since {
            Some(since) if self.bytes == bytes => now.saturating_duration_since(since) >= limit,
            _ => {
                *self = Self { bytes, since: Some(now) };
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[test]
    fn a_connection_is_idle_once_no_byte_has_passed_for_the_limit() {
        let start = Instant::now();
        let mut idleness = Idleness::default();
        for (second, bytes, idle) in [
            (0, 0, false),
            (9, 0, false),
            (10, 0, true),
            (11, 1, false),
            (20, 1, false),
            (21, 1, true),
            (22, 2, false),
        ] {
            let now = start + Duration::from_secs(second);
            assert_eq!(idleness.look(bytes, now, LIMIT), idle, "after {second} s");
        }
    }

    #[test]
    fn looks_are_neither_rare_nor_without_pause() {
        assert_eq!(pause(Duration::from_hours(1)), Duration::from_secs(450));
        assert_eq!(pause(Duration::from_millis(1)), SHORTEST_PAUSE);
    }
}
