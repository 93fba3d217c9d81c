//! New connections: connect, one byte each way, close.

use anyhow::Result;

use super::{Case, Route, Sample};
use crate::{
    load,
    rig::{ECHO, Rig},
};

pub(super) fn one_at_a_time(rig: &mut Rig, case: &Case) -> Result<Sample> {
    let mut sample = Sample::default();
    let outcome = measure(rig, case, "1", &mut sample)?;
    outcome.add_latencies(&mut sample);
    Ok(sample)
}

pub(super) fn many_at_a_time(rig: &mut Rig, case: &Case) -> Result<Sample> {
    let mut sample = Sample::default();
    measure(rig, case, "32", &mut sample)?;
    Ok(sample)
}

fn measure(rig: &Rig, case: &Case, at_once: &str, sample: &mut Sample) -> Result<load::Outcome> {
    let to = case.server.v4(ECHO);
    let (outcome, used) = load::run(rig, case, "connections", to, &["--at-once", at_once])?;
    sample.add("connections", "per s", outcome.per_second());
    if case.route == Route::Meshed {
        sample.add("CPU of the proxies", "us each", outcome.each(used.proxies));
    }
    Ok(outcome)
}
