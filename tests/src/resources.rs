//! What a process uses of the machine.

use std::{fs, iter::Sum, time::Duration};

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
    /// Processor time of the children that ended and that it waited for.
    pub children_cpu: Duration,
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
        let [own, children] = cpu(&read("stat")?).context("malformed stat")?;
        Ok(Self {
            resident_kib: kib(&memory, "Rss:")?,
            proportional_kib: kib(&memory, "Pss:")?,
            descriptors: fs::read_dir(format!("/proc/{pid}/fd"))?.count(),
            cpu: own,
            children_cpu: children,
        })
    }
}

impl Sum for Resources {
    fn sum<I: Iterator<Item = Self>>(processes: I) -> Self {
        let none = Self {
            resident_kib: 0,
            proportional_kib: 0,
            descriptors: 0,
            cpu: Duration::ZERO,
            children_cpu: Duration::ZERO,
        };
        processes.fold(none, |sum, one| Self {
            resident_kib: sum.resident_kib + one.resident_kib,
            proportional_kib: sum.proportional_kib + one.proportional_kib,
            descriptors: sum.descriptors + one.descriptors,
            cpu: sum.cpu + one.cpu,
            children_cpu: sum.children_cpu + one.children_cpu,
        })
    }
}

fn kib(memory: &str, key: &str) -> Result<u64> {
    let line = memory.lines().find_map(|line| line.strip_prefix(key)).context("no such line")?;
    let number = line.split_whitespace().next().context("no number")?;
    Ok(number.parse()?)
}

/// Adds user and kernel time of the process and of its children: `utime`, `stime`, `cutime` and
/// `cstime` are fields 14 to 17, counted after the name, which may hold spaces.
fn cpu(stat: &str) -> Option<[Duration; 2]> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11).map(str::parse::<u32>);
    let mut sum = || Some(TICK * (fields.next()?.ok()? + fields.next()?.ok()?));
    Some([sum()?, sum()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_read_after_the_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 1 2 3 4 10 5 200 100 20 0 1 0 99 1 2";
        let expected = [Duration::from_millis(150), Duration::from_secs(3)];
        assert_eq!(cpu(stat), Some(expected));
        assert_eq!(cpu("7 (a"), None);
        assert_eq!(cpu("7 (a) S 1 7 7 0 -1 4194304 1 2 3 4 10 x 200 100"), None);
    }
}
