//! The supervisor: starts capture, proxy and, where there is one, the agent as processes of their
//! own, joins them, starts again what dies, renews all in place and ends them in order.
//!
//! It holds no state of the mesh and reads nothing but a word of capture's, so that it has little to
//! go wrong: all it tells its children goes through their [control channels](control).
//!
//! | Event | What happens |
//! |---|---|
//! | SIGTERM, SIGINT, or capture asks for it | capture gets SIGTERM and tells the proxies to drain, and so does the agent, which ends; all end by themselves, or are ended |
//! | SIGHUP | capture, then the proxy, is followed by a process of the program on disk, which takes over; then the agent ends and is followed by one |
//! | a process dies | it is started again: at once, then after growing pauses |
//! | capture ends with success | another supervisor's capture has taken over; the proxies drain |
//! | the first process of its role ends at start with [`REFUSED`] | starting it again is useless: all end |
//! | the supervisor dies | the control channels close, and the children end |

mod backoff;
pub mod control;
mod plan;
mod process;

use std::{
    collections::VecDeque, env, ffi::OsString, fmt, future, io, path::PathBuf, process::ExitStatus,
    time::Duration,
};

use fairlead_component::logging::{LevelChange, Levels};
use fairlead_sys::descriptors::close_in_programs;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, sleep_until},
};
use tracing::{error, info, warn};

use self::{
    control::Request,
    plan::{Action, ChildId, End, Event, Plan, Program},
    process::Process,
};

/// Exit status by which a process says that it cannot serve as it was asked to, such as with a
/// configuration that is broken (`EX_CONFIG` of `sysexits.h`). From the first process of its role, soon
/// after its start, it ends the supervisor; later, what once worked is tried again.
pub const REFUSED: u8 = 78;

/// The program of the process that asks, even if its file was replaced or removed.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// What a process of the node proxy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The privileged half.
    Capture,
    /// The half that reads what the network sends.
    Proxy,
    /// What decides which pods are enrolled.
    Agent,
}

/// How the processes of a role are started.
#[derive(Clone, Debug)]
pub struct RoleSpec {
    /// The program.
    pub program: PathBuf,
    /// The program that SIGHUP changes to.
    pub program_on_disk: PathBuf,
    /// Its arguments, without its name.
    pub arguments: Vec<OsString>,
}

/// What is supervised.
#[derive(Clone, Debug)]
pub struct Supervisor {
    /// What this process logs, and the others.
    pub levels: Levels,
    /// The privileged half.
    pub capture: RoleSpec,
    /// The half that reads what the network sends.
    pub proxy: RoleSpec,
    /// What decides which pods are enrolled, if anything does.
    pub agent: Option<RoleSpec>,
    /// Time that the halves give open connections to finish.
    pub drain_timeout: Duration,
}

/// Why supervision failed.
#[derive(Debug, thiserror::Error)]
pub enum SuperviseError {
    /// Signals cannot be received.
    #[error("cannot receive signals: {0}")]
    Signals(io::Error),
    /// Open descriptors cannot be kept from the processes.
    #[error(
        "cannot keep open descriptors from the processes: {0}; the kernel needs to be 5.11 or newer"
    )]
    Descriptors(io::Error),
    /// The first process of a role did not start or refused to serve.
    #[error("the {0} process cannot serve: see its error above")]
    Refused(Role),
    /// A process failed while it drained, or had to be ended.
    #[error("not all processes ended in order: see the log for which and why")]
    Unclean,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    child: Signal,
}

/// What a signal means.
enum Wake {
    Decide(Event),
    ChildEnded,
    ChildAsks(ChildId, Option<Request>),
}

/// The processes, by the ids that the plan gave them.
struct Processes {
    spec: Supervisor,
    running: Vec<(ChildId, Role, Process)>,
    /// What is logged since it was changed: processes that are started later do so, too.
    filter: Option<String>,
}

/// Starts and supervises all processes until they have ended.
pub async fn run(spec: Supervisor) -> Result<(), SuperviseError> {
    // Before the first child, so that no end of one is missed.
    let mut signals = Signals::new().map_err(SuperviseError::Signals)?;
    close_in_programs().map_err(SuperviseError::Descriptors)?;
    let mut plan = Plan::new(spec.drain_timeout, spec.agent.is_some());
    let mut processes = Processes { spec, running: Vec::new(), filter: None };
    let now = || Instant::now().into_std();
    let first = plan.begin(now());
    let mut events = processes.carry_out(first);
    loop {
        while let Some(event) = events.pop_front() {
            let actions = plan.step(event, now());
            events.extend(processes.carry_out(actions));
        }
        if let Some(outcome) = plan.outcome() {
            return outcome;
        }
        let next_time = plan.next_time();
        let time_is_up = async {
            match next_time {
                Some(time) => sleep_until(time.into()).await,
                None => future::pending().await,
            }
        };
        let wake = tokio::select! {
            wake = signals.next() => wake,
            (child, request) = processes.asked() => Wake::ChildAsks(child, request),
            () = time_is_up => Wake::Decide(Event::TimeIsUp),
        };
        match wake {
            Wake::Decide(event) => events.push_back(event),
            Wake::ChildEnded => events.extend(processes.ended()),
            Wake::ChildAsks(_, Some(Request::Quit)) => events.push_back(Event::Terminate),
            Wake::ChildAsks(_, Some(Request::Log(change))) => processes.change_levels(&change),
            Wake::ChildAsks(child, None) => processes.set_silent(child),
        }
    }
}

// === impl Role ===

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Capture => "capture",
            Self::Proxy => "proxy",
            Self::Agent => "agent",
        })
    }
}

// === impl RoleSpec ===

impl RoleSpec {
    /// This very program with `arguments`; SIGHUP changes to the file that it was started from.
    ///
    /// To be called at start: the kernel forgets the path when the file is replaced.
    pub fn of_this_program(arguments: Vec<OsString>) -> io::Result<Self> {
        Ok(Self { program: OWN_PROGRAM.into(), program_on_disk: env::current_exe()?, arguments })
    }
}

// === impl Signals ===

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            child: signal(SignalKind::child())?,
        })
    }

    async fn next(&mut self) -> Wake {
        tokio::select! {
            _ = self.terminate.recv() => Wake::Decide(Event::Terminate),
            _ = self.interrupt.recv() => Wake::Decide(Event::Terminate),
            _ = self.hang_up.recv() => Wake::Decide(Event::Renew),
            _ = self.child.recv() => Wake::ChildEnded,
        }
    }
}

// === impl Processes ===

impl Processes {
    /// Returns what could not be done, as events.
    fn carry_out(&mut self, actions: Vec<Action>) -> VecDeque<Event> {
        let mut events = VecDeque::new();
        for action in actions {
            match action {
                Action::Start { child, role, program } => {
                    if !self.start(child, role, program) {
                        events.push_back(Event::Ended(child, End::NotStarted));
                    }
                }
                Action::Link { capture, other } => self.link(capture, other),
                Action::Stop(child, signal) => {
                    if let Some((_, role, process)) = self.find(child) {
                        let pid = process.pid();
                        info!(%role, pid, %signal, "stopping");
                        process.signal(signal);
                    }
                }
            }
        }
        events
    }

    fn start(&mut self, child: ChildId, role: Role, program: Program) -> bool {
        let spec = match role {
            Role::Capture => Some(&self.spec.capture),
            Role::Proxy => Some(&self.spec.proxy),
            Role::Agent => self.spec.agent.as_ref(),
        };
        let Some(spec) = spec else { return false };
        let program = match program {
            Program::Own => &spec.program,
            Program::OnDisk => &spec.program_on_disk,
        };
        match Process::start(program, &spec.arguments) {
            Ok(process) => {
                info!(%role, pid = process.pid(), program = %program.display(), "started");
                if let Some(filter) = self.filter.clone() {
                    process.tell_log(&LevelChange::Put(filter));
                }
                self.running.push((child, role, process));
                true
            }
            Err(error) => {
                error!(%role, program = %program.display(), %error, "cannot start");
                false
            }
        }
    }

    /// A link that does not reach both ends closes, which the one that got it sees.
    fn link(&self, capture: ChildId, other: ChildId) {
        let (Some((_, _, capture)), Some((_, role, other))) =
            (self.find(capture), self.find(other))
        else {
            return;
        };
        let (capture_pid, pid) = (capture.pid(), other.pid());
        match process::link(capture, other, *role) {
            Ok(()) => info!(capture_pid, %role, pid, "linked"),
            Err(error) => warn!(capture_pid, %role, pid, %error, "cannot link"),
        }
    }

    /// Waits for what capture asks; no other process has anything to say here.
    async fn asked(&self) -> (ChildId, Option<Request>) {
        let captures = self.running.iter().filter(|(_, role, _)| *role == Role::Capture);
        let mut asked: FuturesUnordered<_> =
            captures.map(|(id, _, process)| async { (*id, process.asked().await) }).collect();
        match asked.next().await {
            Some(asked) => asked,
            None => future::pending().await,
        }
    }

    /// Changes what all processes log.
    fn change_levels(&mut self, change: &LevelChange) {
        let levels = &self.spec.levels;
        if let Err(error) = levels.apply(change) {
            warn!(%error, "cannot change what is logged");
            return;
        }
        self.filter = match change {
            LevelChange::Put(_) => Some(levels.to_string()),
            LevelChange::Reset => None,
        };
        for (_, _, process) in &self.running {
            process.tell_log(change);
        }
        info!(filter = %levels, "what is logged was changed");
    }

    fn set_silent(&mut self, child: ChildId) {
        if let Some((_, _, process)) = self.running.iter_mut().find(|(id, _, _)| *id == child) {
            process.set_silent();
        }
    }

    fn find(&self, child: ChildId) -> Option<&(ChildId, Role, Process)> {
        self.running.iter().find(|(id, _, _)| *id == child)
    }

    /// Removes the processes that have ended.
    fn ended(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        self.running.retain_mut(|(id, role, process)| {
            let Some(status) = process.exit_status() else { return true };
            let end = End::from(status);
            info!(%role, pid = process.pid(), %status, "ended");
            events.push(Event::Ended(*id, end));
            false
        });
        events
    }
}

impl From<ExitStatus> for End {
    fn from(status: ExitStatus) -> Self {
        match status.code() {
            Some(0) => Self::Success,
            Some(code) if code == i32::from(REFUSED) => Self::Refused,
            Some(_) | None => Self::Failure,
        }
    }
}
