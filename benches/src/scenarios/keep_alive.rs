//! Requests over keep-alive connections, as fast as they come, with wrk.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fairlead_lab::Host as _;

use crate::{
    load::GRACE,
    rig::{HTTP, Rig},
    sample::Sample,
};

pub(super) fn measure(rig: &mut Rig, duration: Duration) -> Result<Sample> {
    let url = format!("http://{}/", rig.server.v4(HTTP));
    let seconds = format!("{}s", duration.as_secs());
    let command = ["wrk", "-t1", "-c64", "-d", &seconds, "--latency", &url];
    let before = rig.usage()?;
    let output = rig.client.run_within(command, duration + GRACE)?.checked()?;
    let used = rig.usage()?.since(&before);
    let report = &output.stdout;
    ensure!(!report.contains("Socket errors"), "{report}");
    let per_second: f64 = value_of(report, "Requests/sec:")?.parse()?;
    let mut sample = Sample::default();
    sample.add("requests", "per s", per_second);
    for (name, key) in [("p50", "50%"), ("p99", "99%")] {
        sample.add(name, "us", microseconds(value_of(report, key)?)?);
    }
    if rig.is_meshed() {
        let requests = per_second * duration.as_secs_f64();
        sample.add_cpu("us each", &used, |cpu| cpu.as_secs_f64() * 1e6 / requests);
    }
    Ok(sample)
}

fn value_of<'a>(report: &'a str, key: &str) -> Result<&'a str> {
    let mut lines = report.lines().map(str::trim_start);
    let value = lines.find_map(|line| line.strip_prefix(key));
    Ok(value.with_context(|| format!("no {key} in {report}"))?.trim())
}

/// Reads a time as wrk writes it.
fn microseconds(text: &str) -> Result<f64> {
    // "us" and "ms" end in "s" too.
    for (unit, factor) in [("us", 1.0), ("ms", 1e3), ("s", 1e6), ("m", 60e6)] {
        if let Some(number) = text.strip_suffix(unit) {
            return Ok(number.parse::<f64>()? * factor);
        }
    }
    anyhow::bail!("no time: {text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_of_wrk_is_read() -> Result<()> {
        let report = "  Latency Distribution\n     50%  276.00us\n     99%    3.07ms\n\
                      Requests/sec: 200225.31\nTransfer/sec:     17.19MB\n";
        assert_eq!(value_of(report, "Requests/sec:")?, "200225.31");
        for (key, expected) in [("50%", 276.0), ("99%", 3070.0)] {
            let value = microseconds(value_of(report, key)?)?;
            assert!((value - expected).abs() < 1e-6, "{key}: {value}");
        }
        assert!((microseconds("1.50s")? - 1.5e6).abs() < 1e-6);
        assert!(value_of(report, "75%").is_err());
        Ok(())
    }
}
