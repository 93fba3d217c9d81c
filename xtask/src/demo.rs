//! Walks through what the mesh does, on two nodes made for it, and checks every step from outside.

mod bookinfo;
mod changes;
mod control_plane;
mod hints;
mod look;
mod mesh;
mod reach;
mod refusals;
mod report;
mod stage;
mod upgrade;
mod volume;

use crate::process::{Step, seconds};
use crate::setup::{self, Group};
use crate::{build, workspace};
use anyhow::{Context, Result};
use fairlead_lab::Lab;
use fairlead_lab::bookinfo::Bookinfo;
use fairlead_lab::mesh::{ControlledMesh, Mesh};
use report::Report;
use stage::Stage;
use std::time::Instant;

const NEEDS: [Group; 2] = [Group::Build, Group::Lab];

/// The programs of the scenario with a waypoint.
const BOOKINFO_PROGRAMS: [&str; 4] =
    ["fairlead-node", "fairlead-control", "fairlead-waypoint", "fairlead-bookinfo"];

/// Arguments of `cargo xtask demo`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What describes the mesh.
    #[arg(value_enum, default_value = "file")]
    scenario: Scenario,
    /// Leaves the nodes, pods and proxies running at the end and prints commands to try.
    #[arg(long)]
    keep: bool,
    /// Removes what an earlier demo with --keep left running, and does nothing else.
    #[arg(long, conflicts_with = "keep")]
    clean: bool,
}

/// What describes the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Scenario {
    /// A configuration file of the proxies.
    File,
    /// A control plane with a directory of YAML.
    ControlPlane,
    /// The same, for Bookinfo with a waypoint: what Istio's documents show.
    Bookinfo,
}

/// Runs the scenario.
pub(crate) fn run(args: &Args) -> Result<()> {
    setup::require_root("the demo makes network namespaces, so it", "cargo xtask demo")?;
    if args.clean {
        return clean();
    }
    setup::ensure(&NEEDS)?;
    build::bpf_objects("demo")?;
    match args.scenario {
        Scenario::File => play::<Mesh>(&["fairlead-node"], args.keep),
        Scenario::ControlPlane => {
            play::<ControlledMesh>(&["fairlead-node", "fairlead-control"], args.keep)
        }
        Scenario::Bookinfo => play::<Bookinfo>(&BOOKINFO_PROGRAMS, args.keep),
    }
}

fn play<S: Stage>(programs: &[&str], keep: bool) -> Result<()> {
    let mut cargo = workspace::release_build();
    cargo.args(programs.iter().flat_map(|program| ["--package", *program]));
    let what = format!("compiling {}, optimised", programs.join(" and "));
    Step { command: "demo", what: &what }.run_logged("demo-build", &mut cargo)?;
    let started = Instant::now();
    let report = Report::new();
    let mut stage = S::start()?;
    report.opening(&stage.inventory(), started.elapsed());
    for (index, scene) in S::SCENES.iter().enumerate() {
        let number = index + 1;
        let step_started = Instant::now();
        report.title(number, scene.title);
        if let Err(error) = (scene.play)(&mut stage, &report) {
            let logs = stage::save_logs(&stage)?;
            return Err(error).with_context(|| {
                format!("step {number} does not hold ({}); logs: {logs}", scene.title)
            });
        }
        report.done(step_started.elapsed());
    }
    println!("\nAll {} steps hold ({}).", S::SCENES.len(), seconds(started.elapsed()));
    if keep {
        hints::print(stage.hints());
        stage.keep();
    }
    Ok(())
}

/// A new lab removes what abandoned ones left.
fn clean() -> Result<()> {
    drop(Lab::with_nodes("clean", 1)?);
    eprintln!("demo: nothing is left of earlier labs");
    Ok(())
}
