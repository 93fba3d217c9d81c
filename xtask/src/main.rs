//! Developer commands: set up the tools, build, check, test, show and measure.
//!
//! One enum variant and one module per command. Progress goes to standard error, so that standard
//! output carries only what the commands underneath print.

mod bench;
mod build;
mod check;
mod demo;
mod process;
mod setup;
mod test;
mod workspace;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Builds, checks and tests Fairlead; installs the tools that this needs.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Installs the tools that the other commands need and that are missing.
    Setup,
    /// Builds the BPF objects and then the host crates.
    Build(build::Args),
    /// Checks format, lints, dependencies and file lengths.
    Check,
    /// Builds, checks and runs all tests; needs root.
    Test(test::Args),
    /// Shows the mesh at work on two nodes, and checks every step from outside; needs root.
    Demo(demo::Args),
    /// Measures meshed paths against direct ones; needs root.
    Bench(bench::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Setup => setup::run(),
        Command::Build(args) => build::run(&args),
        Command::Check => check::run(),
        Command::Test(args) => test::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Bench(args) => bench::run(&args),
    };
    if let Err(error) = result {
        // Without the backtrace that returning it would print: what failed is another program.
        eprintln!("error: {error:#}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
