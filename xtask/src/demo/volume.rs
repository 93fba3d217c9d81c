//! Step 5: much data, and many connections, without a leak.

use super::look::{map_entries, pins};
use super::mesh::{SOON, vip};
use super::report::Report;
use anyhow::{Context, Result};
use fairlead_lab::mesh::{HALF_CLOSE, Mesh, TRANSFER};
use fairlead_lab::{FairleadNode, Host as _, Resources, python, wait_for};
use std::fs;
use std::time::Duration;

/// Data in each direction.
const TRANSFER_MIB: &str = "1024";

/// Data in a direction whose other half is closed.
const HALF_CLOSE_MIB: &str = "16";

/// Time for the interpreters to make, send and check the data on a busy machine.
const TRANSFER_TIMEOUT: Duration = Duration::from_mins(4);

/// Connections of which each has a socket pair in the proxies.
const CONNECTIONS: u32 = 10_000;

/// Connections before the count: they fill the tunnel pools and the allocator's caches.
const WARM_UP: u32 = 1_000;

/// Connections at a time.
const AT_ONCE: &str = "32";

/// Descriptors by which the count may differ: tunnels come and go with the load.
const SPARE_DESCRIPTORS: usize = 16;

/// Memory by which the count may differ; one KiB lost per connection would be more.
const SPARE_KIB: u64 = 6 * 1024;

/// What a proxy holds, seen from outside.
#[derive(Clone, Copy)]
struct Holdings {
    resources: Resources,
    map_entries: usize,
}

/// Moves data, half-closes, and opens connections while counting.
pub(super) fn play(mesh: &mut Mesh, report: &Report) -> Result<()> {
    transfer(mesh, report)?;
    for mode in ["client-first", "server-first", "both"] {
        let server = vip(HALF_CLOSE);
        let (host, port) = (server.ip().to_string(), server.port().to_string());
        report.did("a", &format!("half_close.py {mode}, {HALF_CLOSE_MIB} MiB"));
        let arguments = [mode, &host, &port, HALF_CLOSE_MIB];
        let output = mesh.a.run(python("half_close.py", &arguments))?;
        let seen = format!("{}{}", output.stdout, output.stderr);
        let seen = seen.trim();
        report.holds("all bytes after half-close", seen == "ok", seen, "ok")?;
    }
    connections(mesh, report)
}

fn transfer(mesh: &Mesh, report: &Report) -> Result<()> {
    let server = vip(TRANSFER);
    let (host, port) = (server.ip().to_string(), server.port().to_string());
    report.did("a", &format!("transfer.py to {server}: {TRANSFER_MIB} MiB each way at once"));
    let command = python("transfer.py", &["run", &host, &port, TRANSFER_MIB]);
    let output = mesh.a.run_within(command, TRANSFER_TIMEOUT)?;
    let seen = format!("{}{}", output.stdout, output.stderr);
    let seen = seen.trim();
    report.holds("checksums at both ends", seen.starts_with("ok"), seen, "ok")?;
    report.note("time, hashing included", format!("{:.1} s", output.elapsed.as_secs_f64()));
    Ok(())
}

fn connections(mesh: &Mesh, report: &Report) -> Result<()> {
    open_and_close(mesh, WARM_UP)?;
    let before = Holdings::of_both(mesh)?;
    report
        .did("a", &format!("curl, {CONNECTIONS} connections to {}, {AT_ONCE} at a time", vip(80)));
    let (ok, took) = open_and_close(mesh, CONNECTIONS)?;
    report.same("requests answered, each on its own connection", &ok, &CONNECTIONS)?;
    report.note("time", format!("{:.1} s", took.as_secs_f64()));
    for (proxy, before) in [&mesh.n1, &mesh.n2].into_iter().zip(before) {
        settled(proxy, before, report)?;
    }
    Ok(())
}

/// Returns how many requests succeeded on a connection of their own.
fn open_and_close(mesh: &Mesh, count: u32) -> Result<(u32, Duration)> {
    let url = format!("http://{}/[1-{count}]", vip(80));
    let output = mesh.a.run_within(
        [
            "curl",
            "-s",
            "-Z",
            "--parallel-max",
            AT_ONCE,
            "-H",
            "Connection: close",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code} %{num_connects}\n",
            url.as_str(),
        ],
        TRANSFER_TIMEOUT,
    )?;
    let ok = output.stdout.lines().filter(|line| *line == "200 1").count();
    Ok((u32::try_from(ok)?, output.elapsed))
}

/// Waits for the last connections to be gone, then compares.
fn settled(proxy: &FairleadNode, before: Holdings, report: &Report) -> Result<()> {
    let name = proxy.node().name();
    report.did(name, "bpftool map dump; /proc/PID: before and after");
    let limit = before.resources.descriptors + SPARE_DESCRIPTORS;
    // That they stay is what the check below reports.
    let _ = wait_for("descriptors are closed", SOON, || {
        Ok((proxy.resources()?.descriptors <= limit).then_some(()))
    });
    let after = Holdings::of(proxy)?;
    let (old, new) = (before.resources.descriptors, after.resources.descriptors);
    report.holds("descriptors", new <= limit, change(old, new), format!("at most {limit}"))?;
    let (old, new) = (before.resources.resident_kib, after.resources.resident_kib);
    let limit = old + SPARE_KIB;
    let seen = format!("{} KiB", change(old, new));
    report.holds("resident memory", new <= limit, seen, format!("at most {limit} KiB"))?;
    let seen = change(before.map_entries, after.map_entries);
    let equal = before.map_entries == after.map_entries;
    report.holds("entries in BPF maps", equal, seen, before.map_entries)
}

fn change<T: std::fmt::Display>(before: T, after: T) -> String {
    format!("{before} -> {after}")
}

// === impl Holdings ===

impl Holdings {
    fn of(proxy: &FairleadNode) -> Result<Self> {
        let pins = pins(proxy);
        let mut entries = 0;
        for file in fs::read_dir(&pins).with_context(|| pins.display().to_string())? {
            let file = file?;
            // Maps are the pins in capitals; the others are links and a directory.
            if file.file_name().as_encoded_bytes().iter().all(u8::is_ascii_uppercase) {
                entries += map_entries(&file.path())?;
            }
        }
        Ok(Self { resources: proxy.resources()?, map_entries: entries })
    }

    fn of_both(mesh: &Mesh) -> Result<[Self; 2]> {
        Ok([Self::of(&mesh.n1)?, Self::of(&mesh.n2)?])
    }
}
