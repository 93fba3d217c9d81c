//! Measures waypoints side by side: ours, Envoy doing the same, and other builds of ours.
//!
//! All of them stand in one lab, on one processor, and take turns; the load and the server have
//! another. Tunnels come from the load itself, so that no node's proxy is in the path, and endpoints
//! are not in the mesh: both send to them as it is.

mod credentials;
mod envoy;
mod kind;
mod measure;
mod objects;
mod scene;

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Result, ensure};
use serde::Serialize;

use self::{
    kind::Kind,
    measure::{Load, RATE},
    scene::{Proxy, Scene},
};
use crate::{cli::Cli, statistics::Series, table, usage::KIB_PER_MIB};

/// Name of the scenario. It runs only if it is named: it has no path to compare.
pub(crate) const NAME: &str = "waypoint";

/// Names the program to measure in place of the release build.
const BINARY_VARIABLE: &str = "FAIRLEAD_WAYPOINT_BIN";

const RELEASE_BINARY: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../target/release/fairlead-waypoint");

/// Numbers of routes, with the kinds of requests that are sent.
const SIZES: [(u32, &[Kind], bool); 3] =
    [(1, &Kind::ALL, true), (1_000, &Kind::ALL, true), (5_000, &[Kind::Http1], false)];

/// Changes of a route that are timed.
const CHANGES: u32 = 10;

/// Columns of text.
const TEXTS: usize = 4;

/// The same figure of all samples.
#[derive(Debug, Serialize)]
struct Row {
    routes: u32,
    what: String,
    figure: &'static str,
    system: String,
    samples: Series,
}

/// All figures.
#[derive(Debug, Default, Serialize)]
struct Rows(Vec<Row>);

/// Measures, and prints what was found.
pub(crate) fn run(cli: &Cli) -> Result<()> {
    ensure!(!cfg!(debug_assertions), "only figures of an optimised build mean something");
    let program = env::var_os(BINARY_VARIABLE).map_or_else(|| RELEASE_BINARY.into(), PathBuf::from);
    let mut rows = Rows::default();
    // What was found before something failed is shown all the same.
    let measured = SIZES.iter().try_for_each(|size| measure_all(cli, &program, *size, &mut rows));
    let results = cli.results.with_file_name("waypoint.json");
    if let Some(folder) = results.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(&results, serde_json::to_string_pretty(&rows)?)?;
    println!("{}\nresults with every sample: {}", rows.table(), results.display());
    measured
}

/// Takes all figures with so many routes.
fn measure_all(
    cli: &Cli,
    program: &Path,
    (routes, kinds, is_loaded): (u32, &'static [Kind], bool),
    rows: &mut Rows,
) -> Result<()> {
    let scene = Scene::new(routes, kinds, program, &cli.peer)?;
    weigh(&scene, rows)?;
    time_changes(&scene, rows)?;
    if is_loaded {
        for repetition in 0..cli.effort().repetitions {
            load(&scene, cli, repetition, rows)?;
        }
    }
    Ok(())
}

/// Weighs proxies that have just shown that they know their routes.
fn weigh(scene: &Scene, rows: &mut Rows) -> Result<()> {
    for proxy in &scene.proxies {
        measure::try_routes(scene, proxy)?;
        #[expect(clippy::cast_precision_loss, reason = "memory in KiB is far below 2^52")]
        let resident = proxy.usage()?.resident_kib as f64 / KIB_PER_MIB;
        rows.add(scene.routes, "memory", proxy, [("resident, MiB", resident)]);
    }
    Ok(())
}

/// Takes one sample of every load of every proxy.
fn load(scene: &Scene, cli: &Cli, repetition: u32, rows: &mut Rows) -> Result<()> {
    for kind in scene.kinds() {
        for load in [Load::Equal, Load::Full] {
            let what = match load {
                Load::Equal => format!("{kind}, {RATE} requests/s"),
                Load::Full => format!("{kind}, as fast as answers come"),
            };
            for proxy in in_turn(&scene.proxies, repetition) {
                let run = measure::run(scene, proxy, (*kind, load), cli.effort().duration())?;
                let figures = [
                    ("requests/s", run.per_second),
                    ("p50, us", run.p50_us),
                    ("p99, us", run.p99_us),
                    ("CPU of 1,000, ms", run.cpu_ms),
                    ("busy, %", run.busy * 100.0),
                ];
                eprintln!("bench: {} routes, {what}, {}: {figures:.0?}", scene.routes, proxy.name);
                rows.add(scene.routes, &what, proxy, figures);
            }
        }
    }
    Ok(())
}

fn time_changes(scene: &Scene, rows: &mut Rows) -> Result<()> {
    for proxy in &scene.proxies {
        for taken in measure::changes(scene, proxy, CHANGES)? {
            rows.add(scene.routes, "change of a route", proxy, [("until it is felt, ms", taken)]);
        }
    }
    Ok(())
}

/// Returns who is measured when: nobody is always the first.
fn in_turn(proxies: &[Proxy], repetition: u32) -> impl Iterator<Item = &Proxy> {
    let first = repetition as usize % proxies.len().max(1);
    proxies[first..].iter().chain(&proxies[..first])
}

// === impl Rows ===

impl Rows {
    fn add<const N: usize>(
        &mut self,
        routes: u32,
        what: &str,
        proxy: &Proxy,
        figures: [(&'static str, f64); N],
    ) {
        for (figure, value) in figures {
            let known = self.0.iter_mut().find(|row| {
                (row.routes, &*row.what, row.figure, &row.system)
                    == (routes, what, figure, &proxy.name)
            });
            if let Some(row) = known {
                row.samples.push(value);
                continue;
            }
            let (what, system) = (what.to_owned(), proxy.name.clone());
            self.0.push(Row {
                routes,
                what,
                figure,
                system,
                samples: [value].into_iter().collect(),
            });
        }
    }

    /// Returns medians, with the smallest and the largest sample, system beside system.
    fn table(&self) -> String {
        let mut systems: Vec<&str> = Vec::new();
        for row in &self.0 {
            if !systems.contains(&&*row.system) {
                systems.push(&row.system);
            }
        }
        let heads = ["routes", "load", "figure"].into_iter().chain(systems.iter().copied());
        let heads: Vec<String> = heads.map(str::to_owned).collect();
        let mut lines: Vec<Vec<String>> = Vec::new();
        for row in &self.0 {
            let key = [
                table::thousands(&row.routes.to_string()),
                row.what.clone(),
                row.figure.to_owned(),
            ];
            let place = systems.iter().position(|system| **system == row.system).unwrap_or(0);
            let index = lines.iter().position(|line| line[..key.len()] == key);
            let index = index.unwrap_or_else(|| {
                lines.push(
                    key.iter().cloned().chain(systems.iter().map(|_| String::new())).collect(),
                );
                lines.len() - 1
            });
            lines[index][key.len() + place] = row.samples.to_string();
        }
        table::render(&heads, &lines, TEXTS - 1)
    }
}
