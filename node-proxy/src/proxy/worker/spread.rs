//! Which thread serves what was accepted. A pod has one home thread that alone wakes up for its
//! connections, and gives some away when it has clearly more to do than another.

use std::{
    iter,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use tokio::sync::mpsc;

use super::{Command, accept::Handed};

/// What a tunnel weighs besides its streams, in connections: tunnels are few and will get streams,
/// so that two of them are kept apart before they have any.
pub(super) const TUNNEL_WEIGHT: usize = 8;

/// Connections that a thread has more than another before it gives one away, which costs a wake-up
/// of the other thread and a tunnel of its own. Few, since a handful of bulk transfers keeps a core
/// busy; connections that come and go one at a time stay at home.
pub(super) const CONNECTION_SLACK: usize = 2;

/// What the threads have to do, and the ways to them.
#[derive(Debug)]
pub(in crate::proxy) struct Spread {
    own: usize,
    loads: Arc<[Load]>,
    /// Weak, so that the threads end when nobody commands them any more.
    threads: Vec<mpsc::WeakSender<Command>>,
}

/// Connections that a thread has open.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Load(AtomicUsize);

/// A share of a thread's load, given up when dropped.
#[derive(Debug)]
pub(in crate::proxy) struct Share {
    loads: Arc<[Load]>,
    thread: usize,
    weight: usize,
}

// === impl Spread ===

impl Spread {
    /// Makes the view of each thread.
    pub(super) fn of(commands: &[mpsc::Sender<Command>]) -> Vec<Self> {
        let loads: Arc<[Load]> = iter::repeat_with(Load::default).take(commands.len()).collect();
        let view = |own| {
            let threads = commands.iter().map(mpsc::Sender::downgrade).collect();
            Self { own, loads: loads.clone(), threads }
        };
        (0..commands.len()).map(view).collect()
    }

    /// Counts `weight` for the thread that is to serve something new of that weight: this one,
    /// unless it has `slack` more to do than another.
    pub(super) fn place(&self, weight: usize, slack: usize) -> Share {
        let loads = self.loads.iter().map(|load| load.0.load(Relaxed));
        self.share(choose(self.own, slack, loads), weight)
    }

    /// Counts `weight` for this thread.
    pub(in crate::proxy) fn own(&self, weight: usize) -> Share {
        self.share(self.own, weight)
    }

    /// Returns whether `share` is this thread's.
    pub(super) fn is_own(&self, share: &Share) -> bool {
        share.thread == self.own
    }

    /// Gives `handed` to the thread of its share; returns it as this thread's if that has no time.
    pub(super) fn give(&self, mut handed: Handed) -> Option<Handed> {
        let thread = self.threads.get(handed.share().thread).and_then(mpsc::WeakSender::upgrade);
        if let Some(Ok(place)) = thread.as_ref().map(mpsc::Sender::try_reserve) {
            place.send(Command::Take(handed));
            return None;
        }
        let share = handed.share();
        *share = self.own(share.weight);
        Some(handed)
    }

    fn share(&self, thread: usize, weight: usize) -> Share {
        let loads = self.loads.clone();
        if let Some(load) = loads.get(thread) {
            load.0.fetch_add(weight, Relaxed);
        }
        Share { loads, thread, weight }
    }
}

// === impl Share ===

impl Drop for Share {
    fn drop(&mut self) {
        if let Some(load) = self.loads.get(self.thread) {
            load.0.fetch_sub(self.weight, Relaxed);
        }
    }
}

/// Returns the thread that serves something new which thread `own` has accepted.
fn choose(own: usize, slack: usize, mut loads: impl Iterator<Item = usize> + Clone) -> usize {
    let least = loads.clone().enumerate().min_by_key(|(_, load)| *load);
    match (least, loads.nth(own)) {
        (Some((thread, least)), Some(load)) if load > least + slack => thread,
        _ => own,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_gives_away_only_what_another_has_clearly_more_time_for() {
        for (own, slack, loads, expected) in [
            (0, 16, &[0, 0][..], 0),
            (0, 16, &[16, 0], 0),
            (0, 16, &[17, 0], 1),
            (1, 16, &[0, 17], 0),
            (0, 16, &[100, 90, 80, 85], 2),
            (0, 16, &[100, 90, 85, 85], 0),
            (1, 0, &[0, 0], 1),
            (1, 0, &[0, 8], 0),
            (0, 0, &[8, 8, 8], 0),
            (0, 0, &[5], 0),
        ] {
            let chosen = choose(own, slack, loads.iter().copied());
            assert_eq!(chosen, expected, "{own} of {loads:?}");
        }
    }
}
