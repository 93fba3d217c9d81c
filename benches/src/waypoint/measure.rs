//! What is measured of a waypoint.

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use super::{
    kind::Kind,
    scene::{Proxy, Scene},
};

/// Time that a program gets beyond that of its load.
const GRACE: Duration = Duration::from_secs(20);

/// Tunnels of the load: so many clients.
const TUNNELS: u32 = 4;

/// Requests at once in each tunnel.
const AT_ONCE: u32 = 8;

/// Requests per second of all clients together, at equal load: a quarter of what either carries.
pub(super) const RATE: u32 = 4_000;

/// Time for a change of the routes to be felt.
const PATIENCE: Duration = Duration::from_secs(10);

/// How much load there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Load {
    /// The same for all.
    Equal,
    /// As much as comes through.
    Full,
}

/// What one run of the load found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) per_second: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    /// Processor time of the proxy for a thousand requests, in milliseconds.
    pub(super) cpu_ms: f64,
    /// Part of a processor that the proxy used.
    pub(super) busy: f64,
}

/// What the load generator reports.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Outcome {
    completed: f64,
    seconds: f64,
    p50_us: f64,
    p99_us: f64,
}

/// Sends requests through a proxy.
pub(super) fn run(
    scene: &Scene,
    proxy: &Proxy,
    (kind, load): (Kind, Load),
    duration: Duration,
) -> Result<Run> {
    let mut args = vec![format!("--kind={}", kind.argument())];
    args.push(format!("--tunnels={TUNNELS}"));
    args.push(format!("--at-once={AT_ONCE}"));
    args.push(format!("--routes={}", scene.routes));
    args.push(format!("--seconds={}", duration.as_secs_f64()));
    if load == Load::Equal {
        args.push(format!("--per-second={RATE}"));
    }
    let before = proxy.usage()?.cpu;
    let report = scene.load(proxy, kind, "tunnelled", &args, duration + GRACE)?;
    let cpu = proxy.usage()?.cpu.saturating_sub(before).as_secs_f64();
    let outcome: Outcome = serde_json::from_str(&report).context(report)?;
    ensure!(outcome.completed > 0.0, "no request was answered");
    Ok(Run {
        per_second: outcome.completed / outcome.seconds,
        p50_us: outcome.p50_us,
        p99_us: outcome.p99_us,
        cpu_ms: cpu * 1e6 / outcome.completed,
        busy: cpu / outcome.seconds,
    })
}

/// Has routes answer for a moment, which shows that they are known; one that is not is an error.
pub(super) fn try_routes(scene: &Scene, proxy: &Proxy) -> Result<()> {
    let args = ["--kind=http1", "--tunnels=1", "--at-once=8", "--seconds=0.5"].map(str::to_owned);
    let args = [&args[..], &[format!("--routes={}", scene.routes)]].concat();
    scene.load(proxy, Kind::Http1, "tunnelled", &args, GRACE).map(drop)
}

/// Changes the last route again and again. Returns how long it took each time until an answer showed
/// it, in milliseconds.
pub(super) fn changes(scene: &Scene, proxy: &Proxy, count: u32) -> Result<Vec<f64>> {
    let args = [format!("--route={}", scene.routes - 1), "--seconds=30".to_owned()];
    let mut watch = scene.start_load(proxy, Kind::Http1, "watch", &args)?;
    // Others' changes before may have left another mark.
    watch.wait_for_output("m", PATIENCE)?;
    let mut taken = Vec::new();
    for change in 1..=count {
        let mark = format!("m{change}-{}", proxy.name);
        let change = scene.change(proxy, &mark)?;
        let began = SystemTime::now();
        change()?;
        watch.wait_for_output(&format!("{mark} "), PATIENCE)?;
        // The line is whole at the dot.
        watch
            .wait_for_output(&format!("{mark} {}", line_of(&watch.stdout()?, &mark)?), PATIENCE)?;
        taken.push(milliseconds_since(began, line_of(&watch.stdout()?, &mark)?)?);
    }
    Ok(taken)
}

/// Returns the time that the watcher printed beside a mark.
fn line_of<'a>(output: &'a str, mark: &str) -> Result<&'a str> {
    let line = output.lines().find_map(|line| line.strip_prefix(mark)?.trim().strip_suffix('.'));
    line.with_context(|| format!("no time of {mark} in {output}"))
}

fn milliseconds_since(began: SystemTime, micros: &str) -> Result<f64> {
    let seen = SystemTime::UNIX_EPOCH + Duration::from_micros(micros.parse()?);
    Ok(seen.duration_since(began).unwrap_or_default().as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_change_is_in_the_line_of_its_mark() -> Result<()> {
        let output = "m0 1000.\nm1-envoy 2500000.\n";
        let micros = line_of(output, "m1-envoy")?;
        let taken = milliseconds_since(SystemTime::UNIX_EPOCH + Duration::from_secs(2), micros)?;
        assert!((taken - 500.0).abs() < 1e-6, "{taken}");
        assert!(line_of(output, "m2").is_err());
        Ok(())
    }
}
