//! Runs the load generator in the client pod of a case.

use std::{net::SocketAddr, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use fairlead_lab::Host as _;
use serde::Deserialize;

use crate::{
    rig::{Rig, load_program},
    sample::Sample,
    usage::CpuTime,
};

/// Time a program gets beyond that of its load.
pub(crate) const GRACE: Duration = Duration::from_secs(30);

/// Latency of the first connection through fresh proxies: with a TLS handshake, if they make one.
pub(crate) const FIRST_CONNECTION: &str = "first connection";

/// What the load generator reports.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Outcome {
    completed: f64,
    errors: usize,
    /// Latency of the first connection, which makes what later ones find made.
    first_us: Option<f64>,
    seconds: f64,
    p50_us: f64,
    p90_us: f64,
    p99_us: f64,
}

/// Runs `fairlead-load VERB --to SERVER ARGS --seconds DURATION`.
pub(crate) fn run(
    rig: &Rig,
    duration: Duration,
    verb: &str,
    to: SocketAddr,
    args: &[&str],
) -> Result<(Outcome, CpuTime)> {
    let mut command = Command::new(load_program()?);
    command.args([verb, "--to", &to.to_string(), "--seconds"]);
    command.arg(duration.as_secs_f64().to_string()).args(args);
    let before = rig.usage()?;
    let output = rig.client.run_within(command, duration + GRACE)?.checked()?;
    let used = rig.usage()?.since(&before);
    let outcome: Outcome = serde_json::from_str(&output.stdout).context(output.stdout)?;
    ensure!(outcome.errors == 0, "{} of {} failed", outcome.errors, outcome.completed);
    Ok((outcome, used))
}

// === impl Outcome ===

impl Outcome {
    pub(crate) fn per_second(&self) -> f64 {
        self.completed / self.seconds
    }

    /// Returns a share of the processor time, in microseconds.
    pub(crate) fn each(&self, cpu: Duration) -> f64 {
        cpu.as_secs_f64() * 1e6 / self.completed
    }

    pub(crate) fn add_first(&self, sample: &mut Sample) {
        if let Some(first) = self.first_us {
            sample.add(FIRST_CONNECTION, "ms", first / 1e3);
        }
    }

    pub(crate) fn add_latencies(&self, sample: &mut Sample) {
        sample.add("p50", "us", self.p50_us);
        sample.add("p90", "us", self.p90_us);
        sample.add("p99", "us", self.p99_us);
    }
}
