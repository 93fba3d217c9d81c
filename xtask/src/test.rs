//! Runs everything that must hold before a change goes in.

use crate::process::{Step, seconds};
use crate::setup::{self, Group};
use crate::{build, check, workspace};
use anyhow::Result;
use std::process::Command;
use std::time::{Duration, Instant};

const NEEDS: [Group; 3] = [Group::Build, Group::Lint, Group::Lab];
const NEEDS_OF_UNIT_TESTS: [Group; 1] = [Group::Build];

/// The programs that the end-to-end tests run.
const PROGRAMS: [&str; 4] =
    ["fairlead-node", "fairlead-control", "fairlead-waypoint", "fairlead-bookinfo"];

/// Packages whose tests need root, the release build or programs of the lab.
const END_TO_END: [&str; 3] = ["fairlead-kube-api", "fairlead-lab", "fairlead-trials"];

/// End-to-end tests at a time: each runs two proxies and several clients.
const LABS_AT_ONCE: &str = "2";

/// Arguments of `cargo xtask test`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Runs the unit and property tests only; needs no root.
    #[arg(long)]
    quick: bool,
    /// Arguments for the test programs, such as a part of a test's name.
    #[arg(last = true)]
    runner: Vec<String>,
}

/// The time that each finished phase took.
#[derive(Default)]
struct Phases(Vec<(&'static str, Duration)>);

/// Runs the tests, after everything that they need.
pub(crate) fn run(args: &Args) -> Result<()> {
    let mut phases = Phases::default();
    if args.quick {
        phases.run("tools", || setup::ensure(&NEEDS_OF_UNIT_TESTS))?;
        phases.run("BPF objects", || build::bpf_objects("test"))?;
        phases.run("unit tests", || unit_tests(args))?;
    } else {
        setup::require_root(
            "an end-to-end test makes network namespaces, so it",
            "cargo xtask test",
        )?;
        phases.run("tools", || setup::ensure(&NEEDS))?;
        phases.run("BPF objects", || build::bpf_objects("test"))?;
        phases.run("checks", check::all)?;
        phases.run("release build", release_build)?;
        phases.run("unit tests", || unit_tests(args))?;
        phases.run("end-to-end tests", || end_to_end_tests(args))?;
    }
    eprintln!("test: passed; {}", phases.summary());
    Ok(())
}

fn release_build() -> Result<()> {
    let mut cargo = workspace::release_build();
    cargo.args(PROGRAMS.map(|package| format!("--package={package}")));
    Step { command: "test", what: "compiling the programs under test" }
        .run_logged("test-build", &mut cargo)
}

fn unit_tests(args: &Args) -> Result<()> {
    let mut cargo = workspace::cargo(&["test", "--no-fail-fast", "--workspace"]);
    cargo.args(END_TO_END.map(|package| format!("--exclude={package}")));
    cargo.arg("--").args(&args.runner);
    Step { command: "test", what: "unit and property tests" }.run_shown(&mut cargo)
}

fn end_to_end_tests(args: &Args) -> Result<()> {
    // `--tests` leaves documentation out, so that the tests' own count is the last line.
    let mut cargo = workspace::cargo(&["test", "--no-fail-fast", "--tests"]);
    cargo.args(END_TO_END.map(|package| format!("--package={package}")));
    let programs = lab_programs(&mut cargo);
    programs.env("RUST_TEST_THREADS", LABS_AT_ONCE).arg("--").args(&args.runner);
    Step { command: "test", what: "end-to-end tests" }.run_shown(programs)
}

/// Tells the lab where the programs are that no package puts on the path.
fn lab_programs(command: &mut Command) -> &mut Command {
    command
        .env("FAIRLEAD_NODE_BIN", workspace::target("release/fairlead-node"))
        .env("FAIRLEAD_CONTROL_BIN", workspace::target("release/fairlead-control"))
        .env("FAIRLEAD_WAYPOINT_BIN", workspace::target("release/fairlead-waypoint"))
        .env("FAIRLEAD_BOOKINFO_BIN", workspace::target("release/fairlead-bookinfo"))
        .env("FAIRLEAD_ENVOY_BIN", setup::envoy_program())
}

// === impl Phases ===

impl Phases {
    fn run(&mut self, name: &'static str, phase: impl FnOnce() -> Result<()>) -> Result<()> {
        let started = Instant::now();
        phase()?;
        self.0.push((name, started.elapsed()));
        Ok(())
    }

    fn summary(&self) -> String {
        let phase = |(name, time): &(&str, Duration)| format!("{name} {}", seconds(*time));
        self.0.iter().map(phase).collect::<Vec<_>>().join(", ")
    }
}
