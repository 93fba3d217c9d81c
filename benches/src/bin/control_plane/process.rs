//! The control plane as a process: how it is started, and what it uses.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::timeout,
};

/// Time to read the whole mesh.
const START_TIMEOUT: Duration = Duration::from_mins(3);

/// Ticks of processor time in a second, as Linux tells them to programs.
const TICKS_PER_SECOND: f64 = 100.0;

/// Position of the user time among the fields of `stat` behind the name of the program.
const USER_TIME_FIELD: usize = 11;

/// What clients show.
pub(crate) const TOKEN: &str = "a-token-of-many-simulated-nodes";

/// A control plane that serves.
#[derive(Debug)]
pub(crate) struct ControlPlane {
    /// Port of its clients.
    pub(crate) port: u16,
    dir: TempDir,
    process: Child,
    pid: u32,
}

/// What a process uses.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    cpu_seconds: f64,
    resident_kib: f64,
    peak_kib: f64,
}

// === impl ControlPlane ===

impl ControlPlane {
    /// Starts it with a mesh; returns when it serves the first state.
    pub(crate) async fn start(program: &Path, mesh: PathBuf, options: &[String]) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let tokens = dir.path().join("tokens");
        fs::write(&tokens, format!("{TOKEN} n1 istio-system/ztunnel\n"))?;
        let mut process = Command::new(program)
            .args(["--address", "127.0.0.1:0", "--admin-address", "127.0.0.1:0"])
            .args(["--log-format", "json", "--config-dir"])
            .arg(mesh)
            .arg("--ca-dir")
            .arg(dir.path().join("ca"))
            .arg("--token-file")
            .arg(tokens)
            .args(options)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let pid = process.id().context("it has ended")?;
        let mut log = BufReader::new(process.stdout.take().context("no output")?).lines();
        let serves = async {
            let mut port = None;
            while let Some(line) = log.next_line().await? {
                let line: Value = serde_json::from_str(&line)?;
                if line["message"] == "started" {
                    let address = line["address"].as_str().context("no address")?;
                    port = Some(address.rsplit_once(':').context("no port")?.1.parse()?);
                }
                if line.to_string().contains("serving clients") {
                    break;
                }
            }
            port.context("the control plane ended")
        };
        let port = timeout(START_TIMEOUT, serves).await.context("it does not start")??;
        // Nobody reads on; what it logs is not waited for.
        tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
        Ok(Self { port, dir, process, pid })
    }

    /// Returns the file with its root.
    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("ca/root-cert.pem")
    }

    /// Starts to look for the peak of its memory anew.
    pub(crate) fn reset_peak(&self) -> Result<()> {
        Ok(fs::write(format!("/proc/{}/clear_refs", self.pid), "5")?)
    }

    /// Returns what it has used up to now.
    pub(crate) fn usage(&self) -> Result<Usage> {
        ensure!(self.process.id().is_some(), "the control plane has ended");
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        let (_, fields) = stat.rsplit_once(") ").context("stat has no name")?;
        let fields: Vec<_> = fields.split(' ').collect();
        let ticks = |index: usize| -> Result<f64> {
            Ok(fields.get(index).context("stat is short")?.parse()?)
        };
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let kib = |name: &str| -> Result<f64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let value = line.and_then(|line| line.split_whitespace().next());
            Ok(value.with_context(|| name.to_owned())?.parse()?)
        };
        let cpu = ticks(USER_TIME_FIELD)? + ticks(USER_TIME_FIELD + 1)?;
        Ok(Usage {
            cpu_seconds: cpu / TICKS_PER_SECOND,
            resident_kib: kib("VmRSS:")?,
            peak_kib: kib("VmHWM:")?,
        })
    }
}

// === impl Usage ===

impl Usage {
    /// Returns the processor time since `earlier`, and the memory of now.
    pub(crate) fn since(self, earlier: &Self) -> Self {
        Self { cpu_seconds: self.cpu_seconds - earlier.cpu_seconds, ..self }
    }

    /// Returns seconds of processor time, and memory now and at most, in MiB; none if nothing was
    /// measured.
    pub(crate) fn figures(self) -> Option<(f64, f64, f64)> {
        let Self { cpu_seconds, resident_kib, peak_kib } = self;
        (resident_kib > 0.0).then_some((cpu_seconds, resident_kib / 1024.0, peak_kib / 1024.0))
    }
}
