//! The mesh of the demo: the one of the end-to-end tests, with all its servers running.

use crate::workspace;
use anyhow::Result;
use fairlead_lab::mesh::{HALF_CLOSE, Mesh, TRANSFER, vip4, vip6};
use fairlead_lab::{AccessLine, FairleadNode, Node, Pod, wait_for};
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

/// Port of the tunnels.
pub(super) const HBONE: u16 = 15008;

/// Number of the service `b` in its addresses.
const B: u8 = 10;

/// Time for what takes milliseconds on an idle machine.
pub(super) const SOON: Duration = Duration::from_secs(20);

/// Starts everything.
pub(super) fn start() -> Result<Mesh> {
    let mut mesh = Mesh::new("demo")?;
    for pod in [mesh.b.clone(), mesh.d.clone(), mesh.outsider.clone()] {
        mesh.serve_echo(&pod)?;
        mesh.serve(&pod, "transfer.py", TRANSFER)?;
        mesh.serve(&pod, "half_close.py", HALF_CLOSE)?;
    }
    Ok(mesh)
}

/// Returns each node with its pods, as text.
pub(super) fn inventory(mesh: &Mesh) -> [(String, Vec<String>); 2] {
    let node = |node: &Node| format!("node {}   {}   {}", node.name(), node.ipv4(), node.ipv6());
    let pod = |pod: &Pod| {
        let remark = if pod.name() == mesh.outsider.name() { "   not enrolled" } else { "" };
        let (name, account) = (pod.name(), pod.service_account());
        let namespace = pod.namespace();
        let (v4, v6) = (pod.ipv4(), pod.ipv6());
        format!("pod {name:9} {v4:9} {v6:9} {namespace}/{account}{remark}")
    };
    let first = [&mesh.a, &mesh.c, &mesh.d, &mesh.outsider].map(pod);
    [
        (node(mesh.lab.node(1)), first.to_vec()),
        (node(mesh.lab.node(2)), vec![pod(&mesh.b), format!("service b     {}", vip(80))]),
    ]
}

/// Copies the proxies' logs to where they outlive the lab, and returns the place.
pub(super) fn save_logs(mesh: &Mesh) -> Result<String> {
    let pattern = workspace::target("xtask/demo-n*.log");
    for (proxy, name) in [(&mesh.n1, "demo-n1.log"), (&mesh.n2, "demo-n2.log")] {
        fs::write(pattern.with_file_name(name), proxy.log()?)?;
    }
    Ok(pattern.display().to_string())
}

/// Returns `port` of the service `b`.
pub(super) fn vip(port: u16) -> SocketAddr {
    vip4(B, port)
}

/// Returns `port` of the service `b` over IPv6.
pub(super) fn vip_v6(port: u16) -> SocketAddr {
    vip6(B, port)
}

/// Waits for a line that `matches` in the part of the access log behind its first `known` lines.
pub(super) fn access_after(
    proxy: &FairleadNode,
    known: usize,
    matches: impl Fn(&AccessLine) -> bool,
) -> Result<AccessLine> {
    wait_for("an access-log line", SOON, || {
        Ok(proxy.access_log()?.into_iter().skip(known).find(|line| matches(line)))
    })
}
