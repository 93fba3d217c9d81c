//! Requests at a fixed rate over keep-alive connections.
//!
//! Open loop: a request is due at a time that no answer delays, and its latency counts from then;
//! a slow answer so shows in the requests that had to wait behind it (no coordinated omission).

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::prctl::set_timerslack;

use crate::latencies::Latencies;

/// Sleeps end this late at most, in nanoseconds; the default of 50 µs would be half of a latency.
const TIMER_SLACK: u64 = 1;

/// Time without an answer after which a connection counts as broken.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Time between the start and the first request, so that no thread is late for it.
const LEAD: Duration = Duration::from_millis(20);

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: server\r\n\r\n";

/// When the requests of one connection are due.
#[derive(Clone, Copy, Debug)]
struct Schedule {
    first: Instant,
    interval: Duration,
    requests: u32,
}

/// Sends `per_second` requests over `connections` that take turns.
pub(crate) fn run(
    to: SocketAddr,
    connections: u32,
    per_second: u32,
    duration: Duration,
) -> Result<()> {
    ensure!(connections > 0 && per_second > 0, "no load");
    let turn = Duration::from_secs(1) / per_second;
    let interval = turn * connections;
    let requests = u32::try_from(duration.as_nanos() / interval.as_nanos())?;
    let all_open = Barrier::new(connections as usize);
    let started = Instant::now();
    let results: Vec<Result<Latencies>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..connections)
            .map(|number| {
                let all_open = &all_open;
                scope.spawn(move || {
                    let connection = open(to);
                    all_open.wait();
                    let first = Instant::now() + LEAD + turn * number;
                    send_all(connection?, Schedule { first, interval, requests })
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| bail!("a thread panicked")))
            .collect()
    });
    let errors = results.iter().filter(|result| result.is_err()).count();
    let mut all = Latencies::default();
    results.into_iter().flatten().for_each(|latencies| all.merge(latencies));
    all.report(started.elapsed(), errors, None);
    Ok(())
}

/// Opens a connection and makes one request, which pays for what only the first one costs.
fn open(to: SocketAddr) -> Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&to, TIMEOUT)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    request(&mut stream)?;
    Ok(stream)
}

fn send_all(mut stream: TcpStream, schedule: Schedule) -> Result<Latencies> {
    set_timerslack(TIMER_SLACK)?;
    let mut latencies = Latencies::default();
    for number in 0..schedule.requests {
        let due = schedule.first + schedule.interval * number;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        request(&mut stream).context("the connection broke")?;
        latencies.add(due.elapsed());
    }
    Ok(latencies)
}

/// Reads one answer; its end is the end of the body that our server sends.
fn request(stream: &mut TcpStream) -> Result<()> {
    stream.write_all(REQUEST)?;
    let mut answer = [0; 1024];
    let mut filled = 0;
    while !answer[..filled].ends_with(b"\r\n\r\nhello\n") {
        let read = stream.read(&mut answer[filled..])?;
        ensure!(read > 0, "closed in the middle of an answer");
        filled += read;
    }
    Ok(())
}
