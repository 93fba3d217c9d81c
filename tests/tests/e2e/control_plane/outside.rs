//! Where pods may connect to outside the mesh.

use std::net::SocketAddr;

use anyhow::Result;
use fairlead_lab::{AccessLine, FairleadNode, PodSpec, manifest, mesh::ControlledMesh, wait_for};

use super::wait_for_answer;
use crate::{
    clients::{Answer, SOON},
    mesh::{HTTP, vip4, vip6},
};

/// Returns the mesh configuration with a mode for connections out of the mesh.
fn mesh_config(mode: &str) -> String {
    manifest::mesh_config(&format!("outboundTrafficPolicy: {{mode: {mode}}}"))
}

/// Waits until connections to no service that the mesh knows are counted under `name`.
fn wait_for_count(node: &FairleadNode, name: &str, flags: &str) -> Result<()> {
    let labels = [
        ("destination_service_name", name),
        ("destination_service", "unknown"),
        ("reporter", "source"),
        ("response_flags", flags),
    ];
    wait_for(name, SOON, || {
        let count = node.metrics()?.sum("istio_tcp_connections_closed_total", &labels);
        Ok((count >= 1.0).then_some(()))
    })
}

#[test]
fn the_mesh_configuration_says_whether_pods_may_leave_the_mesh() -> Result<()> {
    let mut mesh = ControlledMesh::new("cpoutside")?;
    let stranger = mesh.lab.node(2).add_pod(PodSpec::new("stranger"))?;
    mesh.serve(&stranger, "http_server.py", HTTP)?;
    let outside: [SocketAddr; 2] = [stranger.v4(HTTP), stranger.v6(HTTP)];
    for server in outside {
        wait_for_answer(&mesh.a, server, Answer::is_ok)?;
    }
    wait_for_count(&mesh.n1, "PassthroughCluster", "-")?;

    mesh.plane.write("istio.yaml", &mesh_config("REGISTRY_ONLY"))?;
    for server in outside {
        wait_for_answer(&mesh.a, server, Answer::is_refused)?;
        let to_server = |line: &AccessLine| {
            line.is("dst.addr", &server.to_string()) && line.is("reason", "destination_unknown")
        };
        mesh.n1.wait_for_access(to_server)?;
    }
    wait_for_count(&mesh.n1, "BlackHoleCluster", "DENY")?;
    for known in [vip4(10, 80), vip6(10, 80)] {
        wait_for_answer(&mesh.a, known, Answer::is_ok)?;
    }

    mesh.plane.write("entry.yaml", &manifest::service_entry("shop", &stranger, HTTP))?;
    for server in outside {
        wait_for_answer(&mesh.a, server, Answer::is_ok)?;
    }
    mesh.plane.remove("entry.yaml")?;
    for server in outside {
        wait_for_answer(&mesh.a, server, Answer::is_refused)?;
    }
    mesh.plane.remove("istio.yaml")?;
    for server in outside {
        wait_for_answer(&mesh.a, server, Answer::is_ok)?;
    }
    Ok(())
}

#[test]
fn what_the_mesh_configuration_says_counts_before_the_option_of_a_node() -> Result<()> {
    let mut mesh =
        ControlledMesh::with_args("cpoutopt", &["--outbound-policy", "registry-only"], &[])?;
    let stranger = mesh.lab.node(2).add_pod(PodSpec::new("stranger"))?;
    mesh.serve(&stranger, "http_server.py", HTTP)?;
    let outside = stranger.v4(HTTP);
    wait_for_answer(&mesh.a, outside, Answer::is_refused)?;
    mesh.plane.write("istio.yaml", &mesh_config("ALLOW_ANY"))?;
    wait_for_answer(&mesh.a, outside, Answer::is_ok)?;
    mesh.plane.remove("istio.yaml")?;
    wait_for_answer(&mesh.a, outside, Answer::is_refused)?;
    Ok(())
}
