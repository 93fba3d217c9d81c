//! TCP throughput with iperf3, and what a GiB costs.

use std::time::Duration;

use anyhow::{Context as _, Result};
use fairlead_lab::Host as _;
use serde_json::Value;

use crate::{
    load::GRACE,
    rig::{IPERF, Rig},
    sample::Sample,
};

const GIB: f64 = 1_073_741_824.0;

/// iperf3's option for data from the server to the client.
const REVERSE: &str = "-R";

/// What iperf3 says about the side that received.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Received {
    gib: f64,
    gbit_per_second: f64,
}

pub(super) fn one_stream_up(rig: &mut Rig, duration: Duration) -> Result<Sample> {
    measure(rig, duration, &["-P", "1"])
}

pub(super) fn four_streams_up(rig: &mut Rig, duration: Duration) -> Result<Sample> {
    measure(rig, duration, &["-P", "4"])
}

pub(super) fn one_stream_down(rig: &mut Rig, duration: Duration) -> Result<Sample> {
    measure(rig, duration, &["-P", "1", REVERSE])
}

pub(super) fn four_streams_down(rig: &mut Rig, duration: Duration) -> Result<Sample> {
    measure(rig, duration, &["-P", "4", REVERSE])
}

fn measure(rig: &Rig, duration: Duration, options: &[&str]) -> Result<Sample> {
    let (server, port) = (rig.server.ipv4().to_string(), IPERF.to_string());
    let seconds = duration.as_secs().to_string();
    let command = ["iperf3", "-J", "-c", &server, "-p", &port, "-t", &seconds];
    let before = rig.usage()?;
    let output = rig.client.run_within([&command, options].concat(), duration + GRACE)?;
    let used = rig.usage()?.since(&before);
    let received = Received::in_report(&output.checked()?.stdout)?;
    let per_gib = |cpu: Duration| cpu.as_secs_f64() / received.gib;
    let mut sample = Sample::default();
    sample.add("throughput", "Gbit/s", received.gbit_per_second);
    if rig.is_meshed() {
        sample.add_cpu("s/GiB", &used, per_gib);
    }
    sample.add("CPU of the machine", "s/GiB", per_gib(used.machine));
    Ok(sample)
}

// === impl Received ===

impl Received {
    fn in_report(report: &str) -> Result<Self> {
        let report: Value = serde_json::from_str(report)?;
        let number = |key: &str| {
            let value = report.pointer(&format!("/end/sum_received/{key}")).and_then(Value::as_f64);
            value.with_context(|| format!("iperf3 reports no {key}"))
        };
        Ok(Self { gib: number("bytes")? / GIB, gbit_per_second: number("bits_per_second")? / 1e9 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_of_iperf3_is_read() {
        let report = r#"{"end": {
            "sum_sent": {"bytes": 1, "bits_per_second": 2},
            "sum_received": {"bytes": 536870912, "bits_per_second": 9.5e9}
        }}"#;
        let expected = Received { gib: 0.5, gbit_per_second: 9.5 };
        assert_eq!(Received::in_report(report).unwrap(), expected);
        assert!(Received::in_report("{}").is_err());
    }
}
