//! The node proxy's entry point.
#![forbid(unsafe_code)]

mod pod_commands;
mod run;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use fairlead_node::{
    capture::check,
    cli::{Cli, Command, RunArgs},
    telemetry::logging,
};

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(args) => serve(*args),
        Command::Pod(command) => on_this_thread(pod_commands::run(command)),
        Command::Check(args) => {
            let cgroup = args.cgroup_root.or_else(check::cgroup_root);
            for requirement in check::requirements(cgroup.as_deref()) {
                println!("{requirement}");
            }
            check::ensure(cgroup.as_deref()).map_err(Into::into)
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(args: RunArgs) -> Result<()> {
    let log = logging::init(args.log_format, &args.log_level)?;
    on_this_thread(run::run(args, &log))
}

fn on_this_thread(task: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(task)
}
