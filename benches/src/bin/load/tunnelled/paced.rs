//! When requests are due.

use std::{
    thread,
    time::{Duration, Instant},
};

use nix::sys::prctl::set_timerslack;
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Sleeps end this late at most, in nanoseconds; the default of 50 µs would be half of a latency.
const TIMER_SLACK: u64 = 1;

/// Turns that a sender may be behind with; with more it is late for them, and they still count from
/// when they were due.
const QUEUE: usize = 1_000;

/// The turns of one sender.
pub(super) enum Turns {
    /// Whenever the answer before is there.
    AtOnce,
    /// At set times, whatever answers do: a late one shows in the requests that wait behind it.
    Paced(Receiver<Instant>),
}

// === impl Turns ===

impl Turns {
    /// Returns the turns of each of `senders`.
    pub(super) fn new(
        per_second: Option<u32>,
        senders: usize,
        start: Instant,
        end: Instant,
    ) -> Vec<Self> {
        let Some(per_second) = per_second else {
            return (0..senders).map(|_| Self::AtOnce).collect();
        };
        let (tell, turns): (Vec<_>, Vec<_>) = (0..senders)
            .map(|_| {
                let (tell, turns) = channel(QUEUE);
                (tell, Self::Paced(turns))
            })
            .unzip();
        let interval = Duration::from_secs(1) / per_second.max(1);
        // The runtime's own timers are a millisecond coarse.
        thread::spawn(move || pace(&tell, interval, start, end));
        turns
    }

    /// Waits for the next turn and returns when it is, or was, due; none after the last one.
    pub(super) async fn next(&mut self) -> Option<Instant> {
        match self {
            Self::AtOnce => Some(Instant::now()),
            Self::Paced(turns) => turns.recv().await,
        }
    }
}

/// Has senders take turns.
fn pace(senders: &[Sender<Instant>], interval: Duration, start: Instant, end: Instant) {
    // Without it, turns come a little late for everybody.
    let _ = set_timerslack(TIMER_SLACK);
    let mut due = start;
    for sender in senders.iter().cycle() {
        if due >= end {
            return;
        }
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if sender.blocking_send(due).is_err() {
            return;
        }
        due += interval;
    }
}
