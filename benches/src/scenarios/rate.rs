//! Latency of requests at a fixed rate far below what the path could carry.

use std::time::Duration;

use anyhow::Result;

use crate::{
    load,
    rig::{HTTP, Rig},
    sample::Sample,
};

pub(super) fn measure(rig: &mut Rig, duration: Duration) -> Result<Sample> {
    let args = ["--connections", "16", "--per-second", "1000"];
    let (outcome, used) = load::run(rig, duration, "rate", rig.server.v4(HTTP), &args)?;
    let mut sample = Sample::default();
    outcome.add_latencies(&mut sample);
    if rig.is_meshed() {
        sample.add_cpu("us each", &used, |cpu| outcome.each(cpu));
    }
    Ok(sample)
}
