//! TCP throughput with iperf3, and what a GiB costs.

use std::time::Duration;

use anyhow::{Context as _, Result};
use fairlead_lab::Host as _;
use serde_json::Value;

use super::{Case, Route, Sample};
use crate::{
    load::GRACE,
    rig::{IPERF, Rig},
};

const GIB: f64 = 1_073_741_824.0;

pub(super) fn one_stream(rig: &mut Rig, case: &Case) -> Result<Sample> {
    measure(rig, case, "1")
}

pub(super) fn four_streams(rig: &mut Rig, case: &Case) -> Result<Sample> {
    measure(rig, case, "4")
}

fn measure(rig: &Rig, case: &Case, streams: &str) -> Result<Sample> {
    let server = case.server.ipv4().to_string();
    let (port, seconds) = (IPERF.to_string(), case.duration.as_secs().to_string());
    let command = ["iperf3", "-J", "-c", &server, "-p", &port, "-P", streams, "-t", &seconds]
        .map(str::to_owned);
    let before = rig.cpu()?;
    let output = case.client.run_within(command, case.duration + GRACE)?.checked()?;
    let used = rig.cpu()?.since(before);
    let report: Value = serde_json::from_str(&output.stdout)?;
    let received = |key: &str| {
        let value = report.pointer(&format!("/end/sum_received/{key}")).and_then(Value::as_f64);
        value.with_context(|| format!("iperf3 reports no {key}"))
    };
    let gib = received("bytes")? / GIB;
    let per_gib = |cpu: Duration| cpu.as_secs_f64() / gib;
    let mut sample = Sample::default();
    sample.add("throughput", "Gbit/s", received("bits_per_second")? / 1e9);
    if case.route == Route::Meshed {
        sample.add("CPU of the proxies", "s/GiB", per_gib(used.proxies));
    }
    sample.add("CPU of the machine", "s/GiB", per_gib(used.machine));
    Ok(sample)
}
