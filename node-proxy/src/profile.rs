//! CPU and heap profiles of the proxy process, as `pprof` reads them.
//!
//! The proxy is confined, so it does not look at itself: [capture](crate::capture) counts its stacks
//! from outside, by BPF programs that are there while a profile is taken and not otherwise. Here is
//! what makes a profile of these counts:
//!
//! | What | Module |
//! |---|---|
//! | which file is at an address | [`mappings`] |
//! | which function is at a place of a file, and at an address of the kernel | [`symbols`], [`kernel`] |
//! | the profile's form | [`pprof`] |
//! | what is told of a profile on a terminal | [`summary`] |

pub mod kernel;
pub mod mappings;
pub mod pprof;
pub mod summary;
pub mod symbols;

use std::{fmt, num::NonZeroU8, str::FromStr, time::Duration};

/// Longest time that a profile is taken, in seconds: enough for what happens once a minute, and what
/// is counted stays within its bounds.
pub const MAX_SECONDS: u8 = 60;

/// What a profile is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The time of processors.
    Cpu,
    /// Memory that is allocated.
    Heap,
}

/// How long a profile is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window(NonZeroU8);

/// Why a text is not the length of a profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("give a whole number of seconds from 1 to {MAX_SECONDS}")]
pub struct InvalidWindow;

// === impl Kind ===

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpu => "cpu",
            Self::Heap => "heap",
        })
    }
}

// === impl Window ===

impl Window {
    /// Returns the time.
    pub fn duration(self) -> Duration {
        Duration::from_secs(self.0.get().into())
    }
}

impl FromStr for Window {
    type Err = InvalidWindow;

    fn from_str(text: &str) -> Result<Self, InvalidWindow> {
        let seconds: NonZeroU8 = text.parse().map_err(|_| InvalidWindow)?;
        if seconds.get() > MAX_SECONDS { Err(InvalidWindow) } else { Ok(Self(seconds)) }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_takes_a_whole_number_of_seconds_up_to_a_minute() {
        for (text, seconds) in [
            ("1", Some(1)),
            ("60", Some(60)),
            ("61", None),
            ("0", None),
            ("256", None),
            ("-1", None),
            ("1.5", None),
            ("", None),
        ] {
            let window = text.parse::<Window>().ok().map(|w| w.duration().as_secs());
            assert_eq!(window, seconds, "{text}");
        }
    }
}
