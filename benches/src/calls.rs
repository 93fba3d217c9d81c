//! Which system calls the proxies make for a scenario, counted with strace.

use std::{fmt::Write as _, fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use fairlead_lab::{Child, Host as _};
use nix::sys::signal::Signal;

use crate::{rig::Rig, table::thousands};

/// Time for strace to take hold of all threads, or to let go.
const ATTACH_TIMEOUT: Duration = Duration::from_secs(10);

/// Calls that are rarer are not shown: a thousandth of all.
const RARE: u64 = 1_000;

/// Counts the calls of each process until it is finished.
#[derive(Debug)]
pub(crate) struct CallCounter(Vec<Traced>);

/// A process under strace.
#[derive(Debug)]
struct Traced {
    name: String,
    counts: PathBuf,
    strace: Child,
}

// === impl CallCounter ===

impl CallCounter {
    /// Begins to count.
    pub(crate) fn start(rig: &Rig) -> Result<Self> {
        let processes = rig.usage()?.processes.into_iter();
        let start = |process: crate::usage::NodeProcess| {
            let pid = process.process.pid.to_string();
            let counts = rig.dir().join(format!("calls-{pid}"));
            let command = ["strace", "-f", "-c", "-p", &pid, "-o", &counts.to_string_lossy()];
            let mut strace = rig.client.spawn(command).context("strace")?;
            strace.wait_for_output("attached", ATTACH_TIMEOUT)?;
            Ok(Traced { name: process.name(), counts, strace })
        };
        processes.map(start).collect::<Result<_>>().map(Self)
    }

    /// Ends counting and returns a line for each process that made calls.
    pub(crate) fn finish(self) -> Result<String> {
        let mut lines = String::new();
        for Traced { name, counts, mut strace } in self.0 {
            strace.signal(Signal::SIGINT)?;
            strace.wait(ATTACH_TIMEOUT)?;
            let table = fs::read_to_string(&counts)?;
            let calls = counts_in(&table);
            if !calls.is_empty() {
                writeln!(lines, "  {name}: {}", summary(&calls))?;
            }
        }
        Ok(lines)
    }
}

/// Reads strace's table: name and count of each call, the most frequent first.
fn counts_in(table: &str) -> Vec<(String, u64)> {
    let mut calls: Vec<(String, u64)> = table.lines().filter_map(count_in).collect();
    calls.sort_by_key(|(name, count)| (std::cmp::Reverse(*count), name.clone()));
    calls
}

/// The columns are share, seconds, microseconds a call, calls, errors if any, and the name.
fn count_in(line: &str) -> Option<(String, u64)> {
    let columns: Vec<&str> = line.split_whitespace().collect();
    let (count, name) = (columns.get(3)?.parse().ok()?, columns.last()?);
    (*name != "total").then(|| ((*name).to_owned(), count))
}

fn summary(calls: &[(String, u64)]) -> String {
    let total: u64 = calls.iter().map(|(_, count)| count).sum();
    let shown = calls.iter().filter(|(_, count)| count * RARE >= total);
    let text = |(name, count): &(String, u64)| format!("{name} {}", thousands(&count.to_string()));
    shown.map(text).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_strace_is_read() {
        let table = "\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 99.00    1.000000        1000      1000         7 recvfrom
  1.00    0.000100           1      3000           writev
  0.00    0.000000           0         1           getpid
------ ----------- ----------- --------- --------- ----------------
100.00    1.000100           1      4001         7 total
";
        let calls = counts_in(table);
        assert_eq!(summary(&calls), "writev 3,000, recvfrom 1,000");
        assert_eq!(calls[2], ("getpid".to_owned(), 1));
        assert!(counts_in("strace: Process 1 detached\n").is_empty());
    }
}
