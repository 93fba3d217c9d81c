//! What can be made to go wrong.

use std::time::Duration;

/// Faults that the server shows until they are taken back.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Time that each answer is held back.
    pub delay: Duration,
    /// Time that each write of a status waits before it is done, even if its client is gone by then.
    pub status_delay: Duration,
    /// Requests from now on that are refused with 429 and `Retry-After`.
    pub refuse: u32,
    /// A group whose definitions are not installed.
    pub missing_group: Option<&'static str>,
    /// A path to which requests are refused with 403, such as `/api/v1/secrets`.
    pub forbidden: Option<&'static str>,
    /// Events after which a watch is cut off, in the middle of nowhere.
    pub watch_events: Option<u32>,
}
