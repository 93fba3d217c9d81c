//! Resident memory, idle and with open connections.

use std::{process::Command, time::Duration};

use anyhow::Result;
use fairlead_lab::{Host as _, Resources};

use super::{Case, Sample};
use crate::rig::{ECHO, Rig, load_program};

/// Connections that are weighed.
const CONNECTIONS: u32 = 1_000;

/// Connections before, which pay for what is made once: threads' caches, tunnels.
const WARM_UP: u32 = 32;

/// Time to open them.
const OPEN_TIMEOUT: Duration = Duration::from_mins(1);

pub(super) fn measure(rig: &mut Rig, case: &Case) -> Result<Sample> {
    rig.restart_proxies()?;
    let idle = rig.resources()?;
    let warm = weigh(rig, case, WARM_UP)?;
    let loaded = weigh(rig, case, CONNECTIONS)?;
    let mut sample = Sample::default();
    sample.add("idle, resident, client's node", "MiB", mib(idle[0].resident_kib));
    sample.add("idle, proportional, client's node", "MiB", mib(idle[0].proportional_kib));
    sample.add("1,000 connections, client's node", "MiB", mib(loaded[0].resident_kib));
    sample.add("per connection, client's node", "KiB", each(warm[0], loaded[0]));
    if case.server.node() != case.client.node() {
        sample.add("1,000 connections, server's node", "MiB", mib(loaded[1].resident_kib));
        sample.add("per connection, server's node", "KiB", each(warm[1], loaded[1]));
    }
    Ok(sample)
}

/// Returns what the proxies use while `count` connections are open.
fn weigh(rig: &Rig, case: &Case, count: u32) -> Result<Vec<Resources>> {
    let mut command = Command::new(load_program()?);
    command.args(["hold", "--to", &case.server.v4(ECHO).to_string()]);
    command.args(["--count", &count.to_string()]);
    let mut holder = case.client.spawn_interactive(command)?;
    holder.wait_for_output("open", OPEN_TIMEOUT)?;
    let resources = rig.resources();
    holder.close_input();
    holder.wait(OPEN_TIMEOUT)?.checked()?;
    resources
}

fn each(before: Resources, after: Resources) -> f64 {
    let added = after.resident_kib.saturating_sub(before.resident_kib);
    kib(added) / f64::from(CONNECTIONS - WARM_UP)
}

fn mib(resident_kib: u64) -> f64 {
    kib(resident_kib) / 1024.0
}

#[expect(clippy::cast_precision_loss, reason = "a machine's memory in KiB is far below 2^52")]
fn kib(amount: u64) -> f64 {
    amount as f64
}
