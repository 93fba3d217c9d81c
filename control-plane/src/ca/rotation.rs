//! How the root that this process made gives way to a new one, without a request that fails.
//!
//! Pure: no clock, no files; times are given.
//!
//! ```text
//! requested ──> spreading ──────────> switched ─────────────> (done)
//!               old signs             new signs               new signs
//!               both are trusted      both are trusted        new is trusted
//!               until every leaf      until every leaf of
//!               brought both roots    the old has expired
//! ```
//!
//! New roots reach workloads together with new leaves only (there is no other way for them in
//! Istio's protocols), so a step waits until the last certificate issued before it has ended. A
//! rotation begins by itself when a tenth of the root's life is left, or when it is asked for. The
//! step is kept in the file `rotation`: `requested`, `spreading until SECONDS` or `switched until
//! SECONDS`, in Unix time. That file alone says who signs; a process that is killed between two
//! steps finds either the one or the other.
//!
//! A plugged-in certificate is rotated by whoever plugged it in, in the same order, by replacing
//! files: first `root-cert.pem` with both roots; when every leaf was renewed, `ca-cert.pem`,
//! `ca-key.pem` and `cert-chain.pem`; when every leaf of the old has ended, `root-cert.pem` with the
//! new root. Files that are ahead of their time are reported and not used until it has come.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Share of a root's life that is left when its rotation begins: one part in so many. A year of
/// ten, far more than the steps take.
const REMAINING_LIFE_PART: u32 = 10;

/// Longest time between two looks at the files without a sign of a change.
const LOOK_INTERVAL: Duration = Duration::from_mins(1);

/// Shortest, so that a step that cannot be taken is not tried in a loop.
const SHORTEST_LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// A rotation under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// It shall begin.
    Requested,
    /// The new root is made known; the old one signs.
    Spreading {
        /// When the next step may be taken.
        until: SystemTime,
    },
    /// The new root signs; the old one is still trusted.
    Switched {
        /// When the next step may be taken.
        until: SystemTime,
    },
}

/// A step that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make a new root and have it trusted.
    Begin,
    /// Sign with the new root.
    Switch,
    /// Trust the new root only.
    Finish,
}

/// Text that is not a rotation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write requested, spreading until SECONDS or switched until SECONDS, or remove the file")]
pub struct InvalidRotation;

/// Returns the step that is due.
pub fn due(
    rotation: Option<Rotation>,
    root_begin: SystemTime,
    root_end: SystemTime,
    now: SystemTime,
) -> Option<Step> {
    match rotation {
        None => {
            let life = root_end.duration_since(root_begin).unwrap_or_default();
            (now + life / REMAINING_LIFE_PART >= root_end).then_some(Step::Begin)
        }
        Some(Rotation::Requested) => Some(Step::Begin),
        Some(Rotation::Spreading { until }) => (now >= until).then_some(Step::Switch),
        Some(Rotation::Switched { until }) => (now >= until).then_some(Step::Finish),
    }
}

/// Returns how long the files need not be looked at without a sign of a change.
pub(super) fn until_next_look(rotation: Option<Rotation>, now: SystemTime) -> Duration {
    match rotation {
        Some(Rotation::Spreading { until } | Rotation::Switched { until }) => {
            let left = until.duration_since(now).unwrap_or_default();
            left.clamp(SHORTEST_LOOK_INTERVAL, LOOK_INTERVAL)
        }
        Some(Rotation::Requested) | None => LOOK_INTERVAL,
    }
}

/// Returns whole seconds of Unix time, rounded up.
pub(super) fn unix_seconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs() + u64::from(since.subsec_nanos() > 0)
}

// === impl Rotation ===

impl fmt::Display for Rotation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Requested => writeln!(f, "requested"),
            Self::Spreading { until } => writeln!(f, "spreading until {}", unix_seconds(*until)),
            Self::Switched { until } => writeln!(f, "switched until {}", unix_seconds(*until)),
        }
    }
}

impl FromStr for Rotation {
    type Err = InvalidRotation;

    fn from_str(text: &str) -> Result<Self, InvalidRotation> {
        let time = |text: &str| {
            let seconds = text.parse().map_err(|_| InvalidRotation)?;
            UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).ok_or(InvalidRotation)
        };
        match text.split_whitespace().collect::<Vec<_>>()[..] {
            ["requested"] => Ok(Self::Requested),
            ["spreading", "until", seconds] => Ok(Self::Spreading { until: time(seconds)? }),
            ["switched", "until", seconds] => Ok(Self::Switched { until: time(seconds)? }),
            _ => Err(InvalidRotation),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_step_is_due_when_the_one_before_has_reached_everyone() {
        let due = |rotation, now| due(rotation, at(0), at(1000), at(now));
        let spreading = Some(Rotation::Spreading { until: at(500) });
        let switched = Some(Rotation::Switched { until: at(500) });
        for (rotation, now, step) in [
            (None, 0, None),
            (None, 899, None),
            (None, 900, Some(Step::Begin)),
            (None, 2000, Some(Step::Begin)),
            (Some(Rotation::Requested), 0, Some(Step::Begin)),
            (spreading, 499, None),
            (spreading, 500, Some(Step::Switch)),
            (switched, 499, None),
            (switched, 500, Some(Step::Finish)),
        ] {
            assert_eq!(due(rotation, now), step, "{rotation:?} at {now}");
        }
    }

    #[test]
    fn a_step_is_looked_for_when_it_is_due_and_otherwise_now_and_then() {
        let spreading = Some(Rotation::Spreading { until: at(500) });
        let switched = Some(Rotation::Switched { until: at(500) });
        for (rotation, now, seconds) in [
            (None, 0, 60),
            (Some(Rotation::Requested), 0, 60),
            (spreading, 400, 60),
            (spreading, 490, 10),
            (switched, 490, 10),
            (switched, 500, 1),
            (switched, 600, 1),
        ] {
            let left = until_next_look(rotation, at(now));
            assert_eq!(left, Duration::from_secs(seconds), "{rotation:?} at {now}");
        }
    }

    #[test]
    fn the_file_says_the_step() {
        for rotation in [
            Rotation::Requested,
            Rotation::Spreading { until: at(7) },
            Rotation::Switched { until: at(7) },
        ] {
            assert_eq!(rotation.to_string().parse(), Ok(rotation));
        }
        for bad in ["", "spreading", "spreading until", "switched until x", "switched until -1"] {
            assert_eq!(bad.parse::<Rotation>(), Err(InvalidRotation), "{bad}");
        }
    }
}
