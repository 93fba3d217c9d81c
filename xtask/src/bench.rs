//! Measures meshed paths against direct ones, in the lab; the benchmarks are in `benches`.

use crate::process::Step;
use crate::setup::{self, Group};
use crate::{build, workspace};
use anyhow::Result;
use std::process::Command;

const NEEDS: [Group; 2] = [Group::Build, Group::Lab];

/// Arguments of `cargo xtask bench`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Takes each figure once and briefly: for trying, not for comparing.
    #[arg(long)]
    quick: bool,
    /// Runs only scenarios with this in their name; may be given several times.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
}

/// Builds everything optimised and runs the benchmarks.
pub(crate) fn run(args: &Args) -> Result<()> {
    setup::require_root("a benchmark makes network namespaces, so it", "cargo xtask bench")?;
    setup::ensure(&NEEDS)?;
    build::bpf_object("bench")?;
    let packages = ["--package", "fairlead-node", "--package", "benches"];
    let mut cargo = workspace::cargo(&["build", "--release", "--bins"]);
    Step { command: "bench", what: "compiling fairlead-node and the benchmarks, optimised" }
        .run_logged("bench-build", cargo.args(packages))?;

    let mut benches = Command::new(workspace::target("release/benches"));
    benches.arg("--results").arg(workspace::target("bench/results.json"));
    if args.quick {
        benches.arg("--quick");
    }
    for name in &args.only {
        benches.args(["--only", name]);
    }
    Step { command: "bench", what: "measuring" }.run_shown(&mut benches)
}
