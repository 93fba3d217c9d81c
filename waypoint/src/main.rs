//! The waypoint's entry point.
#![forbid(unsafe_code)]

mod pages;
mod run;

use std::process::ExitCode;

use clap::Parser;
use fairlead_waypoint::cli::{Cli, Command};

fn main() -> ExitCode {
    let Command::Run(args) = Cli::parse().command;
    match run::run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
