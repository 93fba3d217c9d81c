//! Pods that are proxies themselves, behind the node's.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use fairlead_lab::{ApplicationTunnel, Pod, Policy, PolicyAction, Waypoint};

use crate::{
    clients::{Answer, curl},
    mesh::{HTTP, Mesh, vip4, vip6},
};

/// Where the pods take connections.
const PROXY: u16 = 15088;

/// Starts the mesh with `b` and `d` as proxies, for whose services nobody else listens.
fn mesh_of_proxies(name: &str) -> Result<Mesh> {
    let mut mesh = Mesh::new(name)?;
    for pod in [mesh.b.clone(), mesh.d.clone()] {
        mesh.serve(&pod, "proxy_server.py", PROXY)?;
        let workload = mesh.config.workload_mut(&pod).context("not configured")?;
        let tunnel = ApplicationTunnel { protocol: "PROXY".to_owned(), port: PROXY };
        workload.application_tunnel = Some(tunnel);
    }
    mesh.apply()?;
    Ok(mesh)
}

/// The proxy in the pod has read who connects, from where, and where to.
fn expect_header(client: &Pod, answer: &Answer, target: SocketAddr) {
    let (own, loopback) = match target {
        SocketAddr::V4(_) => (client.v4(0).ip(), "127.0.0.1"),
        SocketAddr::V6(_) => (client.v6(0).ip(), "::1"),
    };
    assert!(answer.is_ok(), "{target}: {answer:?}");
    assert_eq!(answer.seen("source"), own.to_string());
    assert_eq!(answer.seen("source_port"), answer.local_port);
    assert_eq!(answer.seen("target"), target.ip().to_string());
    assert_eq!(answer.seen("target_port"), target.port().to_string());
    assert_eq!(answer.seen("identity"), client.identity());
    assert_eq!(answer.seen("peer"), loopback, "it trusts its own host only");
}

#[test]
fn a_pod_that_is_a_proxy_reads_who_connects_and_where_to() -> Result<()> {
    let mesh = mesh_of_proxies("proxyv2")?;
    for (service, target) in [
        (vip4(10, 80), mesh.b.v4(HTTP)),
        (vip6(10, 80), mesh.b.v6(HTTP)),
        (vip4(20, 80), mesh.d.v4(HTTP)),
        (mesh.b.v4(1), mesh.b.v4(1)),
        (mesh.d.v6(1), mesh.d.v6(1)),
    ] {
        expect_header(&mesh.a, &curl(&mesh.a, service)?, target);
    }
    // Without a tunnel there is no header, and the application itself answers.
    let answer = curl(&mesh.outsider, mesh.b.v4(HTTP))?;
    assert_eq!(answer.seen("peer"), mesh.outsider.ipv4().to_string(), "{answer:?}");
    // The mesh's own ports are nobody's.
    assert!(curl(&mesh.a, mesh.b.v4(15006))?.is_refused());
    Ok(())
}

#[test]
fn a_waypoint_that_is_enrolled_reads_which_service_a_connection_is_for() -> Result<()> {
    let mut mesh = mesh_of_proxies("sandwich")?;
    let waypoint = Waypoint { address: mesh.b.v4(0).ip() };
    for service in mesh.config.services.iter_mut().filter(|service| service.name == "d") {
        service.waypoint = Some(waypoint);
    }
    mesh.apply()?;
    let target = vip4(20, 80);
    expect_header(&mesh.a, &curl(&mesh.a, target)?, target);

    // Policies of the pod hold for what it takes as a proxy, too, at the port where it does.
    let deny = Policy::new(PolicyAction::Deny, "shop", "no-c").from_pod(&mesh.c);
    mesh.config.policies.push(deny);
    mesh.apply()?;
    assert!(curl(&mesh.c, target)?.is_refused());
    let line = mesh.n2.wait_for_access(|line| line.is("policy", "shop/no-c"))?;
    assert!(line.is("dst.hbone_addr", &target.to_string()), "{line:?}");
    expect_header(&mesh.a, &curl(&mesh.a, target)?, target);
    Ok(())
}
