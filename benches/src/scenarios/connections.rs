//! New connections: connect, one byte each way, close.

use std::time::Duration;

use anyhow::Result;

use crate::{
    load,
    rig::{ECHO, Rig},
    sample::Sample,
};

pub(super) fn one_at_a_time(rig: &mut Rig, duration: Duration) -> Result<Sample> {
    let mut sample = Sample::default();
    let outcome = measure(rig, duration, "1", &mut sample)?;
    outcome.add_latencies(&mut sample);
    outcome.add_first(&mut sample);
    Ok(sample)
}

pub(super) fn many_at_a_time(rig: &mut Rig, duration: Duration) -> Result<Sample> {
    let mut sample = Sample::default();
    measure(rig, duration, "32", &mut sample)?;
    Ok(sample)
}

fn measure(
    rig: &Rig,
    duration: Duration,
    at_once: &str,
    sample: &mut Sample,
) -> Result<load::Outcome> {
    let to = rig.server.v4(ECHO);
    let (outcome, used) = load::run(rig, duration, "connections", to, &["--at-once", at_once])?;
    sample.add("connections", "per s", outcome.per_second());
    if rig.is_meshed() {
        sample.add_cpu("us each", &used, |cpu| outcome.each(cpu));
    }
    Ok(outcome)
}
