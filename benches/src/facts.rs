//! What a reader must know about the machine to judge the figures.

use std::{fs, process::Command, thread, time::SystemTime};

use anyhow::Result;
use serde::Serialize;

/// The machine, and what else it does.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Facts {
    pub(crate) kernel: String,
    pub(crate) processor: String,
    pub(crate) processors: usize,
    pub(crate) memory: String,
    /// Load average of the last minute before the run: above zero, something else ran too.
    pub(crate) load_before: String,
    /// Revision of the sources, if this is a checkout.
    pub(crate) revision: Option<String>,
    /// Seconds since 1970.
    pub(crate) time: u64,
}

// === impl Facts ===

impl Facts {
    pub(crate) fn collect() -> Result<Self> {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, key: &str| {
            let line = text.lines().find(|line| line.starts_with(key));
            let value = line.and_then(|line| line.split_once(':'));
            value.map_or_else(String::new, |(_, value)| value.trim().to_owned())
        };
        Ok(Self {
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            processor: field(&read("/proc/cpuinfo"), "model name"),
            processors: thread::available_parallelism()?.get(),
            memory: field(&read("/proc/meminfo"), "MemTotal"),
            load_before: read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
            revision: revision(),
            time: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs(),
        })
    }
}

fn revision() -> Option<String> {
    let mut git = Command::new("git");
    git.current_dir(env!("CARGO_MANIFEST_DIR")).args(["describe", "--always", "--dirty"]);
    let output = git.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
