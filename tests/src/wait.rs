//! Waiting for what the kernel gives no event for.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// Pause between two looks: short against the time anything awaited takes, long against one look.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// Calls `look` until it returns something, at most for `timeout`; `what` names it in the error.
pub fn wait_for<T>(
    what: &str,
    timeout: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            bail!("{what}: not within {timeout:?}");
        }
        thread::sleep(POLL_INTERVAL);
    }
}
