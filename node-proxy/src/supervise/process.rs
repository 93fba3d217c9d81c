//! A child process with its control channel.

use std::{
    ffi::OsString,
    fmt, io,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
};

use fairlead_component::logging::LevelChange;
use fairlead_sys::descriptors::{self, Channel};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tracing::warn;

use super::{
    Role,
    control::{self, Request},
};

/// Name of the program as processes are listed; the path that it is started by says nothing.
const NAME: &str = "fairlead-node";

/// A child that was not waited for yet, so that its pid is its own.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    channel: Channel,
    /// Whether its end of the channel is closed.
    is_silent: bool,
}

/// How a process is asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// It ends in its own way.
    Terminate,
    /// It ends at once.
    Kill,
}

// === impl Process ===

impl Process {
    pub(super) fn start(program: &Path, arguments: &[OsString]) -> io::Result<Self> {
        let (channel, childs_end) = descriptors::pair()?;
        let child = Command::new(program)
            .arg0(NAME)
            .args(arguments)
            .stdin(Stdio::from(childs_end))
            // A terminal's Ctrl-C is for the supervisor, which ends its children in order.
            .process_group(0)
            .spawn()?;
        Ok(Self { child, channel: Channel::new(channel)?, is_silent: false })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn signal(&self, stop: Stop) {
        let signal = match stop {
            Stop::Terminate => Signal::SIGTERM,
            Stop::Kill => Signal::SIGKILL,
        };
        if let Err(error) = kill(Pid::from_raw(self.pid().cast_signed()), signal) {
            warn!(pid = self.pid(), %signal, %error, "cannot send a signal");
        }
    }

    /// Waits for what the process asks. `None` says that it asks nothing any more; see
    /// [`Self::set_silent`].
    pub(super) async fn asked(&self) -> Option<Request> {
        if self.is_silent {
            std::future::pending::<()>().await;
        }
        control::asked(&self.channel).await
    }

    /// Tells the process to change what it logs.
    pub(super) fn tell_log(&self, change: &LevelChange) {
        if let Err(error) = control::tell_log(&self.channel, change) {
            warn!(pid = self.pid(), %error, "cannot tell a process what to log");
        }
    }

    /// Notes that the process asks nothing any more: it is about to end.
    pub(super) fn set_silent(&mut self) {
        self.is_silent = true;
    }

    /// Returns how the process ended, if it has.
    pub(super) fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap_or_else(|error| {
            warn!(pid = self.pid(), %error, "cannot wait for a process");
            None
        })
    }
}

// === impl Stop ===

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Terminate => "SIGTERM",
            Self::Kill => "SIGKILL",
        })
    }
}

/// Joins capture and a process of another role with a fresh pair of sockets.
pub(super) fn link(capture: &Process, other: &Process, role: Role) -> io::Result<()> {
    let (captures_end, others_end) = descriptors::pair()?;
    control::give_link(&capture.channel, role, &captures_end)?;
    control::give_link(&other.channel, Role::Capture, &others_end)
}
