//! The proxy process confines itself, for good, before it touches the network, and so does the agent.
//!
//! They read what strangers send, so they are built to be of no use to one who takes them over:
//!
//! | What such a process has | Module |
//! |---|---|
//! | a view of the file system with a few directories and files, all read-only | `view` |
//! | a user of its own, no group, no capability and no way to get one | `privileges` |
//! | the system calls that the data path needs, with the arguments that it needs | `policy` |
//!
//! A call outside the policy fails with `EPERM`; one that only an attacker makes kills the process.
//! What needs more is done by capture, or before [`Sandbox::enter`]: the process opens no other
//! file, starts no program, and has no `/proc`. (Without it `available_parallelism` knows nothing
//! of a processor quota, and backtraces have no names.)

mod filter;
mod policy;
mod privileges;
mod readable;
mod view;

use std::{fs, io, path::PathBuf};

use nix::unistd::{Gid, Uid};

pub use self::readable::{Unreadable, ensure_readable};

/// What the C library reads to look up a host name.
pub const RESOLVER_FILES: [&str; 4] =
    ["/etc/hosts", "/etc/nsswitch.conf", "/etc/resolv.conf", "/etc/gai.conf"];

/// What is left to a process that confines itself.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// The user that it becomes.
    pub user: Uid,
    /// The group that it becomes a member of.
    pub group: Gid,
    /// Directories that it goes on seeing, with all below them, under the same absolute paths.
    pub readable: Vec<PathBuf>,
    /// Single files that it goes on seeing, as they are now, under the same absolute paths. Those
    /// that do not exist are left out.
    pub files: Vec<PathBuf>,
}

/// Why a process could not confine itself.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// What it is to become is as mighty as what it is.
    #[error(
        "no process without privilege can run as user 0 or group 0: choose another --proxy-user or \
         --agent-user"
    )]
    PrivilegedUser,
    /// Other threads would stay as they are.
    #[error("{0} threads run already: the sandbox has to be entered before any thread is started")]
    Threads(usize),
    /// A path has another form than those that can be shown.
    #[error("{} cannot be shown to a process without privilege: give the absolute path of a directory, without ..", .0.display())]
    Path(PathBuf),
    /// A step failed.
    #[error(
        "cannot {step}: {source}; start this as root with CAP_SYS_ADMIN, CAP_SETPCAP, CAP_SETUID \
         and CAP_SETGID"
    )]
    Step {
        /// What was tried.
        step: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// A directory cannot be shown.
    #[error("cannot show {} to a process without privilege: {source}; it has to be a directory that exists", path.display())]
    Show {
        /// The directory.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The filter of system calls cannot be built or installed.
    #[error("cannot filter system calls: {0}; the kernel needs CONFIG_SECCOMP_FILTER")]
    Filter(#[from] seccompiler::Error),
}

// === impl Sandbox ===

impl Sandbox {
    /// Confines this process. There is no way back; after an error the process is to end.
    ///
    /// Has to be called before any thread is started, and before anything is opened that the
    /// process is not to have: open descriptors stay open.
    pub fn enter(self) -> Result<(), SandboxError> {
        if self.user.is_root() || self.group.as_raw() == 0 {
            return Err(SandboxError::PrivilegedUser);
        }
        let threads = threads().map_err(failed("count threads"))?;
        if threads != 1 {
            return Err(SandboxError::Threads(threads));
        }
        // Built while everything still works: nothing can fail later but the installation.
        let filters = filter::build()?;
        view::confine(&self.readable, &self.files)?;
        privileges::drop_all(self.user, self.group)?;
        filter::install(&filters)?;
        Ok(())
    }
}

fn threads() -> io::Result<usize> {
    Ok(fs::read_dir("/proc/self/task")?.count())
}

fn failed<E: Into<io::Error>>(step: &'static str) -> impl Fn(E) -> SandboxError {
    move |error| SandboxError::Step { step, source: error.into() }
}
