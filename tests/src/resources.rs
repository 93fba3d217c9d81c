//! What a process uses of the machine.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};
use nix::unistd::Pid;

/// Length of the tick in `/proc/PID/stat`: the same on all of Linux's 64-bit architectures.
const TICK: Duration = Duration::from_millis(10);

/// Memory, descriptors and processor time of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resources {
    /// Resident memory, in KiB.
    pub resident_kib: u64,
    /// Proportional share of resident memory, in KiB.
    pub proportional_kib: u64,
    /// Open file descriptors.
    pub descriptors: usize,
    /// Processor time since the start, in user and kernel space, all threads.
    pub cpu: Duration,
}

// === impl Resources ===

impl Resources {
    /// Returns what the process `pid` uses now.
    pub fn of(pid: Pid) -> Result<Self> {
        let read = |file: &str| {
            fs::read_to_string(format!("/proc/{pid}/{file}"))
                .with_context(|| format!("process {pid}"))
        };
        let memory = read("smaps_rollup")?;
        Ok(Self {
            resident_kib: kib(&memory, "Rss:")?,
            proportional_kib: kib(&memory, "Pss:")?,
            descriptors: fs::read_dir(format!("/proc/{pid}/fd"))?.count(),
            cpu: cpu(&read("stat")?).context("malformed stat")?,
        })
    }
}

fn kib(memory: &str, key: &str) -> Result<u64> {
    let line = memory.lines().find_map(|line| line.strip_prefix(key)).context("no such line")?;
    let number = line.split_whitespace().next().context("no number")?;
    Ok(number.parse()?)
}

/// Adds `utime` and `stime`: fields 14 and 15, counted after the name, which may hold spaces.
fn cpu(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11).map(str::parse::<u32>);
    let ticks = fields.next()?.ok()? + fields.next()?.ok()?;
    Some(TICK * ticks)
}
