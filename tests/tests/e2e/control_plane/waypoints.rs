//! Services that are bound to a waypoint which is not there (a waypoint itself is no part of this).

use anyhow::Result;
use fairlead_lab::{
    manifest,
    mesh::{ControlledMesh, service_of},
    wait_for,
};

use super::wait_for_answer;
use crate::{
    clients::{Answer, SOON, curl},
    mesh::{HTTP, vip4, vip6},
};

/// Binds the service `b` to a waypoint whose address is `address`.
fn bind(mesh: &ControlledMesh, address: std::net::IpAddr) -> Result<()> {
    let bound = service_of(["shop", "b"], manifest::USE_WAYPOINT, 10, Some("b"));
    let free = service_of(["shop", "d"], "", 20, Some("d"));
    let waypoint = manifest::waypoint(["shop", "waypoint"], address);
    mesh.plane.write("services.yaml", &manifest::join([bound, free, waypoint]))
}

/// Everything but the service that is bound.
fn others_pass(mesh: &ControlledMesh) -> Result<()> {
    for server in [vip4(20, 80), vip6(20, 80), mesh.b.v4(HTTP), mesh.d.v6(HTTP)] {
        assert!(curl(&mesh.a, server)?.is_ok(), "{server}");
    }
    Ok(())
}

#[test]
fn without_its_waypoint_a_service_is_refused_and_others_pass() -> Result<()> {
    let mesh = ControlledMesh::new("cpnowp")?;
    // Nobody has this address.
    bind(&mesh, vip4(99, 0).ip())?;
    for server in [vip4(10, 80), vip6(10, 80)] {
        wait_for_answer(&mesh.a, server, Answer::is_refused)?;
    }
    let line = mesh.n1.wait_for_access(|line| line.is("reason", "waypoint_unavailable"))?;
    assert!(line.is("src.workload", "a"), "{line:?}");
    others_pass(&mesh)
}

#[test]
fn a_waypoint_that_is_unready_or_dead_lets_nothing_pass() -> Result<()> {
    let mesh = ControlledMesh::new("cpdeadwp")?;
    // Known and ready, but nothing listens there: it was killed.
    let waypoint = mesh.add_pod(2, "plain", "w")?;
    bind(&mesh, waypoint.v4(0).ip())?;
    wait_for_answer(&mesh.a, vip4(10, 80), Answer::is_refused)?;
    let line = mesh.n1.wait_for_access(|line| {
        line.is("dst.workload", "w") && line.is("reason", "connect_refused")
    })?;
    assert!(line.is("src.workload", "a"), "{line:?}");
    others_pass(&mesh)?;

    // Gone: nobody has the address any longer.
    mesh.remove_pod(&waypoint)?;
    wait_for("a refusal for want of a waypoint", SOON, || {
        assert!(curl(&mesh.a, vip4(10, 80))?.is_refused());
        let log = mesh.n1.access_log()?;
        Ok(log.iter().any(|line| line.is("reason", "waypoint_unavailable")).then_some(()))
    })?;
    others_pass(&mesh)
}

#[test]
fn traffic_goes_past_an_absent_waypoint_where_that_is_asked_for() -> Result<()> {
    let mut mesh = ControlledMesh::new("cpfallback")?;
    bind(&mesh, vip4(99, 0).ip())?;
    wait_for_answer(&mesh.a, vip4(10, 80), Answer::is_refused)?;
    let successor = mesh.n1.settings().args(["--waypoint-fallback"]).start()?;
    let predecessor = std::mem::replace(&mut mesh.n1, successor);
    assert!(predecessor.ended(SOON)?.success());
    for server in [vip4(10, 80), vip6(10, 80)] {
        assert!(curl(&mesh.a, server)?.is_ok(), "{server}");
    }
    Ok(())
}
