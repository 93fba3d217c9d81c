//! The control plane's entry point.
#![forbid(unsafe_code)]

use std::{future::pending, process::ExitCode, sync::Arc};

use anyhow::{Context as _, Result};
use clap::Parser;
use fairlead_component::logging;
use fairlead_control::{
    ca::directory::CaDirectory,
    cli::{Cli, Command, RunArgs},
    feed::Feed,
    run::ControlPlane,
    telemetry::metrics::Metrics,
};
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let Cli { command, run } = Cli::parse();
    let result = match command {
        Some(Command::RotateRoot { ca_dir }) => rotate_root(&ca_dir),
        None => serve(&run),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn rotate_root(ca_dir: &std::path::Path) -> Result<()> {
    CaDirectory::open(ca_dir)?.request_rotation()?;
    println!("asked for; the control plane that serves from {} does it", ca_dir.display());
    Ok(())
}

#[tokio::main]
async fn serve(args: &RunArgs) -> Result<()> {
    let directory = args.config_dir.clone();
    let directory =
        directory.context("no --config-dir: it has the YAML that the mesh is made of")?;
    let log = logging::init(args.log_format, &args.log_level)?;
    let metrics = Arc::new(Metrics::of_log(log.dropped_lines()));
    let (feed, source) = Feed::new(args.mesh_options(), Arc::clone(&metrics));
    let control_plane = ControlPlane::open(args, source, metrics).await?;
    tracing::info!(
        address = %control_plane.address()?,
        admin = %control_plane.admin_address()?,
        "started"
    );
    let following = async {
        feed.follow_directory(directory).await?;
        // Nobody wants to know any more; that is said elsewhere.
        pending::<Result<()>>().await
    };
    let mut terminate = signal(SignalKind::terminate()).context("cannot catch SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot catch SIGINT")?;
    let asked = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    tokio::select! {
        result = following => result,
        result = control_plane.serve(asked) => Ok(result?),
    }
}
