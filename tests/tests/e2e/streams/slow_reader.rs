//! A reader that cannot keep up holds a window of memory, and holds up nobody else.

use std::{collections::HashMap, time::Duration};

use anyhow::{Context as _, Result};
use fairlead_lab::{FairleadNode, Host as _, Resources, python};

use super::{PORT, serve_both};
use crate::{
    clients::{SOON, run_python},
    mesh::{ECHO, Mesh},
};

/// Slow readers at once between one pair of pods: more than fit in the window of one tunnel.
const READERS: &str = "8";

/// Pace of a slow reader, in bytes per second.
const PACE: &str = "65536";

/// Time that they read, in seconds.
const SECONDS: &str = "4";

/// Most that a proxy's memory may grow, in KiB.
const GROWTH_KIB: u64 = 64 << 10;

/// Messages of the exchange beside the slow readers.
const MESSAGES: &str = "500";

/// Most that an answer of 1 KiB takes beside slow readers, and a new connection, in microseconds:
/// far above what a busy machine adds, far below any time-out.
const LONGEST_US: u64 = 500_000;

/// Most that the median answer takes: Nagle's algorithm would make it 40 ms.
const MEDIAN_US: u64 = 10_000;

fn ping_pong(mesh: &Mesh, host: &str) -> Result<HashMap<String, u64>> {
    let said = run_python(&mesh.a, "ping_pong.py", &[host, &ECHO.to_string(), MESSAGES, "1024"])?;
    let pairs = said.lines().filter_map(|line| line.split_once(' '));
    pairs.map(|(name, number)| Ok((name.to_owned(), number.parse()?))).collect()
}

fn grew(node: &FairleadNode, before: Resources) -> Result<u64> {
    Ok(node.resources()?.resident_kib.saturating_sub(before.resident_kib))
}

fn slow_readers_hold_up_nobody(name: &str, path: usize) -> Result<()> {
    let mut mesh = Mesh::new(name)?;
    let server = serve_both(&mut mesh, "firehose.py")?[path];
    let pod = if path == 0 { mesh.b.clone() } else { mesh.d.clone() };
    mesh.serve_echo(&pod)?;
    let (host, port) = (server.ip().to_string(), PORT.to_string());
    let alone = ping_pong(&mesh, &host)?;
    let before = [mesh.n1.resources()?, mesh.n2.resources()?];

    let args = ["run", host.as_str(), port.as_str(), READERS, PACE, SECONDS];
    let mut readers = mesh.a.spawn(python("firehose.py", &args))?;
    readers.wait_for_output("connected", SOON)?;
    let mut beside = Vec::new();
    while readers.is_running()? {
        beside.push(ping_pong(&mesh, &host).context("beside slow readers")?);
        let growth = [grew(&mesh.n1, before[0])?, grew(&mesh.n2, before[1])?];
        assert!(growth.iter().all(|kib| *kib < GROWTH_KIB), "grew by {growth:?} KiB");
    }
    readers.wait(Duration::ZERO)?.checked()?;
    println!("alone: {alone:?}; beside slow readers: {beside:?}");
    for (name, limit) in [("median", MEDIAN_US), ("worst", LONGEST_US), ("connect", LONGEST_US)] {
        let worst = beside.iter().filter_map(|times| times.get(name)).max().context("no times")?;
        assert!(*worst < limit, "{name}: {worst} us, alone {alone:?}");
    }
    Ok(())
}

#[test]
fn slow_readers_behind_a_tunnel_hold_a_window_and_hold_up_nobody() -> Result<()> {
    slow_readers_hold_up_nobody("slow-tunnel", 0)
}

#[test]
fn slow_readers_on_the_same_node_hold_a_window_and_hold_up_nobody() -> Result<()> {
    slow_readers_hold_up_nobody("slow-local", 1)
}
