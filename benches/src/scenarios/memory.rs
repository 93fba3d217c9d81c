//! Memory of fresh proxies, idle and with open connections.

use std::{process::Command, time::Duration};

use anyhow::Result;
use fairlead_lab::Host as _;
use nix::sys::resource::{Resource, getrlimit};

use crate::{
    rig::{ECHO, Rig, load_program},
    sample::Sample,
    usage::{KIB_PER_MIB, Usage},
};

/// Memory of a node's proxy without connections: all of its processes, at the client's node.
pub(crate) const RESIDENT: &str = "idle, resident";

/// The same, with memory that processes share counted in parts.
pub(crate) const PROPORTIONAL: &str = "idle, proportional";

/// Connections before, which pay for what is made once: threads' caches, tunnels.
const WARM_UP: u32 = 32;

/// Time to open or close connections.
const TIMEOUT: Duration = Duration::from_mins(2);

/// Descriptors that a proxy needs for anything but connections: its own files, tunnels' sockets.
const RESERVED_DESCRIPTORS: u64 = 1_000;

/// Descriptors of a proxy for a connection whose two ends are on its node.
const DESCRIPTORS_ON_ONE_NODE: u64 = 2;

pub(super) fn thousand(rig: &mut Rig, _: Duration) -> Result<Sample> {
    measure(rig, 1_000)
}

/// Weighs 10,000 connections, or as many as the limit of descriptors permits.
pub(super) fn ten_thousand(rig: &mut Rig, _: Duration) -> Result<Sample> {
    let (_, limit) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let spans_nodes = rig.server.node() != rig.client.node();
    measure(rig, 10_000.min(affordable(limit, spans_nodes)))
}

fn measure(rig: &Rig, connections: u32) -> Result<Sample> {
    let (client, server) = (rig.client.node(), rig.server.node());
    let mut sample = Sample::default();
    add_idle(&mut sample, client, &rig.usage()?);
    let warm = weigh(rig, WARM_UP)?;
    let loaded = weigh(rig, connections)?;
    let each = |node: &str| {
        let added = loaded.memory(node).resident - warm.memory(node).resident;
        added / f64::from(connections - WARM_UP)
    };
    sample.add("open connections", "count", connections.into());
    sample.add(
        "resident with them, client's node",
        "MiB",
        loaded.memory(client).resident / KIB_PER_MIB,
    );
    sample.add("per connection, client's node", "KiB", each(client));
    if client != server {
        sample.add(
            "resident with them, server's node",
            "MiB",
            loaded.memory(server).resident / KIB_PER_MIB,
        );
        sample.add("per connection, server's node", "KiB", each(server));
    }
    Ok(sample)
}

fn add_idle(sample: &mut Sample, node: &str, idle: &Usage) {
    let total = idle.memory(node);
    sample.add(RESIDENT, "MiB", total.resident / KIB_PER_MIB);
    sample.add(PROPORTIONAL, "MiB", total.proportional / KIB_PER_MIB);
    for process in idle.processes.iter().filter(|process| process.node == node) {
        let memory = process.memory();
        sample.add_of(process.name(), RESIDENT, "MiB", memory.resident / KIB_PER_MIB);
        sample.add_of(process.name(), PROPORTIONAL, "MiB", memory.proportional / KIB_PER_MIB);
    }
}

/// Returns what the proxies use while `count` connections are open.
fn weigh(rig: &Rig, count: u32) -> Result<Usage> {
    let mut command = Command::new(load_program()?);
    command.args(["hold", "--to", &rig.server.v4(ECHO).to_string()]);
    command.args(["--count", &count.to_string()]);
    let mut holder = rig.client.spawn_interactive(command)?;
    holder.wait_for_output("open", TIMEOUT)?;
    let usage = rig.usage();
    holder.close_input();
    holder.wait(TIMEOUT)?.checked()?;
    usage
}

/// Returns how many connections fit into a process that may have `limit` descriptors. Client and
/// server have one for each.
fn affordable(limit: u64, spans_nodes: bool) -> u32 {
    let each = if spans_nodes { 1 } else { DESCRIPTORS_ON_ONE_NODE };
    let count = limit.saturating_sub(RESERVED_DESCRIPTORS) / each;
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_descriptors_is_shared_by_the_ends_on_one_node() {
        for (limit, spans_nodes, expected) in [
            (20_000, true, 19_000),
            (20_000, false, 9_500),
            (500, true, 0),
            (u64::MAX, true, u32::MAX),
        ] {
            assert_eq!(affordable(limit, spans_nodes), expected, "{limit}");
        }
    }
}
