//! Pods that move, and services whose endpoints change.

use anyhow::Result;
use fairlead_lab::{
    PodSpec, manifest,
    mesh::{ControlledMesh, SERVICE_PORTS, service_of},
};

use super::wait_for_answer;
use crate::{
    clients::{Answer, curl},
    mesh::{HTTP, vip4, vip6},
};

#[test]
fn traffic_follows_a_pod_that_moves_to_another_node() -> Result<()> {
    let mut mesh = ControlledMesh::new("cpmove")?;
    let (before, services) = (mesh.b.clone(), [vip4(10, 80), vip6(10, 80)]);
    for (service, own) in services.into_iter().zip([before.v4(0).ip(), before.v6(0).ip()]) {
        assert_eq!(curl(&mesh.a, service)?.seen("own"), own.to_string());
    }

    let spec = PodSpec::new("b").namespace("shop").service_account("b");
    let after = mesh.lab.node(1).add_pod(spec)?;
    mesh.serve(&after, "http_server.py", HTTP)?;
    mesh.write_pod(&after)?;
    mesh.n1.enrol(&after)?;
    for (service, own) in services.into_iter().zip([after.v4(0).ip(), after.v6(0).ip()]) {
        let own = own.to_string();
        let moved = |answer: &Answer| answer.is_ok() && answer.seen("own") == own;
        wait_for_answer(&mesh.a, service, moved)?;
        wait_for_answer(&mesh.c, service, moved)?;
    }
    let line = mesh
        .n1
        .wait_for_access(|line| line.is("direction", "inbound") && line.is("dst.workload", "b"))?;
    assert!(line.is("dst.identity", &after.identity()), "{line:?}");

    // The other node may not speak for it any longer: nothing reaches what was left there.
    mesh.n2.release(&before)?;
    before.delete()?;
    assert!(curl(&mesh.a, services[0])?.is_ok());
    Ok(())
}

#[test]
fn a_service_has_the_endpoints_that_its_slice_lists() -> Result<()> {
    let mesh = ControlledMesh::new("cpslice")?;
    let service = service_of(["shop", "e"], "", 30, None);
    let slice = |pod| manifest::endpoint_slice(["shop", "e"], &[pod], &SERVICE_PORTS);
    mesh.plane.write("e.yaml", &manifest::join([service.clone(), slice(&mesh.b)]))?;
    let answered_by = |own: String| move |answer: &Answer| answer.seen("own") == own;
    wait_for_answer(&mesh.a, vip4(30, 80), answered_by(mesh.b.ipv4().to_string()))?;

    mesh.plane.write("e.yaml", &manifest::join([service.clone(), slice(&mesh.d)]))?;
    wait_for_answer(&mesh.a, vip4(30, 80), answered_by(mesh.d.ipv4().to_string()))?;

    mesh.plane.write("e.yaml", &service)?;
    wait_for_answer(&mesh.a, vip4(30, 80), Answer::is_refused)?;
    let line = mesh.n1.wait_for_access(|line| line.is("reason", "no_healthy_endpoint"))?;
    assert!(line.is("src.workload", "a"), "{line:?}");
    // The other services are as they were.
    assert!(curl(&mesh.a, vip4(10, 80))?.is_ok());
    Ok(())
}
