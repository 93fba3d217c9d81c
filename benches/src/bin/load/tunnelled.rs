//! Requests through tunnels, as a node's proxy brings them to a waypoint.

mod paced;
mod requests;
mod tunnel;
mod watch;

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    path::PathBuf,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use tokio::task::{LocalSet, spawn_local};

use self::{paced::Turns, requests::Requests, tunnel::Tunnel};
use crate::latencies::Latencies;

pub(crate) use self::watch::{WatchArgs, watch};

/// Where requests go, and in whose name.
#[derive(Clone, Debug, Args)]
pub(crate) struct Way {
    /// Address of the waypoint's tunnels.
    #[arg(long)]
    via: SocketAddr,
    /// Address and port that the requests are for.
    #[arg(long)]
    to: SocketAddr,
    /// Certificate of the client, PEM.
    #[arg(long)]
    certificate: PathBuf,
    /// Its key, PEM.
    #[arg(long)]
    key: PathBuf,
}

/// Arguments of `tunnelled`.
#[derive(Clone, Debug, Args)]
pub(crate) struct TunnelledArgs {
    #[command(flatten)]
    way: Way,
    /// What the requests are.
    #[arg(long, value_enum)]
    kind: Kind,
    /// Tunnels.
    #[arg(long)]
    tunnels: u32,
    /// Requests at once in each: over as many connections with HTTP/1.1, otherwise over one.
    #[arg(long)]
    at_once: u32,
    /// Number of paths that requests take turns with.
    #[arg(long)]
    routes: u32,
    /// Requests per second, of all together [default: as fast as answers come].
    #[arg(long)]
    per_second: Option<u32>,
    /// Duration.
    #[arg(long, value_parser = super::seconds)]
    seconds: Duration,
}

/// What requests are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// HTTP/1.1 on connections that are kept.
    Http1,
    /// HTTP/2.
    Http2,
    /// Unary calls of gRPC.
    Grpc,
}

/// What all who send share.
struct Run {
    routes: u32,
    next_route: Cell<u32>,
    /// When no request is sent any more.
    end: Instant,
    latencies: RefCell<Latencies>,
}

/// Sends requests and reports how long they took.
pub(crate) fn run(args: &TunnelledArgs) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let mut senders = Vec::new();
        for _ in 0..args.tunnels {
            senders.append(&mut senders_of(args).await?);
        }
        let started = Instant::now();
        let run = Rc::new(Run {
            routes: args.routes,
            next_route: Cell::new(0),
            end: started + args.seconds,
            latencies: RefCell::default(),
        });
        let turns = Turns::new(args.per_second, senders.len(), started, run.end);
        let tasks: Vec<_> = senders
            .into_iter()
            .zip(turns)
            .map(|(sender, turns)| spawn_local(send(run.clone(), sender, turns)))
            .collect();
        for task in tasks {
            task.await??;
        }
        run.latencies.take().report(started.elapsed(), 0, None);
        Ok(())
    })
}

/// Opens a tunnel, and in it what carries the requests.
async fn senders_of(args: &TunnelledArgs) -> Result<Vec<Requests>> {
    let tunnel = Tunnel::open(&args.way).await.context("tunnel")?;
    let mut senders = Vec::new();
    if args.kind == Kind::Http1 {
        for _ in 0..args.at_once {
            senders.push(Requests::http1(tunnel.connect().await?));
        }
    } else {
        let connection = Requests::http2(tunnel.connect().await?, args.kind == Kind::Grpc).await?;
        for _ in 0..args.at_once {
            senders.push(connection.another()?);
        }
    }
    Ok(senders)
}

async fn send(run: Rc<Run>, mut sender: Requests, mut turns: Turns) -> Result<()> {
    while let Some(due) = turns.next().await
        && due < run.end
    {
        sender.exchange(&run.path()).await?;
        run.latencies.borrow_mut().add(due.elapsed());
    }
    Ok(())
}

// === impl Run ===

impl Run {
    /// Returns the path of the next request.
    fn path(&self) -> String {
        let route = self.next_route.get();
        self.next_route.set((route + 1) % self.routes);
        path_of(route)
    }
}

/// Returns a path of the route with this number.
fn path_of(route: u32) -> String {
    format!("/route-{route}/page")
}
