//! The mesh of the demo: the one of the end-to-end tests, with all its servers running.

use super::stage::{Scene, Stage, node, pod};
use super::{changes, hints, reach, refusals, upgrade, volume};
use anyhow::Result;
use fairlead_lab::mesh::{HALF_CLOSE, Mesh, TRANSFER, vip4, vip6};
use fairlead_lab::{AccessLine, FairleadNode, wait_for};
use std::net::SocketAddr;
use std::time::Duration;

/// Port of the tunnels.
pub(super) const HBONE: u16 = 15008;

/// Number of the service `b` in its addresses.
const B: u8 = 10;

/// Time for what takes milliseconds on an idle machine.
pub(super) const SOON: Duration = Duration::from_secs(20);

impl Stage for Mesh {
    const SCENES: &'static [Scene<Self>] = &[
        Scene { title: "A pod reaches a service on the other node", play: reach::service },
        Scene { title: "Pod addresses, both families, both nodes", play: reach::pod_addresses },
        Scene { title: "Pods inside and outside the mesh", play: refusals::outsiders },
        Scene { title: "A policy, also for connections that are open", play: refusals::policy },
        Scene { title: "Volume: one GiB each way, 10,000 connections", play: volume::play },
        Scene {
            title: "A pod joins and leaves the mesh while it talks",
            play: changes::membership,
        },
        Scene { title: "An upgrade that no connection notices", play: upgrade::play },
        Scene { title: "A proxy is killed during traffic", play: changes::crash },
    ];

    fn start() -> Result<Self> {
        let mut mesh = Self::new("demo")?;
        for pod in [mesh.b.clone(), mesh.d.clone(), mesh.outsider.clone()] {
            mesh.serve_echo(&pod)?;
            mesh.serve(&pod, "transfer.py", TRANSFER)?;
            mesh.serve(&pod, "half_close.py", HALF_CLOSE)?;
        }
        Ok(mesh)
    }

    fn inventory(&self) -> Vec<(String, Vec<String>)> {
        let mut first = [&self.a, &self.c, &self.d].map(|of_mesh| pod(of_mesh, "")).to_vec();
        first.push(pod(&self.outsider, "not enrolled"));
        let second = vec![pod(&self.b, ""), format!("service b     {}", vip(80))];
        vec![(node(self.lab.node(1)), first), (node(self.lab.node(2)), second)]
    }

    fn logs(&self) -> Result<Vec<(&'static str, String)>> {
        Ok(vec![("n1", self.n1.log()?), ("n2", self.n2.log()?)])
    }

    fn hints(&self) -> Vec<(&'static str, String)> {
        hints::of_file(self)
    }

    fn keep(self) {
        Self::keep(self);
    }
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
