//! A waypoint that nobody has declared, for documents that know of none.

use anyhow::Result;
use fairlead_lab::{
    WaypointProxy, manifest,
    mesh::{ControlledMesh, file_of, service_of},
    wait_for,
};

use super::{FELT, b};
use crate::clients::curl_with;

/// Name of waypoints that are provided.
const PROVIDED: &str = "auto-waypoint";

/// A virtual service as documents for sidecars have it.
const ROUTE: &str = "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: b, namespace: shop}
spec:
  hosts: [b]
  http:
  - match: [{headers: {end-user: {exact: jason}}}]
    fault: {abort: {percentage: {value: 100}, httpStatus: 555}}
    route: [{destination: {host: b}}]
  - route: [{destination: {host: b}}]
";

#[test]
fn a_namespace_with_routes_has_the_waypoint_that_is_there_without_declaring_it() -> Result<()> {
    let mesh = ControlledMesh::new("wpauto")?;
    let opted_in = format!("{}, istio-injection: enabled", manifest::AMBIENT);
    let namespaces = ["shop", "tools"].map(|name| manifest::namespace(name, &opted_in));
    mesh.plane.write("namespaces.yaml", &manifest::join(namespaces))?;
    let service = service_of(["shop", "b"], "", 10, Some("b"));
    mesh.plane.write("services.yaml", &service)?;
    let pod = mesh.add_pod(2, "shop", PROVIDED)?;
    let labels = format!(
        "istio.io/dataplane-mode: none, gateway.networking.k8s.io/gateway-name: {PROVIDED}"
    );
    mesh.plane.write(&file_of(&pod), &manifest::pod(&pod, &labels))?;
    let waypoint = WaypointProxy::start(&mesh.plane, &pod, PROVIDED)?;
    let wait_for_status = |status: &str| {
        wait_for(&format!("status {status}"), FELT, || {
            let answer = curl_with(&mesh.a, b(), &["-H", "end-user: jason"])?;
            Ok((answer.status == status).then_some(()))
        })
        .map_err(|error| error.context(waypoint.log().unwrap_or_default()))
    };
    wait_for_status("200")?;
    assert!(waypoint.metrics()?.sum("istio_requests_total", &[]).abs() < f64::EPSILON);
    mesh.plane.write("l7.yaml", ROUTE)?;
    wait_for_status("555")?;
    mesh.plane.remove("l7.yaml")?;
    wait_for_status("200")
}
