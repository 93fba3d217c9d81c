//! What the supervisor does next. Decides only: it starts, stops and asks nothing.
//!
//! The youngest process of each half is the one that should run. If it ends it is started again;
//! an older one is only waited for, since the younger takes over from it. One rule so covers
//! crashes, renewals and crashes during renewals.

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::{
    Half, SuperviseError,
    backoff::{Backoff, STABLE_TIME},
    process::Stop,
};

/// Time for a process that drains to end by itself after its own deadline.
pub(super) const DRAIN_SLACK: Duration = Duration::from_secs(2);

/// Time for a process that was sent SIGTERM to end.
pub(super) const TERMINATION_GRACE: Duration = Duration::from_secs(1);

/// Time for a process to start and take over from the one before it. A capture that needs longer
/// hangs; a proxy that is still there later has missed that it is to drain.
pub(super) const TAKEOVER_TIME: Duration = Duration::from_mins(1);

/// Processes that are started at the beginning: one a half. They have the lowest ids.
const FIRST_STARTS: u64 = 2;

/// A process, among all that this supervisor starts; younger ones are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ChildId(u64);

/// What is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Program {
    /// The supervisor's own.
    Own,
    /// What lies where the supervisor's own was started from.
    OnDisk,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Success,
    /// It says that it cannot serve as asked.
    Refused,
    Failure,
    /// It never ran.
    NotStarted,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    Ended(ChildId, End),
    Terminate,
    Renew,
    /// The time is there that [`Plan::next_time`] named.
    TimeIsUp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Start { child: ChildId, half: Half, program: Program },
    Link { capture: ChildId, proxy: ChildId },
    Stop(ChildId, Stop),
}

#[derive(Debug)]
pub(super) struct Plan {
    drain_timeout: Duration,
    /// From the oldest to the youngest.
    children: Vec<Child>,
    capture: Wanted,
    proxy: Wanted,
    /// The proxy is renewed after capture, which may have to speak to both.
    proxy_is_next: bool,
    phase: Phase,
    last_id: u64,
}

#[derive(Debug)]
struct Child {
    id: ChildId,
    half: Half,
    started: Instant,
    /// When the process is stopped, and how, unless it ends before.
    limit: Option<(Instant, Stop)>,
}

/// The process of a half that should run.
#[derive(Debug)]
struct Wanted {
    program: Program,
    backoff: Backoff,
    restart_at: Option<Instant>,
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    Running,
    Ending { refused: Option<Half>, clean: bool },
}

// === impl Plan ===

impl Plan {
    pub(super) fn new(drain_timeout: Duration) -> Self {
        Self {
            drain_timeout,
            children: Vec::new(),
            capture: Wanted::default(),
            proxy: Wanted::default(),
            proxy_is_next: false,
            phase: Phase::Running,
            last_id: 0,
        }
    }

    /// Starts both halves.
    pub(super) fn begin(&mut self, now: Instant) -> Vec<Action> {
        let mut actions = self.start(Half::Capture, now);
        actions.extend(self.start(Half::Proxy, now));
        actions
    }

    pub(super) fn step(&mut self, event: Event, now: Instant) -> Vec<Action> {
        match event {
            Event::Ended(id, end) => self.ended(id, end, now),
            Event::Terminate if self.phase == Phase::Running => self.terminate(None, now),
            Event::Renew if self.phase == Phase::Running => self.renew(now),
            Event::Terminate | Event::Renew => {
                info!("signal ignored: the node is ending");
                Vec::new()
            }
            Event::TimeIsUp => self.time_is_up(now),
        }
    }

    /// Returns when something is to happen by itself.
    pub(super) fn next_time(&self) -> Option<Instant> {
        let limits = self.children.iter().filter_map(|c| c.limit.map(|(at, _)| at));
        limits.chain(self.capture.restart_at).chain(self.proxy.restart_at).min()
    }

    /// Returns how supervision ended, if it has.
    pub(super) fn outcome(&self) -> Option<Result<(), SuperviseError>> {
        match self.phase {
            Phase::Ending { refused, clean } if self.children.is_empty() => match refused {
                Some(half) => Some(Err(SuperviseError::Refused(half))),
                None if clean => Some(Ok(())),
                None => Some(Err(SuperviseError::Unclean)),
            },
            Phase::Running | Phase::Ending { .. } => None,
        }
    }

    fn ended(&mut self, id: ChildId, end: End, now: Instant) -> Vec<Action> {
        let Some(index) = self.children.iter().position(|c| c.id == id) else {
            return Vec::new();
        };
        let child = self.children.remove(index);
        if let Phase::Ending { clean, .. } = &mut self.phase {
            *clean &= end == End::Success;
            return Vec::new();
        }
        let is_youngest = self.wanted(child.half).restart_at.is_none()
            && !self.children.iter().any(|c| c.half == child.half && c.id > child.id);
        if !is_youngest {
            return self.taken_over(child.half, now);
        }
        let lifetime = now.duration_since(child.started);
        let never_served = child.id.0 <= FIRST_STARTS && lifetime < STABLE_TIME;
        match (child.half, end) {
            (Half::Capture, End::Success) => {
                info!("capture was handed over to another node proxy: draining");
                // Its proxies are told to drain when those of the other serve.
                self.end(None, now + TAKEOVER_TIME);
                Vec::new()
            }
            (half, End::Refused | End::NotStarted) if never_served => {
                self.terminate(Some(half), now)
            }
            (half, End::Success | End::Refused | End::Failure | End::NotStarted) => {
                self.start_again(half, end, lifetime, now)
            }
        }
    }

    /// The process before the youngest has ended.
    fn taken_over(&mut self, half: Half, now: Instant) -> Vec<Action> {
        match half {
            Half::Capture => {
                for capture in self.children.iter_mut().filter(|c| c.half == half) {
                    capture.limit = None;
                }
                self.renew_proxy_after_capture(now)
            }
            Half::Proxy => Vec::new(),
        }
    }

    fn start_again(
        &mut self,
        half: Half,
        end: End,
        lifetime: Duration,
        now: Instant,
    ) -> Vec<Action> {
        let takes_over = self.children.iter().any(|c| c.half == half);
        if takes_over || end == End::NotStarted {
            // The program on disk is not up to it; the supervisor's own was.
            self.wanted(half).program = Program::Own;
            self.proxy_is_next = false;
        }
        let wanted = self.wanted(half);
        let delay = wanted.backoff.delay(lifetime);
        warn!(%half, delay_ms = delay.as_millis(), "starting again");
        if delay.is_zero() {
            return self.start(half, now);
        }
        wanted.restart_at = Some(now + delay);
        Vec::new()
    }

    fn start(&mut self, half: Half, now: Instant) -> Vec<Action> {
        self.last_id += 1;
        let id = ChildId(self.last_id);
        let limit = self.limit_takeover(half, now);
        let wanted = self.wanted(half);
        wanted.restart_at = None;
        let mut actions = vec![Action::Start { child: id, half, program: wanted.program }];
        let others = self.children.iter().filter(|c| c.half != half);
        actions.extend(others.map(|other| match half {
            Half::Capture => Action::Link { capture: id, proxy: other.id },
            Half::Proxy => Action::Link { capture: other.id, proxy: id },
        }));
        self.children.push(Child { id, half, started: now, limit });
        actions
    }

    /// Bounds the time for which an old process and the new one that is about to start run side by
    /// side; returns the bound of the new one.
    ///
    /// A capture that was taken over from ends at once, so it is the new one that is at fault. A
    /// proxy drains, so it is the old one.
    fn limit_takeover(&mut self, half: Half, now: Instant) -> Option<(Instant, Stop)> {
        let older = self.children.iter_mut().filter(|c| c.half == half);
        match half {
            Half::Capture => older.last().map(|_| (now + TAKEOVER_TIME, Stop::Kill)),
            Half::Proxy => {
                let limit = now + TAKEOVER_TIME + self.drain_timeout;
                older.for_each(|c| c.limit = Some((limit, Stop::Terminate)));
                None
            }
        }
    }

    fn renew(&mut self, now: Instant) -> Vec<Action> {
        let count = |half| self.children.iter().filter(|c| c.half == half).count();
        if self.proxy_is_next || count(Half::Capture) > 1 || count(Half::Proxy) > 1 {
            warn!("signal ignored: the renewal before is not over");
            return Vec::new();
        }
        info!("renewing from the program on disk");
        let alone = count(Half::Capture) == 0;
        self.capture.program = Program::OnDisk;
        self.proxy_is_next = true;
        let mut actions = self.start(Half::Capture, now);
        if alone {
            actions.extend(self.renew_proxy_after_capture(now));
        }
        actions
    }

    fn renew_proxy_after_capture(&mut self, now: Instant) -> Vec<Action> {
        if !std::mem::take(&mut self.proxy_is_next) {
            return Vec::new();
        }
        self.proxy.program = Program::OnDisk;
        self.start(Half::Proxy, now)
    }

    fn terminate(&mut self, refused: Option<Half>, now: Instant) -> Vec<Action> {
        info!("draining");
        self.end(refused, now);
        // Capture tells the proxies; without one they have to be told by a signal.
        let told = if self.children.iter().any(|c| c.half == Half::Capture) {
            Half::Capture
        } else {
            Half::Proxy
        };
        let told = self.children.iter().filter(|c| c.half == told);
        told.map(|c| Action::Stop(c.id, Stop::Terminate)).collect()
    }

    /// From now on nothing is started, and everything has a limit: it drains from `start` on, at the
    /// latest.
    fn end(&mut self, refused: Option<Half>, start: Instant) {
        self.phase = Phase::Ending { refused, clean: true };
        self.proxy_is_next = false;
        (self.capture.restart_at, self.proxy.restart_at) = (None, None);
        let limit = start + self.drain_timeout + DRAIN_SLACK;
        for child in &mut self.children {
            child.limit = Some((limit, Stop::Terminate));
        }
    }

    fn time_is_up(&mut self, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        for child in &mut self.children {
            let Some((_, stop)) = child.limit.filter(|(at, _)| *at <= now) else { continue };
            child.limit = match stop {
                Stop::Terminate => Some((now + TERMINATION_GRACE, Stop::Kill)),
                Stop::Kill => None,
            };
            warn!(half = %child.half, "not ended in time");
            actions.push(Action::Stop(child.id, stop));
        }
        for half in [Half::Capture, Half::Proxy] {
            if self.wanted(half).restart_at.is_some_and(|at| at <= now) {
                actions.extend(self.start(half, now));
            }
        }
        actions
    }

    fn wanted(&mut self, half: Half) -> &mut Wanted {
        match half {
            Half::Capture => &mut self.capture,
            Half::Proxy => &mut self.proxy,
        }
    }
}

// === impl Wanted ===

impl Default for Wanted {
    fn default() -> Self {
        Self { program: Program::Own, backoff: Backoff::default(), restart_at: None }
    }
}
