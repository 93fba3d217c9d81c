//! Services behind a waypoint: what applications send passes it, and what it is told is done.

use std::net::SocketAddr;

use anyhow::Result;
use fairlead_lab::{
    Host, WaypointProxy, manifest,
    mesh::{ControlledMesh, service_of},
    wait_for,
};

use crate::{
    clients::{Answer, SOON, curl_with},
    mesh::vip4,
};

/// A mesh in which the service `b` is bound to a waypoint.
struct Bound {
    waypoint: WaypointProxy,
    mesh: ControlledMesh,
}

impl Bound {
    fn new(name: &str) -> Result<Self> {
        let mesh = ControlledMesh::new(name)?;
        let pod = mesh.add_pod(2, "shop", "waypoint")?;
        mesh.plane.write(
            &fairlead_lab::mesh::file_of(&pod),
            &manifest::pod(
                &pod,
                "istio.io/dataplane-mode: none, gateway.networking.k8s.io/gateway-name: waypoint",
            ),
        )?;
        let waypoint = WaypointProxy::start(&mesh.plane, &pod, "waypoint")?;
        let bound = service_of(["shop", "b"], manifest::USE_WAYPOINT, 10, Some("b"));
        let free = service_of(["shop", "d"], "", 20, Some("d"));
        let gateway = manifest::waypoint(["shop", "waypoint"], pod.v4(0).ip());
        mesh.plane.write("services.yaml", &manifest::join([bound, free, gateway]))?;
        let bound = Self { waypoint, mesh };
        bound.wait_for(&[], |answer| answer.is_ok() && bound.passed().unwrap_or_default() > 0.0)?;
        Ok(bound)
    }

    /// Returns how many requests have passed the waypoint.
    fn passed(&self) -> Result<f64> {
        Ok(self.waypoint.metrics()?.sum("istio_requests_total", &[]))
    }

    /// Gets a page of `b` as `a` does.
    fn get(&self, options: &[&str]) -> Result<Answer> {
        curl_with(&self.mesh.a, b(), options)
    }

    fn wait_for(&self, options: &[&str], wanted: impl Fn(&Answer) -> bool) -> Result<Answer> {
        let mut last = None;
        let found = wait_for("the wanted answer", SOON, || {
            let answer = self.get(options)?;
            let found = wanted(&answer).then(|| answer.clone());
            last = Some(answer);
            Ok(found)
        });
        found.map_err(|error| {
            error.context(format!(
                "the last was {last:?}\n{}",
                self.waypoint.log().unwrap_or_default()
            ))
        })
    }
}

fn b() -> SocketAddr {
    vip4(10, 80)
}

#[test]
fn requests_to_a_bound_service_pass_its_waypoint_and_are_counted_there() -> Result<()> {
    let bound = Bound::new("wppass")?;
    let before = bound.passed()?;
    for _ in 0..5 {
        assert!(bound.get(&[])?.is_ok());
    }
    let metrics = bound.waypoint.metrics()?;
    let labels = [
        ("reporter", "waypoint"),
        ("source_workload", "a"),
        ("destination_service", "b.shop.svc.cluster.local"),
        ("destination_workload", "b"),
        ("response_code", "200"),
        ("response_flags", "-"),
        ("connection_security_policy", "mutual_tls"),
        ("request_protocol", "http"),
    ];
    assert!(metrics.sum("istio_requests_total", &labels) >= before + 5.0, "{metrics:?}");
    Ok(())
}
