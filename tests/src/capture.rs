//! Packet capture, complete from the moment it is asked for to the moment it is finished.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{Read as _, Seek as _, SeekFrom},
    net::UdpSocket,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::{
    signal::Signal,
    socket::{setsockopt, sockopt::BindToDevice},
};

use crate::{host::Host, netns::Netns, process::Child, wait::wait_for};

/// Time for the capturing program to begin, and to write what it holds at the end.
const PATIENCE: Duration = Duration::from_secs(30);

/// Kernel buffer, in MiB: at 2, the default, a burst between two reads is dropped.
const BUFFER_MIB: &str = "64";

/// The discard service (RFC 863): the packet that marks the end of a capture goes there.
const MARK_PORT: u16 = 9;

/// Leaves out what the capture itself sent.
const NOT_OURS: &str = "!(udp.port == 9)";

/// Lets the dissector look into the mesh's tunnels, whose port it does not know.
const TUNNEL_IS_TLS: &str = "tcp.port==15008,tls";

static NEXT_CAPTURE: AtomicU32 = AtomicU32::new(1);

/// What to record.
#[derive(Clone, Debug, Default)]
pub struct CaptureOptions {
    /// Bytes kept of each packet; all of them by default.
    pub snapshot_bytes: Option<u32>,
    /// Filter in the language of pcap-filter(7); it must let UDP port 9 pass.
    pub filter: Option<String>,
}

/// A capture that runs.
#[derive(Debug)]
pub struct Capture {
    netns: Netns,
    interface: String,
    path: PathBuf,
    recorder: Child,
}

/// Packets of a capture that was finished.
#[derive(Clone, Debug)]
pub struct CaptureFile {
    path: PathBuf,
    dropped: u64,
}

// === impl Capture ===

impl Capture {
    /// Records what passes `interface` of `host`; on return every further packet is recorded.
    pub fn start(host: &impl Host, interface: &str, options: CaptureOptions) -> Result<Self> {
        let number = NEXT_CAPTURE.fetch_add(1, Ordering::Relaxed);
        let path = host.lab_dir().join(format!("{}-{number}.pcapng", host.netns().name()));
        let mut command = Command::new("dumpcap");
        command.args(["-q", "-B", BUFFER_MIB, "-i", interface, "-w"]).arg(&path);
        if let Some(bytes) = options.snapshot_bytes {
            command.args(["-s", &bytes.to_string()]);
        }
        if let Some(filter) = options.filter {
            command.args(["-f", &filter]);
        }
        let mut recorder = host.spawn(command)?;
        // Written once the packet socket is open and its filter set.
        recorder.wait_for_output("File: ", PATIENCE)?;
        Ok(Self { netns: host.netns().clone(), interface: interface.to_owned(), path, recorder })
    }

    /// Ends the capture; every packet that passed before is in the file.
    pub fn finish(mut self) -> Result<CaptureFile> {
        self.flush()?;
        self.recorder.signal(Signal::SIGINT)?;
        let output = self.recorder.wait(PATIENCE)?.checked()?;
        Ok(CaptureFile { path: self.path, dropped: dropped(&output.stderr)? })
    }

    /// Sends a packet of our own and waits until it is in the file, after all earlier ones: the
    /// recorder would throw away what the kernel still held for it.
    fn flush(&self) -> Result<()> {
        let mark = self.path.to_string_lossy().into_owned().into_bytes();
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::End(0))?;
        self.send(&mark)?;
        let mut unread = Vec::new();
        wait_for("the end of the capture", PATIENCE, || {
            file.read_to_end(&mut unread)?;
            if unread.windows(mark.len()).any(|window| window == mark) {
                return Ok(Some(()));
            }
            unread.drain(..unread.len().saturating_sub(mark.len()));
            Ok(None)
        })
    }

    fn send(&self, payload: &[u8]) -> Result<()> {
        self.netns.enter(|| {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            setsockopt(&socket, BindToDevice, &self.interface.clone().into())?;
            socket.set_broadcast(true)?;
            socket.send_to(payload, ("255.255.255.255", MARK_PORT))?;
            Ok(())
        })
    }
}

// === impl CaptureFile ===

impl CaptureFile {
    /// Returns the path of the file, in pcapng format.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns how many packets the kernel could not keep; a proof of absence needs 0.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Returns `fields` of each packet that passes `filter`, both in Wireshark's language.
    pub fn fields(&self, filter: &str, fields: &[&str]) -> Result<Vec<Vec<String>>> {
        let filter = if filter.is_empty() {
            NOT_OURS.to_owned()
        } else {
            format!("({filter}) && {NOT_OURS}")
        };
        let mut command = Command::new("tshark");
        command.arg("-r").arg(&self.path).args(["-n", "-d", TUNNEL_IS_TLS]);
        command.args(["-Y", &filter, "-T", "fields"]);
        for field in fields {
            command.args(["-e", field]);
        }
        let output = command.output().context("tshark")?;
        ensure!(output.status.success(), "tshark: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout)?;
        Ok(text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect())
    }

    /// Returns how many packets pass `filter`.
    pub fn count(&self, filter: &str) -> Result<usize> {
        Ok(self.fields(filter, &["frame.number"])?.len())
    }

    /// Returns whether `bytes` appear within a packet.
    pub fn contains(&self, bytes: &[u8]) -> Result<bool> {
        let hex: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(self.count(&format!("frame contains {}", hex.join(":")))? > 0)
    }

    /// Returns the ports that TCP connections were opened to, with the number of attempts.
    pub fn ports_dialled(&self) -> Result<BTreeMap<u16, usize>> {
        let syns = self.fields("tcp.flags.syn == 1 && tcp.flags.ack == 0", &["tcp.dstport"])?;
        let mut ports = BTreeMap::new();
        for syn in syns {
            *ports.entry(syn.concat().parse()?).or_default() += 1;
        }
        Ok(ports)
    }

    /// Returns the sum of TCP payload bytes of the packets that pass `filter`.
    pub fn tcp_payload_bytes(&self, filter: &str) -> Result<u64> {
        let filter = if filter.is_empty() { "tcp" } else { filter };
        let lengths = self.fields(&format!("tcp && ({filter})"), &["tcp.len"])?;
        lengths.iter().map(|length| Ok(length.concat().parse::<u64>()?)).sum()
    }

    /// Copies the file to where it outlives the lab.
    pub fn save_as(&self, path: &Path) -> Result<()> {
        fs::copy(&self.path, path)?;
        Ok(())
    }
}

/// Reads the recorder's last line: `Packets received/dropped on interface 'x': 12/3 (...)`.
fn dropped(report: &str) -> Result<u64> {
    let line = report.lines().find(|line| line.starts_with("Packets received/dropped"));
    let counts = line.and_then(|line| line.split("': ").nth(1)).context("no packet counts")?;
    let (_, dropped) = counts.split_once('/').context("no drop count")?;
    let digits = dropped.split(' ').next().unwrap_or_default();
    digits.parse().with_context(|| format!("drop count \"{digits}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drop_count_is_found_in_the_report() {
        let report = "Capturing on 'wire'\nFile: /x\nPackets captured: 2\n\
            Packets received/dropped on interface 'wire': 2/17 (pcap:17/dumpcap:0) (100.0%)\n";
        assert_eq!(dropped(report).unwrap(), 17);
        assert!(dropped("File: /x").is_err());
    }
}
