//! What outsiders see: unmodified programs in pods and on nodes, the kernel's tables, the wire.

use super::mesh::{HBONE, SOON};
use super::report::Report;
use anyhow::{Context, Result};
use fairlead_lab::{CaptureFile, Child, FairleadNode, Host, Pod, python};
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Time curl gets for a page, in seconds: a refusal that is not answered is a failure too.
const CURL_SECONDS: &str = "5";

/// What curl reports.
pub(super) struct Fetch {
    /// HTTP status, if there was an answer.
    pub(super) status: Option<u16>,
    /// The peer that curl believes it talks to.
    pub(super) peer: String,
    body: String,
    error: String,
}

/// Gets `/PATH` from `server` with curl, as a program in `pod`.
pub(super) fn curl(pod: &Pod, server: SocketAddr, path: &str) -> Result<Fetch> {
    let url = format!("http://{server}/{path}");
    let output =
        pod.run(["curl", "-sSv", "-m", CURL_SECONDS, "-w", "\n%{http_code}", url.as_str()])?;
    let (body, status) = output.stdout.rsplit_once('\n').unwrap_or_default();
    let status = status.parse().ok().filter(|status| *status != 0);
    let connected = output.stderr.lines().find_map(|line| line.strip_prefix("* Connected to "));
    let error = output.stderr.lines().rfind(|line| line.starts_with("curl: "));
    Ok(Fetch {
        status: status.filter(|_| output.success()),
        peer: connected.map_or_else(String::new, peer_of),
        body: body.to_owned(),
        error: error.unwrap_or("curl: no answer").to_owned(),
    })
}

/// Opens a connection from `pod` that stays open and obeys [`say`].
pub(super) fn talk(pod: &Pod, server: SocketAddr) -> Result<Child> {
    let arguments = [server.ip().to_string(), server.port().to_string()];
    let mut talker = pod.spawn_interactive(python("talk.py", &arguments))?;
    talker.wait_for_output("connected", SOON)?;
    Ok(talker)
}

/// Sends `text` over a connection to an echoing server; returns whether it came back.
pub(super) fn say(talker: &mut Child, text: &str) -> Result<bool> {
    talker.send_line(&format!("send {text}"))?;
    Ok(talker.wait_for_output(&format!("received {text}"), SOON).is_ok())
}

/// Returns the established TCP connections inside `host`, as `ss` prints them.
pub(super) fn established(host: &impl Host) -> Result<Vec<String>> {
    let output = host.run(["ss", "-Htn", "state", "established"])?.checked()?;
    Ok(output.stdout.lines().map(str::to_owned).collect())
}

/// Returns where a proxy pins its BPF programs and maps.
pub(super) fn pins(proxy: &FairleadNode) -> PathBuf {
    Path::new("/sys/fs/bpf").join(proxy.node().netns().name()).join("v1")
}

/// Returns how many entries a pinned BPF map has.
pub(super) fn map_entries(map: &Path) -> Result<usize> {
    let mut bpftool = Command::new("bpftool");
    bpftool.args(["map", "dump", "pinned"]).arg(map);
    // A map of sockets has values that only the kernel reads; bpftool shows the keys and fails.
    let output = bpftool.output().context("bpftool")?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().filter(|line| line.trim_start().starts_with("key:")).count())
}

/// Demands that a capture shows tunnels of the right kind and nothing of `secret`.
pub(super) fn only_tunnels(report: &Report, wire: &CaptureFile, secret: &str) -> Result<()> {
    report.same("packets that the capture missed", &wire.dropped(), &0)?;
    let ports: Vec<_> = wire.ports_dialled()?.into_keys().collect();
    let others: Vec<_> = ports.iter().filter(|port| **port != HBONE).collect();
    let seen = format!("{ports:?}");
    report.holds("TCP ports dialled on the wire", others.is_empty(), seen, format!("[{HBONE}]"))?;
    let shown = wire.contains(secret.as_bytes())?;
    let seen = if shown { "readable" } else { "unreadable" };
    report.same("the request on the wire", &seen, &"unreadable")
}

/// Turns curl's `HOST (ADDRESS) port PORT (#0)` into an address and a port.
fn peer_of(connected: &str) -> String {
    let address = connected.split(['(', ')']).nth(1).unwrap_or_default();
    let port = connected.split(" port ").nth(1).and_then(|rest| rest.split(' ').next());
    format!("{address} port {}", port.unwrap_or_default())
}

// === impl Fetch ===

impl Fetch {
    /// Returns the value of `key` in what the HTTP servers of the lab answer.
    pub(super) fn answered(&self, key: &str) -> String {
        let prefix = format!("{key}=");
        let value = self.body.split_whitespace().find_map(|word| word.strip_prefix(&prefix));
        value.unwrap_or("nothing").to_owned()
    }

    /// Demands HTTP status 200.
    pub(super) fn succeeded(&self, report: &Report, subject: &str) -> Result<()> {
        report.holds(subject, self.status == Some(200), self, "HTTP 200")
    }

    /// Demands that no answer came.
    pub(super) fn failed(&self, report: &Report, subject: &str) -> Result<()> {
        report.holds(subject, self.status.is_none(), self, "no answer")
    }
}

impl fmt::Display for Fetch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            Some(status) => write!(f, "HTTP {status}"),
            None => f.write_str(&self.error),
        }
    }
}
