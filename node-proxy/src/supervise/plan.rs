//! What the supervisor does next. Decides only: it starts, stops and asks nothing.
//!
//! The youngest process of each role is the one that should run. If it ends it is started again;
//! an older one is only waited for, since the younger takes over from it. One rule so covers
//! crashes, renewals and crashes during renewals. The agent has nothing to take over: it is renewed
//! by its end.

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::{
    Role, SuperviseError,
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
    Start { child: ChildId, role: Role, program: Program },
    Link { capture: ChildId, other: ChildId },
    Stop(ChildId, Stop),
}

/// What there is with an agent, and without, in the order of their start.
const ALL: [Role; 3] = [Role::Capture, Role::Proxy, Role::Agent];
const HALVES: [Role; 2] = [Role::Capture, Role::Proxy];

#[derive(Debug)]
pub(super) struct Plan {
    drain_timeout: Duration,
    /// What is started at the beginning; these processes have the lowest ids.
    roles: &'static [Role],
    /// From the oldest to the youngest.
    children: Vec<Child>,
    capture: Wanted,
    proxy: Wanted,
    agent: Wanted,
    /// The proxy is renewed after capture, which may have to speak to both.
    proxy_is_next: bool,
    phase: Phase,
    last_id: u64,
}

#[derive(Debug)]
struct Child {
    id: ChildId,
    role: Role,
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
    Ending { refused: Option<Role>, clean: bool },
}

// === impl Plan ===

impl Plan {
    pub(super) fn new(drain_timeout: Duration, has_agent: bool) -> Self {
        let roles: &[Role] = if has_agent { &ALL } else { &HALVES };
        Self {
            drain_timeout,
            roles,
            children: Vec::new(),
            capture: Wanted::default(),
            proxy: Wanted::default(),
            agent: Wanted::default(),
            proxy_is_next: false,
            phase: Phase::Running,
            last_id: 0,
        }
    }

    /// Starts a process of each role.
    pub(super) fn begin(&mut self, now: Instant) -> Vec<Action> {
        self.roles.iter().flat_map(|role| self.start(*role, now)).collect()
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
        let restarts = [&self.capture, &self.proxy, &self.agent].map(|wanted| wanted.restart_at);
        limits.chain(restarts.into_iter().flatten()).min()
    }

    /// Returns how supervision ended, if it has.
    pub(super) fn outcome(&self) -> Option<Result<(), SuperviseError>> {
        match self.phase {
            Phase::Ending { refused, clean } if self.children.is_empty() => match refused {
                Some(role) => Some(Err(SuperviseError::Refused(role))),
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
        let is_youngest = self.wanted(child.role).restart_at.is_none()
            && !self.children.iter().any(|c| c.role == child.role && c.id > child.id);
        if !is_youngest {
            return self.taken_over(child.role, now);
        }
        let lifetime = now.duration_since(child.started);
        let never_served = child.id.0 <= self.roles.len() as u64 && lifetime < STABLE_TIME;
        match (child.role, end) {
            (Role::Capture, End::Success) => {
                info!("capture was handed over to another node proxy: draining");
                // Its proxies are told to drain when those of the other serve.
                self.end(None, now + TAKEOVER_TIME);
                self.stop_all(Role::Agent)
            }
            (role, End::Refused | End::NotStarted) if never_served => {
                self.terminate(Some(role), now)
            }
            (role, End::Success | End::Refused | End::Failure | End::NotStarted) => {
                self.start_again(role, end, lifetime, now)
            }
        }
    }

    /// The process before the youngest has ended.
    fn taken_over(&mut self, role: Role, now: Instant) -> Vec<Action> {
        match role {
            Role::Capture => {
                for capture in self.children.iter_mut().filter(|c| c.role == role) {
                    capture.limit = None;
                }
                self.renew_proxy_after_capture(now)
            }
            Role::Proxy | Role::Agent => Vec::new(),
        }
    }

    fn start_again(
        &mut self,
        role: Role,
        end: End,
        lifetime: Duration,
        now: Instant,
    ) -> Vec<Action> {
        let takes_over = self.children.iter().any(|c| c.role == role);
        let is_new = lifetime < STABLE_TIME && end != End::Success;
        if takes_over || end == End::NotStarted || (role == Role::Agent && is_new) {
            // The program on disk is not up to it; the supervisor's own was.
            self.wanted(role).program = Program::Own;
            self.proxy_is_next &= role == Role::Agent;
        }
        let wanted = self.wanted(role);
        let delay = wanted.backoff.delay(lifetime);
        warn!(%role, delay_ms = delay.as_millis(), "starting again");
        if delay.is_zero() {
            return self.start(role, now);
        }
        wanted.restart_at = Some(now + delay);
        Vec::new()
    }

    fn start(&mut self, role: Role, now: Instant) -> Vec<Action> {
        self.last_id += 1;
        let id = ChildId(self.last_id);
        let limit = self.limit_takeover(role, now);
        let wanted = self.wanted(role);
        wanted.restart_at = None;
        let mut actions = vec![Action::Start { child: id, role, program: wanted.program }];
        let others = self.children.iter().filter(|c| c.role != role);
        actions.extend(others.filter_map(|other| match (role, other.role) {
            (Role::Capture, _) => Some(Action::Link { capture: id, other: other.id }),
            (_, Role::Capture) => Some(Action::Link { capture: other.id, other: id }),
            (Role::Proxy | Role::Agent, _) => None,
        }));
        self.children.push(Child { id, role, started: now, limit });
        actions
    }

    /// Bounds the time for which an old process and the new one that is about to start run side by
    /// side; returns the bound of the new one.
    ///
    /// A capture that was taken over from ends at once, so it is the new one that is at fault. A
    /// proxy drains, so it is the old one.
    fn limit_takeover(&mut self, role: Role, now: Instant) -> Option<(Instant, Stop)> {
        let older = self.children.iter_mut().filter(|c| c.role == role);
        match role {
            Role::Capture => older.last().map(|_| (now + TAKEOVER_TIME, Stop::Kill)),
            Role::Proxy => {
                let limit = now + TAKEOVER_TIME + self.drain_timeout;
                older.for_each(|c| c.limit = Some((limit, Stop::Terminate)));
                None
            }
            Role::Agent => None,
        }
    }

    fn renew(&mut self, now: Instant) -> Vec<Action> {
        let count = |role| self.children.iter().filter(|c| c.role == role).count();
        if self.proxy_is_next || count(Role::Capture) > 1 || count(Role::Proxy) > 1 {
            warn!("signal ignored: the renewal before is not over");
            return Vec::new();
        }
        info!("renewing from the program on disk");
        let alone = count(Role::Capture) == 0;
        self.capture.program = Program::OnDisk;
        self.proxy_is_next = true;
        let mut actions = self.start(Role::Capture, now);
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
        let mut actions = self.start(Role::Proxy, now);
        actions.extend(self.renew_agent(now));
        actions
    }

    /// The agent is followed by another one when it has ended.
    fn renew_agent(&mut self, now: Instant) -> Vec<Action> {
        self.agent.program = Program::OnDisk;
        for agent in self.children.iter_mut().filter(|c| c.role == Role::Agent) {
            agent.limit = Some((now + TERMINATION_GRACE, Stop::Kill));
        }
        self.stop_all(Role::Agent)
    }

    fn stop_all(&self, role: Role) -> Vec<Action> {
        let children = self.children.iter().filter(|c| c.role == role);
        children.map(|c| Action::Stop(c.id, Stop::Terminate)).collect()
    }

    fn terminate(&mut self, refused: Option<Role>, now: Instant) -> Vec<Action> {
        info!("draining");
        self.end(refused, now);
        // Capture tells the proxies; without one they have to be told by a signal.
        let has_capture = self.children.iter().any(|c| c.role == Role::Capture);
        let mut actions = self.stop_all(if has_capture { Role::Capture } else { Role::Proxy });
        actions.extend(self.stop_all(Role::Agent));
        actions
    }

    /// From now on nothing is started, and everything has a limit: it drains from `start` on, at the
    /// latest.
    fn end(&mut self, refused: Option<Role>, start: Instant) {
        self.phase = Phase::Ending { refused, clean: true };
        self.proxy_is_next = false;
        for role in self.roles {
            self.wanted(*role).restart_at = None;
        }
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
            warn!(role = %child.role, "not ended in time");
            actions.push(Action::Stop(child.id, stop));
        }
        for role in self.roles {
            if self.wanted(*role).restart_at.is_some_and(|at| at <= now) {
                actions.extend(self.start(*role, now));
            }
        }
        actions
    }

    fn wanted(&mut self, role: Role) -> &mut Wanted {
        match role {
            Role::Capture => &mut self.capture,
            Role::Proxy => &mut self.proxy,
            Role::Agent => &mut self.agent,
        }
    }
}

// === impl Wanted ===

impl Default for Wanted {
    fn default() -> Self {
        Self { program: Program::Own, backoff: Backoff::default(), restart_at: None }
    }
}
