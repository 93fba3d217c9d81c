//! Measures meshed paths against direct ones, in the lab; the benchmarks are in `benches`.

use crate::process::Step;
use crate::setup::{self, Group};
use crate::{build, workspace};
use anyhow::Result;
use std::ffi::OsString;
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
    /// Runs only cases with client and server on different nodes (cross) or on the same (same).
    #[arg(long)]
    span: Option<String>,
    /// How often each figure is taken.
    #[arg(long, value_name = "COUNT")]
    repetitions: Option<u32>,
    /// How long load lasts each time, in seconds.
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<u32>,
    /// Measures another proxy too, which COMMAND starts on each node (benches/README.md); may be
    /// given several times.
    #[arg(long, value_name = "NAME=COMMAND")]
    peer: Vec<String>,
    /// Counts the system calls of the proxies, which spoils all other figures.
    #[arg(long)]
    calls: bool,
}

/// Time that pods change for in a quick run, in seconds.
const QUICK_SECONDS: u32 = 5;

/// Name of the scenario that loads a control plane. It has no path to compare, and runs only if it is
/// named.
const CONTROL_PLANE: &str = "control-plane";

/// Name of the scenario that compares waypoints. It has no direct path to compare with, and runs only if
/// it is named.
const WAYPOINT: &str = "waypoint";

/// Builds everything optimised and runs the benchmarks.
pub(crate) fn run(args: &Args) -> Result<()> {
    if args.only.iter().any(|name| name == CONTROL_PLANE) {
        control_plane(args)?;
        if args.only.len() == 1 {
            return Ok(());
        }
    }
    setup::require_root("a benchmark makes network namespaces, so it", "cargo xtask bench")?;
    setup::ensure(&NEEDS)?;
    build::bpf_objects("bench")?;
    let mut cargo = workspace::release_build();
    cargo.args(["--bins", "--package", "fairlead-node", "--package", "benches"]);
    if args.only.iter().any(|name| name == WAYPOINT) {
        cargo.args(["--package", "fairlead-control", "--package", "fairlead-waypoint"]);
    }
    Step { command: "bench", what: "compiling what is measured and the benchmarks, optimised" }
        .run_logged("bench-build", &mut cargo)?;

    let mut benches = Command::new(workspace::target("release/benches"));
    benches.arg("--fairlead").arg(workspace::target("release/fairlead-node"));
    benches.arg("--results").arg(workspace::target("bench/results.json"));
    Step { command: "bench", what: "measuring" }.run_shown(benches.args(args.for_benches()))
}

/// Loads a control plane, as `fairlead-control-load` describes.
fn control_plane(args: &Args) -> Result<()> {
    setup::ensure(&[Group::Build])?;
    let packages = ["--package", "fairlead-control", "--package", "benches"];
    let programs = ["--bin", "fairlead-control", "--bin", "fairlead-control-load"];
    let mut cargo = workspace::release_build();
    Step { command: "bench", what: "compiling fairlead-control and its load, optimised" }
        .run_logged("bench-control-build", cargo.args(packages).args(programs))?;
    let mut load = Command::new(workspace::target("release/fairlead-control-load"));
    load.arg("--control").arg(workspace::target("release/fairlead-control"));
    if args.quick {
        load.args(["--services", "500", "--pods", "2500", "--nodes", "50"]);
    }
    if let Some(seconds) = args.seconds.or_else(|| args.quick.then_some(QUICK_SECONDS)) {
        load.args(["--seconds", &seconds.to_string()]);
    }
    Step { command: "bench", what: "measuring the control plane" }.run_shown(&mut load)
}

// === impl Args ===

impl Args {
    /// The same choices as arguments of the benchmarks, which check them.
    fn for_benches(&self) -> Vec<OsString> {
        let only = self
            .only
            .iter()
            .filter(|name| *name != CONTROL_PLANE)
            .map(|name| ("--only", name.clone()));
        let span = self.span.iter().map(|span| ("--span", span.clone()));
        let repetitions = self.repetitions.iter().map(|count| ("--repetitions", count.to_string()));
        let seconds = self.seconds.iter().map(|seconds| ("--seconds", seconds.to_string()));
        let peers = self.peer.iter().map(|peer| ("--peer", peer.clone()));
        let options = only.chain(span).chain(repetitions).chain(seconds).chain(peers);
        let options = options.flat_map(|(name, value)| [name.into(), value.into()]);
        let flags = [("--quick", self.quick), ("--calls", self.calls)];
        let flags = flags.into_iter().filter(|(_, chosen)| *chosen).map(|(name, _)| name.into());
        flags.chain(options).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn the_benchmarks_get_every_choice() {
        let given = [
            "--quick",
            "--calls",
            "--only",
            "rate",
            "--only",
            "memory",
            "--span",
            "cross",
            "--repetitions",
            "5",
            "--seconds",
            "2",
            "--peer",
            "a=b c",
        ];
        let cli = Cli::parse_from(std::iter::once("bench").chain(given));
        assert_eq!(cli.args.for_benches(), given);
        assert!(Cli::parse_from(["bench"]).args.for_benches().is_empty());
    }
}
