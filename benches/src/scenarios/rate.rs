//! Latency of requests at a fixed rate far below what the path could carry.

use anyhow::Result;

use super::{Case, Route, Sample};
use crate::{
    load,
    rig::{HTTP, Rig},
};

pub(super) fn measure(rig: &mut Rig, case: &Case) -> Result<Sample> {
    let args = ["--connections", "16", "--per-second", "1000"];
    let (outcome, used) = load::run(rig, case, "rate", case.server.v4(HTTP), &args)?;
    let mut sample = Sample::default();
    outcome.add_latencies(&mut sample);
    if case.route == Route::Meshed {
        sample.add("CPU of the proxies", "us each", outcome.each(used.proxies));
    }
    Ok(sample)
}
