//! What a lab leaves in the kernel, and its removal: by the lab itself, or by the next one when its
//! process was killed.
//!
//! A lab holds a lock on a file in its directory for as long as its process lives; the kernel
//! releases the lock whatever way the process ends. A lab whose lock is free is abandoned.

use std::{
    fs::{self, File, TryLockError},
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, geteuid},
};

use crate::{
    netns::{NETNS_DIR, Netns, NetnsId},
    wait::wait_for,
};

/// One directory per lab, for its lock and the output of its programs; writable by root only.
const STATE_DIR: &str = "/var/lib/fairlead-lab";

/// Where BPF programs are pinned.
const BPF_FS: &str = "/sys/fs/bpf";

/// Held while labs come and go: what looks abandoned is then never a lab half made or half removed.
const START_LOCK: &str = "start.lock";

/// Held by the process that owns the lab.
const OWNER_LOCK: &str = "owner.lock";

/// Time the kernel gets to end killed processes; they free gigabytes of socket buffers at most.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

static NEXT_LAB: AtomicU32 = AtomicU32::new(1);

/// The right to use an id: no other lab on this machine has it.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) id: String,
    pub(crate) dir: PathBuf,
    _owner_lock: File,
}

// === impl Claim ===

impl Claim {
    /// Removes abandoned labs and claims an id for a lab called `name`.
    pub(crate) fn new(name: &str) -> Result<Self> {
        ensure!(geteuid().is_root(), "the lab makes network namespaces: run it as root");
        let state_dir = Path::new(STATE_DIR);
        fs::create_dir_all(state_dir)?;
        let _start_lock = lock(state_dir.join(START_LOCK))?;
        remove_abandoned(state_dir)?;

        let number = NEXT_LAB.fetch_add(1, Ordering::Relaxed);
        let id = format!("fl{}x{number}", process::id());
        let dir = state_dir.join(format!("{id}-{name}"));
        fs::create_dir(&dir).with_context(|| format!("lab {name}"))?;
        let owner_lock = lock(dir.join(OWNER_LOCK))?;
        Ok(Self { id, dir, _owner_lock: owner_lock })
    }

    /// Removes everything the lab has.
    pub(crate) fn remove(&self) -> Result<()> {
        let _start_lock = lock(Path::new(STATE_DIR).join(START_LOCK))?;
        remove_namespaces(&self.id)?;
        Ok(fs::remove_dir_all(&self.dir)?)
    }
}

/// Returns where the proxy in a namespace pins its BPF programs.
pub(crate) fn pins_of(netns: &str) -> PathBuf {
    Path::new(BPF_FS).join(netns)
}

/// Ends every process inside `netns`.
pub(crate) fn end_processes_in(netns: &Netns) -> Result<()> {
    end_processes(&[netns.id()?])
}

fn remove_abandoned(state_dir: &Path) -> Result<()> {
    for entry in fs::read_dir(state_dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some((id, _)) = name.to_str().and_then(|name| name.split_once('-')) else {
            continue;
        };
        if is_abandoned(&entry.path())? {
            remove_namespaces(id)?;
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

fn is_abandoned(dir: &Path) -> Result<bool> {
    let owner_lock = match File::open(dir.join(OWNER_LOCK)) {
        // Killed between making the directory and making the lock, or between removing them.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(true),
        other => other?,
    };
    match owner_lock.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

fn lock(path: PathBuf) -> Result<File> {
    let file = File::create(path)?;
    file.lock()?;
    Ok(file)
}

fn remove_namespaces(lab: &str) -> Result<()> {
    let namespaces = namespaces_of(lab)?;
    // An id that cannot be read belongs to a name that was never mounted: nothing runs there.
    let ids: Vec<_> = namespaces.iter().filter_map(|netns| netns.id().ok()).collect();
    end_processes(&ids)?;
    for netns in &namespaces {
        // What a killed proxy leaves; there is nothing where none ran.
        match fs::remove_dir_all(pins_of(netns.name())) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            _ => netns.delete()?,
        }
    }
    Ok(())
}

fn namespaces_of(lab: &str) -> Result<Vec<Netns>> {
    let prefix = format!("{lab}-");
    let entries = match fs::read_dir(NETNS_DIR) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let names = entries.collect::<io::Result<Vec<_>>>()?;
    Ok(names
        .iter()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with(&prefix))
        .map(|name| Netns::named(&name))
        .collect())
}

fn end_processes(namespaces: &[NetnsId]) -> Result<()> {
    let mut seen = Vec::new();
    wait_for("processes of the lab end", KILL_TIMEOUT, || {
        let alive = processes_inside(namespaces)?;
        // Whoever is seen once may be capture, which enters pods for microseconds.
        for pid in alive.iter().filter(|pid| seen.contains(*pid)) {
            // An error means that it ended in the meantime.
            let _ = kill(*pid, Signal::SIGKILL);
        }
        seen = alive;
        Ok(seen.is_empty().then_some(()))
    })
}

/// Finds the living processes inside; one that only waits to be reaped has no namespace any more.
fn processes_inside(namespaces: &[NetnsId]) -> Result<Vec<Pid>> {
    let own = Pid::this();
    let mut inside = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let pid = Pid::from_raw(pid);
        let namespace = NetnsId::of_file(&entry.path().join("ns/net"));
        if pid != own && namespace.is_ok_and(|id| namespaces.contains(&id)) {
            inside.push(pid);
        }
    }
    Ok(inside)
}
