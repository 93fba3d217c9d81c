//! Processor time and memory of the proxies, process by process.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};
use fairlead_lab::TreeProcess;

/// A process of a node's proxy.
#[derive(Clone, Debug)]
pub(crate) struct NodeProcess {
    /// The node.
    pub(crate) node: String,
    /// The process and what it uses.
    pub(crate) process: TreeProcess,
}

/// What the proxies use, and the processor time that the machine has used so far.
#[derive(Clone, Debug)]
pub(crate) struct Usage {
    /// All processes of the proxies, node by node.
    pub(crate) processes: Vec<NodeProcess>,
    machine: Duration,
}

/// Processor time that was used between two moments.
#[derive(Clone, Debug, Default)]
pub(crate) struct CpuTime {
    /// By all proxies.
    pub(crate) proxies: Duration,
    /// By each kind of process.
    pub(crate) processes: Vec<(String, Duration)>,
    /// By everything that ran on this machine.
    pub(crate) machine: Duration,
}

/// Memory of one process or several, in KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Memory {
    /// Resident; shared pages count for each process.
    pub(crate) resident: f64,
    /// Resident; shared pages are divided by those that share them.
    pub(crate) proportional: f64,
}

pub(crate) const KIB_PER_MIB: f64 = 1024.0;

// === impl Usage ===

impl Usage {
    /// Adds what the machine used to what the proxies use.
    pub(crate) fn of(processes: Vec<NodeProcess>) -> Result<Self> {
        Ok(Self { processes, machine: machine_cpu(&fs::read_to_string("/proc/stat")?)? })
    }

    /// Returns the time used since `earlier`. That of a process that ended in the meantime is in
    /// its parent's.
    pub(crate) fn since(&self, earlier: &Self) -> CpuTime {
        let mut processes = Vec::new();
        for process in &self.processes {
            let before = earlier.processes.iter().find(|p| p.process.pid == process.process.pid);
            let before = before.map_or(Duration::ZERO, NodeProcess::cpu);
            add(&mut processes, process.name(), process.cpu().saturating_sub(before));
        }
        CpuTime {
            proxies: self.proxies().saturating_sub(earlier.proxies()),
            processes,
            machine: self.machine.saturating_sub(earlier.machine),
        }
    }

    /// Returns what all processes of a node's proxy weigh.
    pub(crate) fn memory(&self, node: &str) -> Memory {
        let processes = self.processes.iter().filter(|process| process.node == node);
        processes.map(NodeProcess::memory).fold(Memory::default(), |sum, one| Memory {
            resident: sum.resident + one.resident,
            proportional: sum.proportional + one.proportional,
        })
    }

    fn proxies(&self) -> Duration {
        self.processes.iter().map(NodeProcess::cpu).sum()
    }
}

// === impl NodeProcess ===

impl NodeProcess {
    /// Returns its name in the results.
    pub(crate) fn name(&self) -> String {
        format!("{} {}", self.node, self.process.name)
    }

    /// Returns what it weighs.
    pub(crate) fn memory(&self) -> Memory {
        let resources = self.process.resources;
        Memory {
            resident: kib(resources.resident_kib),
            proportional: kib(resources.proportional_kib),
        }
    }

    fn cpu(&self) -> Duration {
        self.process.resources.cpu + self.process.resources.children_cpu
    }
}

#[expect(clippy::cast_precision_loss, reason = "a machine's memory in KiB is far below 2^52")]
fn kib(amount: u64) -> f64 {
    amount as f64
}

/// Adds to the entry called `name`: processes that do the same count as one.
pub(crate) fn add<T: std::ops::AddAssign>(sums: &mut Vec<(String, T)>, name: String, value: T) {
    match sums.iter_mut().find(|(known, _)| *known == name) {
        Some((_, sum)) => *sum += value,
        None => sums.push((name, value)),
    }
}

/// Adds up the first line of /proc/stat without idle time, in ticks of 10 ms.
fn machine_cpu(stat: &str) -> Result<Duration> {
    const TICK: Duration = Duration::from_millis(10);
    let line = stat.lines().next().context("empty /proc/stat")?;
    let fields: Vec<u32> = line.split_whitespace().skip(1).flat_map(str::parse).collect();
    // user nice system idle iowait irq softirq steal: idle, iowait and steal are no work of ours.
    let busy = [0, 1, 2, 5, 6].iter().filter_map(|index| fields.get(*index)).sum();
    Ok(TICK * busy)
}

#[cfg(test)]
mod tests {
    use fairlead_lab::Resources;
    use nix::unistd::Pid;

    use super::*;

    fn process(pid: i32, name: &str, ms: u64, children_ms: u64) -> NodeProcess {
        let resources = Resources {
            resident_kib: 0,
            proportional_kib: 0,
            descriptors: 0,
            cpu: Duration::from_millis(ms),
            children_cpu: Duration::from_millis(children_ms),
        };
        let process = TreeProcess { pid: Pid::from_raw(pid), name: name.to_owned(), resources };
        NodeProcess { node: "n1".to_owned(), process }
    }

    fn usage(processes: Vec<NodeProcess>, machine_ms: u64) -> Usage {
        Usage { processes, machine: Duration::from_millis(machine_ms) }
    }

    #[test]
    fn processor_time_counts_from_the_earlier_look_and_survives_a_process() {
        let before = usage(vec![process(1, "proxy", 100, 0), process(2, "worker", 30, 0)], 1_000);
        // 2 has ended with 50 ms, which its parent now has; 3 and 4 are new and of one kind.
        let now = vec![
            process(1, "proxy", 110, 50),
            process(3, "worker", 7, 0),
            process(4, "worker", 3, 0),
        ];
        let used = usage(now, 1_500).since(&before);
        assert_eq!(used.proxies, Duration::from_millis(40));
        assert_eq!(used.machine, Duration::from_millis(500));
        let expected = [("n1 proxy", 60), ("n1 worker", 10)];
        let expected = expected.map(|(name, ms)| (name.to_owned(), Duration::from_millis(ms)));
        assert_eq!(used.processes, expected);
    }

    #[test]
    fn the_machine_is_busy_when_it_neither_idles_nor_waits() {
        let stat = "cpu  1 2 4 1000 2000 8 16 4000 0 0\ncpu0 0\n";
        assert_eq!(machine_cpu(stat).unwrap(), Duration::from_millis(310));
        assert!(machine_cpu("").is_err());
    }
}
