//! What crosses the wire, and whose certificates are shown.

use anyhow::Result;
use fairlead_lab::{Host as _, mesh::ControlledMesh, shown_identity};

use crate::{
    clients::curl,
    mesh::{HTTP, vip4, vip6},
    traffic::SECRET,
};

/// Port of the tunnels.
const HBONE: u16 = 15008;

#[test]
fn pods_of_two_nodes_talk_in_tunnels_only_and_see_each_others_addresses() -> Result<()> {
    let mesh = ControlledMesh::new("cpwire")?;
    let capture = mesh.lab.capture_wire()?;
    for server in [vip4(10, 80), vip6(10, 80), mesh.b.v4(HTTP), mesh.b.v6(HTTP)] {
        let url = format!("http://{server}/{SECRET}");
        let answer = mesh.a.run(["curl", "-sS", "--max-time", "8", url.as_str()])?.checked()?;
        let own = if server.is_ipv4() { mesh.a.v4(0).ip() } else { mesh.a.v6(0).ip() };
        assert!(answer.stdout.contains(&format!("peer={own} ")), "{}", answer.stdout);
        assert!(answer.stdout.contains(SECRET), "{}", answer.stdout);
    }
    assert!(curl(&mesh.c, vip4(20, 80))?.is_ok());
    let wire = capture.finish()?;
    assert_eq!(wire.dropped(), 0);
    assert_eq!(wire.ports_dialled()?.into_keys().collect::<Vec<_>>(), [HBONE]);
    assert!(!wire.contains(SECRET.as_bytes())?, "the request is readable on the wire");
    Ok(())
}

#[test]
fn certificates_name_the_pods_and_are_of_the_control_planes_authority() -> Result<()> {
    let mesh = ControlledMesh::new("cpcerts")?;
    let roots = mesh.plane.root_cert();
    for pod in [&mesh.a, &mesh.b, &mesh.c, &mesh.d] {
        let shown = shown_identity(&mesh.outsider, pod.v4(HBONE), &roots)?;
        assert_eq!(shown, pod.identity());
    }
    Ok(())
}
