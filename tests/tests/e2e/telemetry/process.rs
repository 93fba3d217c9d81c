//! What the metrics say of the proxy process, compared with what the node sees of it.

use std::{
    fs,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, ensure};
use fairlead_lab::{FairleadNode, Half, wait_for};
use nix::unistd::Pid;

use crate::{
    clients::{SOON, curl},
    mesh::{HTTP, Mesh},
};

/// Descriptors that may come and go between two looks: those of the scrape, and spare sockets.
const PASSING: f64 = 16.0;

fn metric(node: &FairleadNode, name: &str) -> Result<f64> {
    let metrics = node.metrics()?;
    let found = metrics.all().iter().find(|metric| metric.name == name);
    Ok(found.with_context(|| name.to_owned())?.value)
}

#[expect(clippy::cast_precision_loss, reason = "some hundreds")]
fn descriptors(pid: Pid) -> Result<f64> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count() as f64)
}

/// Returns the number after `name` on a line of a file of `/proc/PID`, by its column.
fn number(pid: Pid, file: &str, name: &str, column: usize) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let value = line.and_then(|line| line.split_whitespace().nth(column));
    Ok(value.with_context(|| format!("{name} in {text}"))?.parse()?)
}

#[test]
fn descriptors_memory_and_time_of_the_proxy_are_those_that_the_node_sees() -> Result<()> {
    let mesh = Mesh::new("process")?;
    assert!(curl(&mesh.a, mesh.b.v4(HTTP))?.is_ok());
    let pid = mesh.n1.pid_of(Half::Proxy)?;
    let near = |what: &str, open: fn(&FairleadNode, Pid) -> Result<(f64, f64)>, most: f64| {
        wait_for(what, SOON, || {
            let (shown, seen) = open(&mesh.n1, pid)?;
            Ok(((shown - seen).abs() <= most).then_some(shown))
        })
    };
    let open =
        |node: &FairleadNode, pid| Ok((metric(node, "process_open_fds")?, descriptors(pid)?));
    near("the open descriptors", open, PASSING)?;
    let memory = |node: &FairleadNode, pid| {
        let seen = number(pid, "status", "VmRSS:", 0)? * 1024.0;
        Ok((metric(node, "process_resident_memory_bytes")? / seen, 1.0))
    };
    near("the memory", memory, 0.25)?;
    let most = number(pid, "limits", "Max open files", 0)?;
    assert!((metric(&mesh.n1, "process_max_fds")? - most).abs() < 0.5);
    ensure!(metric(&mesh.n1, "process_cpu_seconds_total")? > 0.0);
    let started = metric(&mesh.n1, "process_start_time_seconds")?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
    ensure!((0.0..3600.0).contains(&(now - started)), "{started} of {now}");
    let metrics = mesh.n1.metrics()?;
    for thread in ["main", "proxy-0", "resolver"] {
        let busy = "tokio_worker_total_busy_duration_seconds_total";
        ensure!(metrics.matching(busy, &[("worker", thread)]).count() == 1, "{thread}");
    }
    Ok(())
}
