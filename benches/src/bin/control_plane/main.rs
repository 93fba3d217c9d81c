//! A control plane under the load of a large cluster: nodes that follow everything, pods that change
//! all the time, and all nodes coming back at once.

mod client;
mod mesh;
mod process;
mod wire;

use std::{
    path::PathBuf,
    sync::{Arc, PoisonError, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::Parser;
use tokio::{
    task::JoinSet,
    time::{interval, sleep, timeout},
};

use self::{
    client::{Fleet, Seen},
    mesh::{Mesh, Shape},
    process::{ControlPlane, Usage},
};

/// Longest time for all nodes to have the whole state.
const SYNC_TIMEOUT: Duration = Duration::from_mins(5);

/// Time for the last of the changes to arrive.
const SETTLE: Duration = Duration::from_secs(12);

/// Changes that the nodes miss before they come back.
const MISSED: usize = 100;

/// Measures `fairlead-control` with a cluster of this size.
#[derive(Debug, Parser)]
struct Cli {
    /// The fairlead-control to measure.
    #[arg(long, value_name = "PROGRAM")]
    control: PathBuf,
    /// Services in the mesh.
    #[arg(long, default_value_t = 10_000)]
    services: usize,
    /// Pods in the mesh.
    #[arg(long, default_value_t = 50_000)]
    pods: usize,
    /// Nodes that follow everything.
    #[arg(long, default_value_t = 1_000)]
    nodes: usize,
    /// Pods that change each second.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// Seconds for which pods change.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Option of fairlead-control, such as --option=--debounce-after=10ms; may be repeated.
    #[arg(long)]
    option: Vec<String>,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(&cli))
}

async fn measure(cli: &Cli) -> Result<()> {
    let changes = (cli.rate * cli.seconds) as usize;
    let shape = Shape { services: cli.services, pods: cli.pods, changes: changes + MISSED };
    let mesh = Mesh::write(shape)?;
    let started = Instant::now();
    let control = ControlPlane::start(&cli.control, mesh.dir(), &cli.option).await?;
    report("first state", &[("seconds", started.elapsed().as_secs_f64())], &control.usage()?);

    let fleet = Arc::new(Fleet::new(&control)?);
    let (before, started) = (control.usage()?, Instant::now());
    let mut nodes = connect_all(&fleet, cli.nodes, false).await?;
    let figures = [
        ("seconds", started.elapsed().as_secs_f64()),
        ("MB_per_node", megabytes(fleet.received.swap(0, Relaxed), cli.nodes)),
    ];
    report("all nodes connect", &figures, &control.usage()?.since(&before));

    change(cli, &mesh, &fleet, &control).await?;

    nodes.shutdown().await;
    control.reset_peak()?;
    for number in changes..changes + MISSED {
        mesh.change(number)?;
    }
    sleep(SETTLE).await;
    fleet.received.store(0, Relaxed);
    let (before, started) = (control.usage()?, Instant::now());
    nodes = connect_all(&fleet, cli.nodes, true).await?;
    let figures = [
        ("seconds", started.elapsed().as_secs_f64()),
        ("MB_per_node", megabytes(fleet.received.swap(0, Relaxed), cli.nodes)),
        ("MB_sent_per_node", megabytes(fleet.initial_bytes(), 1)),
    ];
    report("all nodes come back", &figures, &control.usage()?.since(&before));
    nodes.shutdown().await;
    Ok(())
}

/// Lets pods change, and says when the nodes knew.
async fn change(cli: &Cli, mesh: &Mesh, fleet: &Fleet, control: &ControlPlane) -> Result<()> {
    control.reset_peak()?;
    let (before, started) = (control.usage()?, Instant::now());
    let mut ticks = interval(Duration::from_secs(1) / cli.rate);
    for number in 0..(cli.rate * cli.seconds) as usize {
        ticks.tick().await;
        fleet.expect(Mesh::resource(number));
        mesh.change(number)?;
    }
    let usage = control.usage()?.since(&before);
    let seconds = started.elapsed().as_secs_f64();
    sleep(SETTLE).await;
    let bytes = megabytes(fleet.received.swap(0, Relaxed), cli.nodes);
    let mut seen = std::mem::take(&mut *fleet.seen.lock().unwrap_or_else(PoisonError::into_inner));
    let expected = (cli.rate * cli.seconds) as usize * cli.nodes;
    for (what, urgent) in [("endpoints that go", true), ("endpoints that come", false)] {
        let mut times: Vec<u32> =
            seen.iter().filter(|s| Mesh::is_urgent(s.change) == urgent).map(|s| s.micros).collect();
        times.sort_unstable();
        let at = |part: f64| milliseconds(&times, part);
        let count = count(times.len());
        let figures =
            [("pushes", count), ("p50_ms", at(0.5)), ("p99_ms", at(0.99)), ("max_ms", at(1.0))];
        report(what, &figures, &Usage::default());
    }
    seen.retain(|seen: &Seen| seen.micros > 0);
    let lost = count(expected.saturating_sub(seen.len()));
    let figures = [("seconds", seconds), ("MB_per_node", bytes), ("lost", lost)];
    report("pods change", &figures, &usage);
    Ok(())
}

/// Connects all nodes at once; returns when each knows the whole state.
async fn connect_all(fleet: &Arc<Fleet>, count: usize, again: bool) -> Result<JoinSet<Result<()>>> {
    fleet.synced.store(0, Relaxed);
    let mut nodes = JoinSet::new();
    for index in 0..count {
        nodes.spawn(Arc::clone(fleet).follow(index, again));
    }
    let synced = async {
        while fleet.synced.load(Relaxed) < count {
            tokio::select! {
                () = fleet.progress.notified() => {}
                Some(ended) = nodes.join_next() => ended?.context("a node ended")?,
            }
        }
        anyhow::Ok(())
    };
    timeout(SYNC_TIMEOUT, synced).await.with_context(|| {
        format!("{} of {count} nodes have the whole state", fleet.synced.load(Relaxed))
    })??;
    Ok(nodes)
}

/// Writes a line of figures.
fn report(what: &str, figures: &[(&str, f64)], usage: &Usage) {
    print!("{what:<22}");
    for (name, value) in figures {
        print!(" {name}={value:.2}");
    }
    if let Some((cpu, resident, peak)) = usage.figures() {
        print!(" cpu_s={cpu:.2} rss_MiB={resident:.0} peak_rss_MiB={peak:.0}");
    }
    println!();
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn megabytes(bytes: u64, nodes: usize) -> f64 {
    bytes as f64 / 1e6 / nodes as f64
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn count(number: usize) -> f64 {
    number as f64
}

/// Returns the time below which `part` of the sorted `micros` are, in milliseconds.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a position in a list"
)]
fn milliseconds(micros: &[u32], part: f64) -> f64 {
    let last = micros.len().saturating_sub(1);
    let at = (part * last as f64).round() as usize;
    micros.get(at).map_or(f64::NAN, |micros| f64::from(*micros) / 1e3)
}
