//! The proxy under test: a supervisor with its two halves on each node.

use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::{
    access_log::AccessLine,
    host::Host as _,
    leftovers::pins_of,
    metrics::Metrics,
    node::Node,
    pod::Pod,
    process::{Child, Output},
    process_tree::{has_ended, process_tree},
    resources::Resources,
    wait::wait_for,
};

/// Names the binary to test in place of the release build.
const BINARY_VARIABLE: &str = "FAIRLEAD_NODE_BIN";

/// The release build, as `cargo xtask build` leaves it.
const RELEASE_BINARY: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../target/release/fairlead-node");

/// Port of the readiness page.
const READINESS_PORT: u16 = 15021;

/// Port of the metrics page.
const METRICS_PORT: u16 = 15020;

/// Time to load the programs, make the first keys and listen.
const READY_TIMEOUT: Duration = Duration::from_secs(20);

/// Time to drain connections and leave the kernel as it was.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// Time until a connection that ended is in the access log.
const LOG_TIMEOUT: Duration = Duration::from_secs(5);

/// Time for the processes of a killed proxy to be gone.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// Lines of [`FairleadNode::complaints`].
const MOST_COMPLAINTS: usize = 40;

/// A process of the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// The privileged half.
    Capture,
    /// The half that has all the parsing.
    Proxy,
    /// What decides which pods are enrolled; there is none where operators do.
    Agent,
}

/// How to start `fairlead-node` on a node.
#[derive(Clone, Debug)]
#[must_use]
pub struct FairleadBuilder {
    node: Node,
    binary: PathBuf,
    run_dir: PathBuf,
    args: Vec<String>,
    variables: Vec<(String, String)>,
    descriptors: Option<usize>,
}

/// A `fairlead-node` that runs; dropping it kills the process.
#[derive(Debug)]
pub struct FairleadNode {
    settings: FairleadBuilder,
    process: Child,
}

// === impl FairleadBuilder ===

impl FairleadBuilder {
    /// Reads workloads, services and policies from `file`.
    pub fn local_config(self, file: &Path) -> Self {
        self.args(["--local-config", &file.to_string_lossy()])
    }

    /// Keeps the root of the embedded CA in `dir`; nodes with the same one trust each other.
    pub fn local_ca(self, dir: &Path) -> Self {
        self.args(["--local-ca", &dir.to_string_lossy()])
    }

    /// Returns the node that it will run on.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Runs `program` in place of the release build.
    pub fn program(mut self, program: &Path) -> Self {
        program.clone_into(&mut self.binary);
        self
    }

    /// Adds arguments to `fairlead-node run`.
    pub fn args<S: AsRef<str>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Lets each of its processes have so many descriptors and no more.
    pub fn descriptors(mut self, limit: usize) -> Self {
        self.descriptors = Some(limit);
        self
    }

    /// Starts the proxy and waits until it is ready.
    pub fn start(self) -> Result<FairleadNode> {
        let mut fairlead = self.start_unready()?;
        fairlead.wait_ready()?;
        Ok(fairlead)
    }

    /// Starts the proxy and returns at once.
    pub fn start_unready(self) -> Result<FairleadNode> {
        fs::create_dir_all(&self.run_dir)?;
        let mut command = match self.descriptors {
            Some(limit) => {
                let mut command = Command::new("prlimit");
                command.arg(format!("--nofile={limit}:{limit}")).arg(&self.binary);
                command
            }
            None => Command::new(&self.binary),
        };
        command.args(["run", "--node-name", self.node.name(), "--log-format", "json"]);
        command.arg("--run-dir").arg(&self.run_dir);
        command.arg("--bpf-dir").arg(pins_of(self.node.netns().name())).args(&self.args);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        let process = self.node.spawn(command)?;
        Ok(FairleadNode { settings: self, process })
    }
}

// === impl FairleadNode ===

impl FairleadNode {
    /// Prepares a proxy on `node`.
    pub fn on(node: &Node) -> FairleadBuilder {
        FairleadBuilder {
            node: node.clone(),
            binary: fairlead_program(),
            run_dir: node.lab_dir().join(format!("run-{}", node.name())),
            args: Vec::new(),
            variables: Vec::new(),
            descriptors: None,
        }
    }

    /// Returns how it was started, to start it again in the same way.
    pub fn settings(&self) -> FairleadBuilder {
        self.settings.clone()
    }

    /// Returns the id of the supervising process.
    pub fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// Returns the ids of the processes that are this half: two while one follows the other.
    pub fn pids_of(&self, half: Half) -> Result<Vec<Pid>> {
        let name = match half {
            Half::Capture => "fairlead-node capture",
            Half::Proxy => "fairlead-node proxy",
            Half::Agent => "fairlead-node agent",
        };
        let tree = process_tree(self.pid())?;
        Ok(tree.into_iter().filter(|process| process.name == name).map(|p| p.pid).collect())
    }

    /// Returns the id of the process that is this half.
    pub fn pid_of(&self, half: Half) -> Result<Pid> {
        let pids = self.pids_of(half)?;
        ensure!(pids.len() == 1, "{half:?} is not one process: {pids:?}");
        Ok(pids[0])
    }

    /// Kills a half; its supervisor starts it again.
    pub fn kill_half(&self, half: Half) -> Result<()> {
        Ok(kill(self.pid_of(half)?, Signal::SIGKILL)?)
    }

    /// Returns the node it runs on.
    pub fn node(&self) -> &Node {
        &self.settings.node
    }

    /// Returns the program that it runs.
    pub fn binary(&self) -> &Path {
        &self.settings.binary
    }

    /// Returns the directory of its control socket.
    pub fn run_dir(&self) -> &Path {
        &self.settings.run_dir
    }

    /// Waits until it is ready; fails at once if it ends.
    pub fn wait_ready(&mut self) -> Result<()> {
        wait_for("fairlead-node is ready", READY_TIMEOUT, || {
            if !self.process.is_running()? {
                let output = self.process.wait(Duration::ZERO)?;
                bail!("fairlead-node ended: {}\n{}{}", output.status, output.stdout, output.stderr);
            }
            // Until it listens, connecting fails; the time limit is the judge of that.
            Ok(self.is_ready().unwrap_or(false).then_some(()))
        })
        .with_context(|| self.log().unwrap_or_default())
    }

    /// Returns whether it says that it is ready.
    pub fn is_ready(&self) -> Result<bool> {
        let response = self.node().http_get(local(READINESS_PORT), "/healthz/ready")?;
        Ok(response.status == 200)
    }

    /// Returns its metrics.
    pub fn metrics(&self) -> Result<Metrics> {
        let response = self.node().http_get(local(METRICS_PORT), "/metrics")?;
        ensure!(response.status == 200, "metrics: status {}", response.status);
        Metrics::parse(&response.body)
    }

    /// Returns what it logged so far.
    pub fn log(&self) -> Result<String> {
        Ok(self.process.stdout()? + &self.process.stderr()?)
    }

    /// Returns the latest of what it logged, without the connections that went well: why a test
    /// failed.
    pub fn complaints(&self) -> String {
        let log = self.log().unwrap_or_default();
        let went_well =
            |line: &str| line.contains(r#""scope":"access""#) && line.contains(r#""level":"info""#);
        let lines: Vec<_> = log.lines().filter(|line| !went_well(line)).collect();
        lines[lines.len().saturating_sub(MOST_COMPLAINTS)..].join("\n")
    }

    /// Returns its access log so far.
    pub fn access_log(&self) -> Result<Vec<AccessLine>> {
        Ok(AccessLine::all_in(&self.log()?))
    }

    /// Waits for an access-log line that `matches`, and returns the first.
    pub fn wait_for_access(&self, matches: impl Fn(&AccessLine) -> bool) -> Result<AccessLine> {
        wait_for("an access-log line", LOG_TIMEOUT, || {
            Ok(self.access_log()?.into_iter().find(|line| matches(line)))
        })
        .with_context(|| self.log().unwrap_or_default())
    }

    /// Returns the memory, descriptors and processor time that its processes use.
    pub fn resources(&self) -> Result<Resources> {
        let tree = process_tree(self.pid())?;
        Ok(tree.into_iter().map(|process| process.resources).sum())
    }

    /// Enrols a pod of its node in the mesh.
    pub fn enrol(&self, pod: &Pod) -> Result<Output> {
        let netns = pod.netns().path().to_string_lossy();
        self.control(&[
            "add",
            "--namespace",
            pod.namespace(),
            "--name",
            pod.name(),
            "--service-account",
            pod.service_account(),
            "--netns",
            &netns,
        ])
    }

    /// Releases a pod of its node from the mesh.
    pub fn release(&self, pod: &Pod) -> Result<Output> {
        self.control(&["remove", &format!("{}/{}", pod.namespace(), pod.name())])
    }

    /// Returns the list of enrolled pods as `fairlead-node pod list` prints it.
    pub fn enrolled(&self) -> Result<String> {
        Ok(self.control(&["list"])?.stdout)
    }

    /// Asks it to end (`SIGTERM`) and waits until it has drained.
    pub fn stop(mut self) -> Result<Output> {
        self.process.signal(Signal::SIGTERM)?;
        self.process.wait(STOP_TIMEOUT)
    }

    /// Waits until it ends by itself, as it does when a successor has taken over.
    pub fn ended(mut self, timeout: Duration) -> Result<Output> {
        self.process.wait(timeout)
    }

    /// Kills its processes without a chance to clean up, and waits for their end.
    pub fn kill(mut self) -> Result<()> {
        let tree = process_tree(self.pid())?;
        self.process.kill()?;
        wait_for("the end of all processes", KILL_TIMEOUT, || {
            Ok(tree.iter().all(|process| has_ended(process.pid)).then_some(()))
        })
    }

    /// Sends it a signal.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Lets it run on without this handle.
    pub fn detach(self) {
        self.process.detach();
    }

    /// Returns what `fairlead-node explain` says about a connection of `pod`, in its form for programs.
    pub fn explain(&self, pod: &Pod, to: SocketAddr) -> Result<Value> {
        Ok(serde_json::from_str(&self.explain_as(pod, to, "json")?)?)
    }

    /// Returns what `fairlead-node explain` says about a connection of `pod`, in this form.
    pub fn explain_as(&self, pod: &Pod, to: SocketAddr, form: &str) -> Result<String> {
        let from = format!("{}/{}", pod.namespace(), pod.name());
        let mut command = Command::new(&self.settings.binary);
        command.args(["explain", "--from", &from, "--to", &to.to_string(), "--output", form]);
        command.arg("--run-dir").arg(self.run_dir());
        Ok(self.node().run(command)?.checked()?.stdout)
    }

    /// Runs `fairlead-node pod` with `args` against it, which may fail.
    pub fn pod_command(&self, args: &[&str]) -> Result<Output> {
        let (verb, rest) = args.split_first().context("no command")?;
        let mut command = Command::new(&self.settings.binary);
        command.args(["pod", verb, "--run-dir"]).arg(self.run_dir()).args(rest);
        self.node().run(command)
    }

    fn control(&self, args: &[&str]) -> Result<Output> {
        self.pod_command(args)?.checked()
    }
}

/// Returns the `fairlead-node` that a lab runs: the one that `FAIRLEAD_NODE_BIN` names, or the
/// release build.
pub fn fairlead_program() -> PathBuf {
    env::var_os(BINARY_VARIABLE).map_or_else(|| PathBuf::from(RELEASE_BINARY), PathBuf::from)
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)
}
