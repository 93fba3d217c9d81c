//! Control groups (v2) of tests, and programs that run in one.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result};

use crate::{
    host::Host,
    netns::Netns,
    process::{Child, IntoCommand},
};

/// Moves itself to the group `$0` and becomes the program that follows.
const ENTER: &str = "echo 0 > \"$0/cgroup.procs\" && exec \"$@\"";

static NEXT: AtomicU32 = AtomicU32::new(1);

/// A control group of its own, removed when dropped.
#[derive(Debug)]
pub struct Cgroup(PathBuf);

/// A node or a pod whose programs run in a control group.
#[derive(Debug)]
pub struct InCgroup<'a, H> {
    host: &'a H,
    cgroup: &'a Cgroup,
}

/// Returns where the cgroup v2 tree is mounted.
pub fn cgroup_root() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let point = mounts.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        kind.starts_with("cgroup2 ").then(|| mount.split(' ').nth(4))?
    });
    Ok(point.context("no cgroup v2 tree")?.into())
}

// === impl Cgroup ===

impl Cgroup {
    /// Makes a group at the root of the tree.
    pub fn new(name: &str) -> Result<Self> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = cgroup_root()?.join(format!("fairlead-{}-{number}-{name}", process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }

    /// Makes a group below this one.
    pub fn child(&self, name: &str) -> Result<Self> {
        let path = self.0.join(name);
        fs::create_dir(&path)?;
        Ok(Self(path))
    }

    /// Returns its directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Removes the group and makes another one of the same name, as a service manager does.
    pub fn make_anew(&self) -> Result<()> {
        crate::wait_for(
            "an empty control group",
            crate::host::RUN_TIMEOUT,
            || match fs::remove_dir(&self.0) {
                Ok(()) => Ok(Some(())),
                Err(error) if error.kind() == ErrorKind::ResourceBusy => Ok(None),
                Err(error) => Err(error.into()),
            },
        )?;
        Ok(fs::create_dir(&self.0)?)
    }

    /// Returns `host` with this group for its programs.
    pub fn on<'a, H: Host>(&'a self, host: &'a H) -> InCgroup<'a, H> {
        InCgroup { host, cgroup: self }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Busy until its last process is reaped; an empty directory harms nobody.
        let _ = fs::remove_dir(&self.0);
    }
}

// === impl InCgroup ===

impl<H: Host> Host for InCgroup<'_, H> {
    fn netns(&self) -> &Netns {
        self.host.netns()
    }

    fn lab_dir(&self) -> &Path {
        self.host.lab_dir()
    }

    fn spawn(&self, command: impl IntoCommand) -> Result<Child> {
        let command = command.into_command();
        let mut entering = process::Command::new("sh");
        entering.args(["-c", ENTER]).arg(self.cgroup.path());
        entering.arg(command.get_program()).args(command.get_args());
        self.host.spawn(entering)
    }
}
