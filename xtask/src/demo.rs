//! Walks through what the mesh does, on two nodes made for it, and checks every step from outside.

mod changes;
mod hints;
mod look;
mod mesh;
mod reach;
mod refusals;
mod report;
mod upgrade;
mod volume;

use crate::process::{Step, seconds};
use crate::setup::{self, Group};
use crate::{build, workspace};
use anyhow::{Context, Result};
use fairlead_lab::Lab;
use fairlead_lab::mesh::Mesh;
use report::Report;
use std::time::Instant;

const NEEDS: [Group; 2] = [Group::Build, Group::Lab];

/// Arguments of `cargo xtask demo`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Leaves the nodes, pods and proxies running at the end and prints commands to try.
    #[arg(long)]
    keep: bool,
    /// Removes what an earlier demo with --keep left running, and does nothing else.
    #[arg(long, conflicts_with = "keep")]
    clean: bool,
}

/// One step of the scenario.
struct Scene {
    title: &'static str,
    play: fn(&mut Mesh, &Report) -> Result<()>,
}

const SCENES: [Scene; 8] = [
    Scene { title: "A pod reaches a service on the other node", play: reach::service },
    Scene { title: "Pod addresses, both families, both nodes", play: reach::pod_addresses },
    Scene { title: "Pods inside and outside the mesh", play: refusals::outsiders },
    Scene { title: "A policy, also for connections that are open", play: refusals::policy },
    Scene { title: "Volume: one GiB each way, 10,000 connections", play: volume::play },
    Scene { title: "A pod joins and leaves the mesh while it talks", play: changes::membership },
    Scene { title: "An upgrade that no connection notices", play: upgrade::play },
    Scene { title: "A proxy is killed during traffic", play: changes::crash },
];

/// Runs the scenario.
pub(crate) fn run(args: &Args) -> Result<()> {
    setup::require_root("the demo makes network namespaces, so it", "cargo xtask demo")?;
    if args.clean {
        return clean();
    }
    setup::ensure(&NEEDS)?;
    build::bpf_object("demo")?;
    let mut cargo = workspace::cargo(&["build", "--release", "--package", "fairlead-node"]);
    Step { command: "demo", what: "compiling fairlead-node, optimised" }
        .run_logged("demo-build", &mut cargo)?;
    scenario(args)
}

fn scenario(args: &Args) -> Result<()> {
    let started = Instant::now();
    let report = Report::new();
    let mut mesh = mesh::start()?;
    report.opening(&mesh, started.elapsed());
    for (index, scene) in SCENES.iter().enumerate() {
        let number = index + 1;
        let step_started = Instant::now();
        report.title(number, scene.title);
        if let Err(error) = (scene.play)(&mut mesh, &report) {
            let logs = mesh::save_logs(&mesh)?;
            return Err(error).with_context(|| {
                format!("step {number} does not hold ({}); proxy logs: {logs}", scene.title)
            });
        }
        report.done(step_started.elapsed());
    }
    println!("\nAll {} steps hold ({}).", SCENES.len(), seconds(started.elapsed()));
    if args.keep {
        hints::print(&mesh);
        mesh.keep();
    }
    Ok(())
}

/// A new lab removes what abandoned ones left.
fn clean() -> Result<()> {
    drop(Lab::with_nodes("clean", 1)?);
    eprintln!("demo: nothing is left of earlier labs");
    Ok(())
}
