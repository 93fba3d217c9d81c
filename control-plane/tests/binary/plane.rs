//! A running control plane.

use std::{fs, path::Path, process::Stdio, time::Duration};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    net::TcpStream,
    process::{Child, ChildStdout, Command},
    time::{sleep, timeout},
};

/// Longer than anything here takes on a machine with much else to do.
pub(crate) const SOON: Duration = Duration::from_mins(1);

/// Pause between two looks at what does not tell of itself.
const LOOK: Duration = Duration::from_millis(20);

/// A running control plane, and a directory for its files and those of its clients.
pub(crate) struct Plane {
    pub(crate) dir: TempDir,
    pub(crate) address: String,
    pub(crate) admin_address: String,
    /// Of the webhook; empty without a cluster.
    pub(crate) webhook: String,
    log: Lines<BufReader<ChildStdout>>,
    process: Child,
}

// === impl Plane ===

impl Plane {
    /// Starts the program in a directory, with what `configure` adds.
    pub(crate) async fn start(
        dir: TempDir,
        configure: impl FnOnce(&mut Command, &Path),
    ) -> Result<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fairlead-control"));
        command
            .args(["--address", "127.0.0.1:0", "--admin-address", "127.0.0.1:0"])
            .args(["--webhook-address", "127.0.0.1:0"])
            .args(["--log-format", "json", "--debounce-after", "10ms"])
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        configure(&mut command, dir.path());
        let mut process = command.spawn()?;
        let log = BufReader::new(process.stdout.take().context("no output")?).lines();
        let [address, admin_address, webhook] = [const { String::new() }; 3];
        let mut plane = Self { dir, address, admin_address, webhook, log, process };
        let started = plane.line("started").await?;
        let text = |field: &str| started[field].as_str().map(str::to_owned).context("no address");
        (plane.address, plane.admin_address) = (text("address")?, text("admin")?);
        plane.webhook = text("webhook").unwrap_or_default();
        Ok(plane)
    }

    /// Waits for a line of the log that has `text`.
    pub(crate) async fn line(&mut self, text: &str) -> Result<Value> {
        loop {
            let line = timeout(SOON, self.log.next_line()).await.context(text.to_owned())??;
            let line: Value = serde_json::from_str(&line.context("the log ended")?)?;
            if line.to_string().contains(text) {
                return Ok(line);
            }
        }
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> Result<()> {
        Ok(fs::write(self.dir.path().join(name), text)?)
    }

    /// Returns a page of the admin interface.
    pub(crate) async fn page(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect(&self.admin_address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut response = String::new();
        stream.read_to_string(&mut response).await?;
        let (head, body) = response.split_once("\r\n\r\n").context("no answer")?;
        ensure!(head.contains(" 200 "), "{path}: {response}");
        Ok(body.to_owned())
    }

    /// Asks the program to end.
    pub(crate) fn terminate(&self) -> Result<()> {
        let id = self.process.id().context("it has ended")?;
        kill(Pid::from_raw(id.try_into()?), Signal::SIGTERM)?;
        Ok(())
    }

    /// Ends the program at once, as a node that loses power does.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        Ok(self.process.kill().await?)
    }
}

/// Waits until `look` returns something.
pub(crate) async fn eventually<T>(what: &str, look: impl AsyncFn() -> Option<T>) -> Result<T> {
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            sleep(LOOK).await;
        }
    };
    timeout(SOON, looking).await.with_context(|| what.to_owned())
}
