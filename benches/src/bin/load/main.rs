//! Clients and servers of the benchmarks: plain sockets, and no idea of the mesh; but for
//! `tunnelled`, which comes as a node's proxy does.
#![forbid(unsafe_code)]

mod connections;
mod hold;
mod latencies;
mod rate;
mod serve;
mod serve_http2;
mod tunnelled;

use std::{net::SocketAddr, time::Duration};

use anyhow::Result;
use clap::{Parser, Subcommand};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::tunnelled::{TunnelledArgs, WatchArgs};

/// Makes load for the benchmarks. Clients print one line of JSON.
#[derive(Debug, Parser)]
#[command(name = "fairlead-load")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Echoes bytes on one port, and answers HTTP/1.1 requests on another.
    Serve {
        /// Port of the echo.
        #[arg(long)]
        echo_port: u16,
        /// Port of HTTP.
        #[arg(long)]
        http_port: u16,
        /// Port of HTTP/2 without TLS, and of gRPC.
        #[arg(long)]
        h2c_port: Option<u16>,
    },
    /// Opens connections, sends one byte each way, closes them, as fast as it can.
    Connections {
        /// Address of an echo.
        #[arg(long)]
        to: SocketAddr,
        /// Connections at a time.
        #[arg(long)]
        at_once: usize,
        /// Duration.
        #[arg(long, value_parser = seconds)]
        seconds: Duration,
    },
    /// Sends HTTP requests at a fixed rate, whatever the answers do.
    Rate {
        /// Address of the HTTP server.
        #[arg(long)]
        to: SocketAddr,
        /// Keep-alive connections that take turns.
        #[arg(long)]
        connections: u32,
        /// Requests per second, of all connections together.
        #[arg(long)]
        per_second: u32,
        /// Duration.
        #[arg(long, value_parser = seconds)]
        seconds: Duration,
    },
    /// Opens connections, sends a byte each way, and keeps them until its input ends.
    Hold {
        /// Address of an echo.
        #[arg(long)]
        to: SocketAddr,
        /// Connections.
        #[arg(long)]
        count: usize,
    },
    /// Sends requests to a waypoint through tunnels.
    Tunnelled(TunnelledArgs),
    /// Says when the answers of a waypoint change.
    Watch(WatchArgs),
}

fn main() -> Result<()> {
    // The soft limit is often 1,024, which is fewer than the connections to hold.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    match Cli::parse().command {
        Command::Serve { echo_port, http_port, h2c_port } => {
            serve::run(echo_port, http_port, h2c_port)
        }
        Command::Connections { to, at_once, seconds } => connections::run(to, at_once, seconds),
        Command::Rate { to, connections, per_second, seconds } => {
            rate::run(to, connections, per_second, seconds)
        }
        Command::Hold { to, count } => hold::run(to, count),
        Command::Tunnelled(args) => tunnelled::run(&args),
        Command::Watch(args) => tunnelled::watch(&args),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "give a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}
