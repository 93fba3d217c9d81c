//! Service entries whose endpoints are known by a host name, behind a waypoint.

use std::{fs, os::unix::fs::PermissionsExt as _};

use anyhow::Result;
use fairlead_lab::{Child, Host as _, WaypointProxy, mesh::vip4, python, resolving, wait_for};

use super::{Bound, FELT, WAYPOINT};
use crate::clients::curl_with;

/// Port of name servers.
const DNS: u16 = 53;

/// A name that stands for the address of `b`, as the name server of the lab has it.
const NAME: &str = "at-10-2-0-2.example";

/// A service entry of that name, with these labels.
fn entry(labels: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: named, namespace: shop, labels: {{{labels}}}}}
spec:
  hosts: [{NAME}]
  addresses: [10.96.0.50]
  ports: [{{number: 80, targetPort: 8080, name: http, protocol: HTTP}}]
  resolution: DNS
"
    )
}

/// Starts a mesh of which the waypoint asks the outsider for names.
fn with_name_server(name: &str) -> Result<(Bound, Child)> {
    let Bound { waypoint, second, server, mesh } = Bound::new(name)?;
    let names = mesh.outsider.serve(python("name_server.py", &[DNS.to_string()]), DNS)?;
    let pod = waypoint.pod().clone();
    let program = WaypointProxy::program().to_string_lossy().into_owned();
    let command = resolving(&pod, mesh.outsider.ipv4().into(), [program])?;
    let quoted: Vec<_> = command.iter().map(|word| format!("'{word}'")).collect();
    let script = pod.lab_dir().join("waypoint.sh");
    fs::write(&script, format!("#!/bin/sh\nexec {} \"$@\"\n", quoted.join(" ")))?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    // Both would listen on the same ports.
    waypoint.stop()?;
    let waypoint = WaypointProxy::start_program(&script, &mesh.plane, &pod, WAYPOINT, &[])?;
    assert_eq!(mesh.b.ipv4().to_string(), "10.2.0.2", "of the lab");
    Ok((Bound { waypoint, second, server, mesh }, names))
}

#[test]
fn requests_to_a_name_pass_the_waypoint_that_looks_its_address_up() -> Result<()> {
    let (bound, server) = with_name_server("wpname")?;
    assert!(!server.stdout()?.contains(NAME), "nobody has asked for it yet");
    bound.mesh.plane.write("named.yaml", &entry("istio.io/use-waypoint: waypoint"))?;
    let named = [("destination_service", NAME), ("response_code", "200")];
    wait_for("requests pass the waypoint", FELT, || {
        let answer = curl_with(&bound.mesh.a, vip4(50, 80), &[])?;
        let passed = bound.waypoint.metrics()?.sum("istio_requests_total", &named) > 0.0;
        Ok((passed && answer.seen("own") == bound.mesh.b.ipv4().to_string()).then_some(()))
    })?;
    // It does so anew, so that it notices another address.
    let own = format!("from {}", bound.waypoint.pod().ipv4());
    let asked = || {
        let said = server.stdout()?;
        let lines = said.lines().filter(|line| line.contains(NAME) && line.contains(&own));
        Ok::<_, anyhow::Error>(lines.filter(|line| line.contains(" A ")).count())
    };
    wait_for("the name is looked up again", FELT, || Ok((asked()? > 1).then_some(())))
}

#[test]
fn a_route_leads_to_a_name_that_is_behind_no_waypoint() -> Result<()> {
    let (bound, _server) = with_name_server("wprouted")?;
    bound.mesh.plane.write("named.yaml", &entry(""))?;
    bound.write(&format!(
        "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: b, namespace: shop}}
spec:
  hosts: [b]
  http:
  - match: [{{uri: {{prefix: /outside}}}}]
    route: [{{destination: {{host: {NAME}}}}}]
    headers: {{response: {{set: {{x-mark: routed}}}}}}
  - route: [{{destination: {{host: b}}}}]
"
    ))?;
    // In place of curl's own address of the server.
    let marked = "\n--curl status=%{http_code} remote=%header{x-mark} local_port=0\n";
    let options = ["--request-target", "/outside", "-w", marked];
    let answer = bound.wait_for(&options, |answer| answer.remote == "routed" && answer.is_ok())?;
    assert_eq!(answer.seen("own"), bound.mesh.b.ipv4().to_string());
    Ok(())
}
