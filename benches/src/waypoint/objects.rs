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

/// Routes that are declared by one virtual service: Kubernetes takes no larger objects, and
/// `fairlead-control` none with more than 4,096.
const MOST_IN_ONE: u32 = 1_000;

/// Rules of an object of the Gateway API; it allows no more.
const RULES: u32 = 16;

/// Returns `count` routes, of which the last one marks its answers: a file for each object, the one with
/// the last route at the end.
pub(super) fn routes(count: u32, mark: &str) -> Vec<(String, String)> {
    if count > MOST_IN_ONE {
        return http_routes(count, mark);
    }
    vec![("routes.yaml".to_owned(), virtual_service(count, mark))]
}

/// Returns them as objects of the Gateway API, which are for one port of the service: that of HTTP/1.1.
fn http_routes(count: u32, mark: &str) -> Vec<(String, String)> {
    let port = Kind::Http1.port();
    let first = (0..count).step_by(RULES as usize);
    let objects = first.map(|first| {
        let mut object = format!(
            "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: routes-{first}, namespace: {NAMESPACE}}}
spec:
  parentRefs: [{{group: '', kind: Service, name: server, port: {port}}}]
  rules:
"
        );
        for route in first..count.min(first + RULES) {
            let _ = write!(
                object,
                "  - matches: [{{path: {{type: PathPrefix, value: /route-{route}}}}}]
    backendRefs: [{{name: server, port: {port}}}]
"
            );
            if route + 1 == count {
                let header = format!("{{name: x-mark, value: {mark}}}");
                let modifier = format!("responseHeaderModifier: {{set: [{header}]}}");
                let kind = "type: ResponseHeaderModifier";
                let _ = writeln!(object, "    filters: [{{{kind}, {modifier}}}]");
            }
        }
        (format!("routes-{first}.yaml"), object)
    });
    objects.collect()
}

fn virtual_service(count: u32, mark: &str) -> String {
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
