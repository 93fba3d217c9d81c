//! Another proxy than the one under test, behind a command that starts it on a node.
//!
//! The command runs in the node's network namespace, once a node. It starts the proxy, takes the
//! node's pods into the mesh, writes a line `ready` to standard output and ends on `SIGTERM`.
//! `benches/README.md` has the whole contract.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use nix::{sys::signal::Signal, unistd::Pid};

use crate::{
    host::Host as _,
    node::Node,
    pod::Pod,
    process::Child,
    process_tree::{TreeProcess, process_tree},
    wait::wait_for,
};

/// Time to start a proxy that may be slow, with a large configuration.
const READY_TIMEOUT: Duration = Duration::from_mins(1);

/// Time to drain connections and clean up.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// The word that a line of standard output begins with when the proxy serves.
const READY: &str = "ready";

/// What an adapter is told.
#[derive(Clone, Copy, Debug)]
pub struct AdapterSite<'a> {
    /// The node that it serves.
    pub node: &'a Node,
    /// All pods of the mesh, those of other nodes too.
    pub pods: &'a [Pod],
    /// Workloads and services in the form of the local configuration file.
    pub config: &'a Path,
    /// A directory that the adapters of all nodes share, for a certificate authority.
    pub ca: &'a Path,
    /// A directory of its own, empty at the start.
    pub state: &'a Path,
}

/// An adapter that runs; dropping it kills it and what it started.
#[derive(Debug)]
pub struct Adapter {
    process: Child,
    roots: Vec<Pid>,
}

// === impl AdapterSite ===

impl AdapterSite<'_> {
    fn variables(&self) -> Result<[(&'static str, PathBuf); 6]> {
        let pods = self.state.with_extension("pods");
        fs::write(&pods, table_of(self.pods)?)?;
        Ok([
            ("BENCH_NODE", self.node.name().into()),
            ("BENCH_NETNS", self.node.netns().path().to_owned()),
            ("BENCH_PODS", pods),
            ("BENCH_CONFIG", self.config.to_owned()),
            ("BENCH_CA", self.ca.to_owned()),
            ("BENCH_STATE", self.state.to_owned()),
        ])
    }
}

// === impl Adapter ===

impl Adapter {
    /// Starts `command`, which is what a shell would pass to env(1), and waits until it is ready.
    pub fn start(command: &str, site: &AdapterSite<'_>) -> Result<Self> {
        fs::create_dir_all(site.state)?;
        fs::create_dir_all(site.ca)?;
        let mut shell = Command::new("sh");
        // In the shell's place, so that a signal reaches the adapter.
        shell.args(["-c", &format!("exec env {command}")]).envs(site.variables()?);
        let mut process = site.node.spawn(shell)?;
        let roots = wait_for(&format!("`{command}` is ready"), READY_TIMEOUT, || {
            // Asked first: what was written before the end is then seen.
            let running = process.is_running()?;
            match roots_in(&process.stdout()?)? {
                None if !running => bail!("`{command}` ended before it was ready"),
                found => Ok(found),
            }
        })
        .with_context(|| process.stderr().unwrap_or_default())?;
        let roots = if roots.is_empty() { vec![process.pid()] } else { roots };
        Ok(Self { process, roots })
    }

    /// Returns the processes of the proxy: those that it named, or all that it started.
    pub fn processes(&self) -> Result<Vec<TreeProcess>> {
        let trees: Vec<_> =
            self.roots.iter().map(|root| process_tree(*root)).collect::<Result<_>>()?;
        Ok(trees.concat())
    }

    /// Asks it to end (`SIGTERM`) and waits until it has.
    pub fn stop(mut self) -> Result<()> {
        self.process.signal(Signal::SIGTERM)?;
        self.process.wait(STOP_TIMEOUT)?;
        Ok(())
    }
}

/// Finds the line that says "ready" and returns the process ids in it. The last line may not be
/// whole yet.
fn roots_in(output: &str) -> Result<Option<Vec<Pid>>> {
    let whole = output.rsplit_once('\n').map_or("", |(whole, _)| whole);
    for line in whole.lines() {
        let mut words = line.split_whitespace();
        if words.next() == Some(READY) {
            let pid = |word: &str| {
                word.parse().map(Pid::from_raw).with_context(|| format!("no process id: {line}"))
            };
            return words.map(pid).collect::<Result<_>>().map(Some);
        }
    }
    Ok(None)
}

/// A line a pod: node, name, namespace, service account, IPv4, IPv6, network namespace.
fn table_of(pods: &[Pod]) -> Result<String> {
    let mut table = String::new();
    for pod in pods {
        let netns = pod.netns().path().display();
        let (node, name, namespace) = (pod.node(), pod.name(), pod.namespace());
        let (account, ipv4, ipv6) = (pod.service_account(), pod.ipv4(), pod.ipv6());
        writeln!(table, "{node} {name} {namespace} {account} {ipv4} {ipv6} {netns}")?;
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ready_line_names_the_processes_to_weigh() {
        for (output, expected) in [
            ("", None),
            ("starting\nreadying\n", None),
            ("not ready\n", None),
            ("ready", None),
            ("ready 12", None),
            ("starting\nready\n", Some(vec![])),
            ("ready 12 13\nmore\n", Some(vec![12, 13])),
        ] {
            let expected = expected.map(|pids| pids.into_iter().map(Pid::from_raw).collect());
            assert_eq!(roots_in(output).unwrap(), expected, "{output:?}");
        }
        assert!(roots_in("ready steady\n").is_err());
    }
}
