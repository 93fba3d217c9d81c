//! What happens between the mesh and those outside it.

use anyhow::Result;
use fairlead_lab::{PeerAuthentication, PeerMode, PodSpec, WorkloadEntry};

use super::refusal;
use crate::{
    clients::curl,
    mesh::{ECHO, HTTP, Mesh, service, vip4},
};

#[test]
fn a_pod_outside_the_mesh_passes_in_permissive_mode_and_is_refused_in_strict_mode() -> Result<()> {
    let mut mesh = Mesh::new("strict")?;
    let servers = [mesh.b.v4(HTTP), mesh.b.v6(HTTP), mesh.d.v4(HTTP), mesh.d.v6(HTTP)];
    for server in servers {
        let answer = curl(&mesh.outsider, server)?;
        assert!(answer.is_ok(), "{server}: {answer:?}");
        let own = if server.is_ipv4() { mesh.outsider.v4(0) } else { mesh.outsider.v6(0) };
        assert_eq!(answer.seen("peer"), own.ip().to_string());
    }
    make_strict(&mut mesh)?;
    for server in servers {
        let answer = curl(&mesh.outsider, server)?;
        assert!(answer.is_refused(), "{server}: {answer:?}");
        assert!(curl(&mesh.a, server)?.is_ok(), "{server}");
    }
    for (node, pod) in [(&mesh.n2, "b"), (&mesh.n1, "d")] {
        let line = refusal(node, "outsider", pod)?;
        assert!(line.is("reason", "denied_by_policy"), "{line:?}");
        assert!(line.get("policy").is_some(), "{line:?}");
        assert_eq!(line.get("src.identity"), None, "{line:?}");
    }
    Ok(())
}

#[test]
fn strict_mode_refuses_plaintext_from_wherever_it_comes() -> Result<()> {
    let mut mesh = Mesh::new("everyone")?;
    let neighbour = mesh.lab.node(2).add_pod(PodSpec::new("neighbour"))?;
    make_strict(&mut mesh)?;
    for server in [mesh.b.v4(HTTP), mesh.b.v6(HTTP), mesh.d.v4(HTTP), mesh.d.v6(HTTP)] {
        for pod in [&mesh.outsider, &neighbour] {
            let answer = curl(pod, server)?;
            assert!(answer.is_refused(), "{} to {server}: {answer:?}", pod.name());
        }
        for node in mesh.lab.nodes() {
            let answer = curl(node, server)?;
            assert!(answer.is_refused(), "node {} to {server}: {answer:?}", node.name());
        }
    }
    Ok(())
}

#[test]
fn single_ports_may_be_stricter_or_laxer_than_their_workload() -> Result<()> {
    let mut mesh = Mesh::new("perport")?;
    for pod in [mesh.b.clone(), mesh.d.clone()] {
        mesh.serve(&pod, "http_server.py", ECHO)?;
    }
    let strict_but_one = PeerAuthentication::of_pod(&mesh.b, PeerMode::Strict);
    let lax_but_one = PeerAuthentication::of_pod(&mesh.d, PeerMode::Permissive);
    mesh.config.peer_authentications = vec![
        strict_but_one.port(ECHO, PeerMode::Permissive),
        lax_but_one.port(ECHO, PeerMode::Strict),
    ];
    mesh.apply()?;
    assert!(curl(&mesh.outsider, mesh.b.v4(HTTP))?.is_refused());
    assert!(curl(&mesh.outsider, mesh.b.v4(ECHO))?.is_ok());
    assert!(curl(&mesh.outsider, mesh.d.v4(HTTP))?.is_ok());
    assert!(curl(&mesh.outsider, mesh.d.v4(ECHO))?.is_refused());
    for server in [vip4(10, 80), vip4(10, ECHO), vip4(20, 80), vip4(20, ECHO)] {
        assert!(curl(&mesh.a, server)?.is_ok(), "{server}");
    }
    Ok(())
}

#[test]
fn enrolled_pods_reach_pods_outside_the_mesh_in_plaintext() -> Result<()> {
    let mut mesh = Mesh::new("outward")?;
    let far = mesh.lab.node(2).add_pod(PodSpec::new("far"))?;
    mesh.serve(&far, "http_server.py", HTTP)?;
    mesh.config.workloads.push(WorkloadEntry::of(&far).plaintext());
    mesh.config.add_service(service("far", 40), [&far]);
    make_strict(&mut mesh)?;

    let capture = mesh.lab.capture_wire()?;
    for server in [far.v4(HTTP), far.v6(HTTP), vip4(40, 80)] {
        let answer = curl(&mesh.a, server)?;
        assert!(answer.is_ok(), "{server}: {answer:?}");
        assert_eq!(answer.seen("peer"), mesh.a_address(server).to_string());
        assert_eq!(answer.remote, server.ip().to_string());
    }
    let wire = capture.finish()?;
    assert_eq!(wire.ports_dialled()?.keys().collect::<Vec<_>>(), [&HTTP]);
    assert!(curl(&mesh.a, mesh.outsider.v4(HTTP))?.is_ok());
    Ok(())
}

fn make_strict(mesh: &mut Mesh) -> Result<()> {
    let strict = PeerAuthentication::of_namespace("shop", PeerMode::Strict);
    mesh.config.peer_authentications.push(strict);
    mesh.apply()
}
