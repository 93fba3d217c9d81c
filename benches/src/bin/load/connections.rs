//! New connections, as fast as they come: connect, one byte each way, close.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

use crate::latencies::Latencies;

/// A client with more errors in a row is stuck, and would only burn processor time.
const MAX_ERRORS: usize = 100;

/// Runs `at_once` clients for `duration` on one thread.
pub(crate) fn run(to: SocketAddr, at_once: usize, duration: Duration) -> Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(async {
        // Makes what the first connection alone pays for, such as a tunnel.
        let started = Instant::now();
        exchange(to).await.with_context(|| format!("connect to {to}"))?;
        let first = started.elapsed();
        let started = Instant::now();
        let mut clients = JoinSet::new();
        for _ in 0..at_once {
            clients.spawn(client(to, started + duration));
        }
        let (mut all, mut errors) = (Latencies::default(), 0);
        while let Some(finished) = clients.join_next().await {
            let (latencies, failed) = finished?;
            all.merge(latencies);
            errors += failed;
        }
        all.report(started.elapsed(), errors, Some(first));
        Ok(())
    })
}

async fn client(to: SocketAddr, deadline: Instant) -> (Latencies, usize) {
    let (mut latencies, mut errors) = (Latencies::default(), 0);
    while Instant::now() < deadline && errors < MAX_ERRORS {
        let started = Instant::now();
        match exchange(to).await {
            Ok(()) => latencies.add(started.elapsed()),
            Err(_) => errors += 1,
        }
    }
    (latencies, errors)
}

async fn exchange(to: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(to).await?;
    stream.write_all(b"x").await?;
    stream.read_exact(&mut [0]).await?;
    Ok(())
}
