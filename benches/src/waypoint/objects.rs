//! The mesh of the measurements, as the control plane reads it.

use std::{fmt::Write as _, net::IpAddr};

use fairlead_lab::manifest;

use super::kind::Kind;

/// Namespace of everything.
pub(super) const NAMESPACE: &str = "shop";

/// Name of the waypoint.
pub(super) const WAYPOINT: &str = "waypoint";

/// Address of the service.
pub(super) const SERVICE: [u8; 4] = [10, 96, 0, 30];

/// Returns the service with a port for each of `kinds`, and the waypoint that it is bound to.
pub(super) fn service(kinds: &[Kind], waypoint: IpAddr) -> String {
    let label = manifest::USE_WAYPOINT;
    let address = IpAddr::from(SERVICE);
    let mut service = format!(
        "apiVersion: v1
kind: Service
metadata: {{name: server, namespace: {NAMESPACE}, labels: {{{label}}}}}
spec:
  selector: {{app: server}}
  clusterIP: {address}
  ports:
"
    );
    for kind in kinds {
        let (name, port, target) = (kind.name(), kind.port(), kind.server_port());
        // Writing to a string never fails.
        let _ = writeln!(service, "  - {{name: {name}, port: {port}, targetPort: {target}}}");
    }
    manifest::join([
        manifest::namespace(NAMESPACE, ""),
        manifest::waypoint([NAMESPACE, WAYPOINT], waypoint),
        service,
    ])
}

/// Returns `count` routes, of which the last one marks its answers.
pub(super) fn routes(count: u32, mark: &str) -> String {
    let mut routes = format!(
        "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: server, namespace: {NAMESPACE}}}
spec:
  hosts: [server]
  http:
"
    );
    for route in 0..count {
        let _ = write!(
            routes,
            "  - match: [{{uri: {{prefix: /route-{route}/}}}}]
    route: [{{destination: {{host: server}}}}]
"
        );
    }
    let _ = writeln!(routes, "    headers: {{response: {{set: {{x-mark: {mark}}}}}}}");
    routes
}
