//! The control plane's entry point.
#![forbid(unsafe_code)]

use std::{future::pending, process::ExitCode, sync::Arc};

use anyhow::{Context as _, Result};
use clap::Parser;
use fairlead_component::logging;
use fairlead_control::{
    ca::{CaSecrets, directory::CaDirectory},
    cli::{Cli, Command, RunArgs},
    cluster::{Cluster, Leadership, connect},
    feed::Feed,
    run::ControlPlane,
    telemetry::metrics::Metrics,
};
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let Cli { command, run } = Cli::parse();
    let result = match command {
        Some(Command::RotateRoot { kubernetes: true, system_namespace, .. }) => {
            rotate_root_of_cluster(&system_namespace)
        }
        Some(Command::RotateRoot { ca_dir, .. }) => rotate_root(&ca_dir),
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
async fn rotate_root_of_cluster(namespace: &str) -> Result<()> {
    CaSecrets::new(connect().await?, namespace, Leadership::never()).request_rotation().await?;
    println!("asked for; the control plane that leads in {namespace} does it");
    Ok(())
}

#[tokio::main]
async fn serve(args: &RunArgs) -> Result<()> {
    let log = logging::init(args.log_format, &args.log_level)?;
    let metrics = Arc::new(Metrics::of_log(log.dropped_lines()));
    let (feed, source) = Feed::new(args.mesh_options(), Arc::clone(&metrics));
    let client = if args.source.kubernetes { Some(connect().await?) } else { None };
    let cluster = client.clone().map(|client| {
        let webhook = args.webhook_configuration.clone();
        let metrics = Arc::clone(&metrics);
        let (standing, waypoints) = (feed.standing(), args.waypoint_settings());
        Cluster::new(client, args.lease_options(), webhook, standing, waypoints, metrics)
    });
    let control_plane = ControlPlane::open(args, source, cluster, metrics).await?;
    tracing::info!(
        address = %control_plane.address()?,
        admin = %control_plane.admin_address()?,
        webhook = control_plane.webhook_address().map(tracing::field::display),
        "started"
    );
    let following = async {
        match (client, args.source.config_dir.clone()) {
            (Some(client), _) => feed.follow_cluster(client).await,
            (None, Some(directory)) => feed.follow_directory(directory).await?,
            // The command line does not let it come to this.
            (None, None) => anyhow::bail!("there is neither --config-dir nor --kubernetes"),
        }
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
