//! Pods that take connections from their waypoint only.

use anyhow::Result;
use fairlead_lab::{
    manifest,
    mesh::{HTTP, service_of},
    wait_for,
};

use super::{Bound, FELT, WAYPOINT};
use crate::clients::{Answer, curl};

/// Writes the services of the mesh, with the waypoint's demand to be passed.
fn demand(bound: &Bound, demand: &str) -> Result<()> {
    annotate(bound, &format!("fairlead.io/require-waypoint: \"{demand}\""))
}

/// Writes the services of the mesh, with annotations of the waypoint's gateway.
fn annotate(bound: &Bound, annotations: &str) -> Result<()> {
    let annotated = format!("annotations: {{{annotations}}}, name: ");
    let gateway = manifest::waypoint(["shop", WAYPOINT], bound.waypoint.pod().v4(0).ip())
        .replacen("name: ", &annotated, 1);
    let services = [
        service_of(["shop", "b"], manifest::USE_WAYPOINT, 10, Some("b")),
        service_of(["shop", "d"], "", 20, Some("d")),
        gateway,
    ];
    bound.mesh.plane.write("services.yaml", &manifest::join(services))
}

#[test]
fn pods_refuse_what_goes_past_a_waypoint_that_has_to_be_passed() -> Result<()> {
    let bound = Bound::new("wprequired")?;
    let direct = [bound.mesh.b.v4(HTTP), bound.mesh.b.v6(HTTP)];
    for server in direct {
        assert!(curl(&bound.mesh.a, server)?.is_ok());
    }
    demand(&bound, "true")?;
    for server in direct {
        wait_for("a refusal", FELT, || {
            Ok(curl(&bound.mesh.a, server)?.is_refused().then_some(()))
        })?;
    }
    // Not even from outside the mesh, which proves no identity.
    assert!(curl(&bound.mesh.outsider, direct[0])?.is_refused());
    let line = bound.mesh.n2.wait_for_access(|line| line.is("reason", "waypoint_required"))?;
    assert!(line.is("policy", "shop/only_through_waypoint"), "{line:?}");
    let explained = "went past the waypoint";
    let line = bound.mesh.n1.wait_for_access(|line| {
        line.is("src.workload", "a") && line.get("error").is_some_and(|e| e.contains(explained))
    })?;
    assert!(line.is("reason", "refused_by_peer"), "{line:?}");
    // The way through the waypoint is open all along, and so are pods that have none.
    assert!(bound.get(&[])?.is_ok());
    assert!(curl(&bound.mesh.a, bound.mesh.d.v4(HTTP))?.is_ok());
    demand(&bound, "false")?;
    wait_for("an answer", FELT, || Ok(curl(&bound.mesh.a, direct[0])?.is_ok().then_some(())))?;
    Ok(())
}

#[test]
fn a_waypoint_that_has_to_be_passed_runs_as_the_account_that_its_gateway_declares() -> Result<()> {
    let bound = Bound::in_pod("wpaccount", "keeper", &[])?;
    // It is not known to be the waypoint by the labels of its pod.
    demand(&bound, "true")?;
    bound.wait_for(&[], |answer| answer.status == "503")?;
    let declared =
        "fairlead.io/require-waypoint: \"true\", gateway.istio.io/service-account: keeper";
    annotate(&bound, declared)?;
    bound.wait_for(&[], Answer::is_ok)?;
    assert!(curl(&bound.mesh.a, bound.mesh.b.v4(HTTP))?.is_refused());
    Ok(())
}
