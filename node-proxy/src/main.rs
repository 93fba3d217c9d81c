//! The node proxy's entry point.
#![forbid(unsafe_code)]

mod pod_commands;
mod profile_command;
mod run;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use fairlead_node::{
    capture::check,
    cli::{Cli, Command},
    supervise::REFUSED,
};

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(args) => run::run(&args),
        Command::Capture(args) => return half(run::capture::run(&args)),
        Command::Proxy(args) => return half(run::proxy::run(&args)),
        Command::Agent(args) => return half(run::agent::run(&args)),
        Command::Pod(command) => on_this_thread(pod_commands::run(command)),
        Command::Explain(args) => on_this_thread(pod_commands::explain(args)),
        Command::LogLevel(args) => on_this_thread(pod_commands::log_level(args)),
        Command::Profile(args) => on_this_thread(profile_command::run(args)),
        Command::Check(args) => {
            let cgroup = args.cgroup_root.or_else(check::cgroup_root);
            for requirement in check::requirements(cgroup.as_deref()) {
                println!("{requirement}");
            }
            println!("{}", check::probes(cgroup.as_deref(), &args.probes));
            println!("{}", check::profiles());
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

/// A process that cannot serve says so to its supervisor by its exit status.
fn half(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(REFUSED)
        }
    }
}

fn on_this_thread<T>(task: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(task)
}
