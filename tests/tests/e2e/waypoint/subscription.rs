//! A waypoint is told of what is for it.

use std::{
    io::{Read as _, Write as _},
    net::SocketAddr,
};

use anyhow::{Context as _, Result};
use fairlead_lab::{
    Pod, WaypointProxy, manifest,
    mesh::{ControlledMesh, HTTP, file_of, service_of},
    wait_for,
};
use serde_json::Value;

use super::{FELT, WAYPOINT, b};
use crate::{
    clients::{Answer, curl_with},
    mesh::vip4,
    peer::dial,
};

/// Keys of a service of each namespace.
const B: &str = "shop/b.shop.svc.cluster.local";
const T: &str = "tools/t.tools.svc.cluster.local";

/// Labels that bind a service to the waypoint of the other namespace.
const USE_OTHER: &str = "istio.io/use-waypoint: waypoint, istio.io/use-waypoint-namespace: tools";

/// A mesh in which the service `b` of `shop` and the service `t` of `tools` have routes, and each is
/// bound to the waypoint of its namespace.
struct Two {
    shop: WaypointProxy,
    tools: WaypointProxy,
    mesh: ControlledMesh,
}

impl Two {
    fn new(name: &str) -> Result<Self> {
        let mut mesh = ControlledMesh::new(name)?;
        let server = mesh.c.clone();
        mesh.serve(&server, "http_server.py", HTTP)?;
        let pods = [mesh.add_pod(2, "shop", "wp-shop")?, mesh.add_pod(2, "tools", "wp-tools")?];
        for pod in &pods {
            let gateway_name = format!("gateway.networking.k8s.io/gateway-name: {WAYPOINT}");
            let labels = format!("istio.io/dataplane-mode: none, {gateway_name}");
            mesh.plane.write(&file_of(pod), &manifest::pod(pod, &labels))?;
        }
        let routes = [route("shop", "b"), route("tools", "t")];
        mesh.plane.write("routes.yaml", &manifest::join(routes))?;
        let root = deny("istio-system", CLASS, "/secret");
        mesh.plane.write("root.yaml", &root)?;
        let [shop, tools] = &pods;
        let gateways = [
            manifest::waypoint(["shop", WAYPOINT], shop.ipv4().into()),
            open_waypoint("tools", tools),
        ];
        mesh.plane.write("gateways.yaml", &manifest::join(gateways))?;
        bind(&mesh, manifest::USE_WAYPOINT)?;
        let [shop, tools] =
            pods.each_ref().map(|pod| WaypointProxy::start(&mesh.plane, pod, WAYPOINT));
        Ok(Self { shop: shop?, tools: tools?, mesh })
    }

    /// Waits until a service answers a request for a path.
    fn wait_for(
        &self,
        service: SocketAddr,
        path: &str,
        wanted: impl Fn(&Answer) -> bool,
    ) -> Result<()> {
        let mut last = None;
        let found = wait_for("the wanted answer", FELT, || {
            let answer = self.get(service, path)?;
            let found = wanted(&answer).then_some(());
            last = Some(answer);
            Ok(found)
        });
        found.with_context(|| format!("{path} of {service}: the last was {last:?}"))
    }

    fn get(&self, service: SocketAddr, path: &str) -> Result<Answer> {
        // In place of curl's own address of the server.
        let mark = "\n--curl status=%{http_code} remote=%header{x-mark} local_port=0\n";
        curl_with(&self.mesh.a, service, &["-w", mark, "--request-target", path])
    }

    /// Waits until the waypoints of `shop` and of `tools` have routes of these services.
    fn wait_for_routes(&self, shop: &[&str], tools: &[&str]) -> Result<()> {
        let wanted =
            [shop, tools].map(|keys| keys.iter().map(|&key| key.to_owned()).collect::<Vec<_>>());
        let mut last = None;
        let found = wait_for("the routes are where they belong", FELT, || {
            let has = [with_routes(&self.shop)?, with_routes(&self.tools)?];
            let found = (has == wanted).then_some(());
            last = Some(has);
            Ok(found)
        });
        found.with_context(|| format!("the last were {last:?}"))
    }
}

/// What a policy is attached to: all waypoints, that of its namespace, or `b`.
const CLASS: &str = "group: gateway.networking.k8s.io, kind: GatewayClass, name: istio-waypoint";
const GATEWAY: &str = "group: gateway.networking.k8s.io, kind: Gateway, name: waypoint";
const SERVICE: &str = "group: '', kind: Service, name: b";

/// The service `t`.
fn t() -> SocketAddr {
    vip4(30, 80)
}

/// Has `b` use a waypoint as these labels say.
fn bind(mesh: &ControlledMesh, labels: &str) -> Result<()> {
    let services = [
        service_of(["shop", "b"], labels, 10, Some("b")),
        service_of(["shop", "d"], "", 20, Some("d")),
        service_of(["tools", "t"], manifest::USE_WAYPOINT, 30, Some("c")),
    ];
    mesh.plane.write("services.yaml", &manifest::join(services))
}

/// Returns a waypoint that services of other namespaces may use.
fn open_waypoint(namespace: &str, pod: &Pod) -> String {
    let waypoint = manifest::waypoint([namespace, WAYPOINT], pod.ipv4().into());
    waypoint.replace("protocol: HBONE", "protocol: HBONE, allowedRoutes: {namespaces: {from: All}}")
}

/// Returns a route that marks answers of a service with its name.
fn route(namespace: &str, service: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {service}, namespace: {namespace}}}
spec:
  hosts: [{service}]
  http:
  - headers: {{response: {{set: {{x-mark: {service}}}}}}}
    route: [{{destination: {{host: {service}}}}}]
"
    )
}

/// Returns a policy that nobody may ask for a path.
fn deny(namespace: &str, target: &str, path: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: deny{}, namespace: {namespace}}}
spec:
  targetRefs: [{{{target}}}]
  action: DENY
  rules: [{{to: [{{operation: {{paths: [{path}]}}}}]}}]
",
        path.replace('/', "-")
    )
}

/// Returns the keys of the services that a waypoint has routes of, in their order.
fn with_routes(waypoint: &WaypointProxy) -> Result<Vec<String>> {
    let dump = waypoint.config_dump()?;
    let services = dump["services"].as_array().context("no services")?.iter();
    let routed = services.filter(|service| service["routes"].as_u64() > Some(0));
    let mut keys: Vec<_> =
        routed.filter_map(|service| Some(service["service"].as_str()?.to_owned())).collect();
    keys.sort();
    Ok(keys)
}

fn is_forbidden(answer: &Answer) -> bool {
    answer.status == "403"
}

#[test]
fn a_waypoint_has_the_routes_of_its_services_and_every_policy_that_is_for_them() -> Result<()> {
    let two = Two::new("wpown")?;
    two.wait_for_routes(&[B], &[T])?;
    for (service, mark) in [(b(), "b"), (t(), "t")] {
        two.wait_for(service, "/", |answer| answer.is_ok() && answer.remote == mark)?;
        two.wait_for(service, "/secret", is_forbidden)?;
    }
    let clients = two.mesh.plane.clients()?;
    let waypoints =
        clients.as_array().context("no list")?.iter().filter_map(l7).collect::<Vec<_>>();
    assert_eq!(waypoints.len(), 2, "{clients:#}");
    assert!(waypoints.iter().all(|l7| l7["everything"] == false), "{clients:#}");

    // What is for one waypoint does not reach the other.
    two.mesh.plane.write("later.yaml", &deny("tools", GATEWAY, "/later"))?;
    two.wait_for(t(), "/later", is_forbidden)?;
    assert!(two.get(b(), "/later")?.is_ok());
    Ok(())
}

#[test]
fn a_service_that_is_bound_to_another_waypoint_takes_its_routes_there() -> Result<()> {
    let mut two = Two::new("wpmove")?;
    let later = [deny("tools", GATEWAY, "/later"), deny("shop", SERVICE, "/own")];
    two.mesh.plane.write("later.yaml", &manifest::join(later))?;
    two.wait_for_routes(&[B], &[T])?;
    two.wait_for(b(), "/own", is_forbidden)?;
    two.wait_for(b(), "/later", Answer::is_ok)?;

    bind(&two.mesh, USE_OTHER)?;
    two.wait_for_routes(&[], &[B, T])?;
    two.wait_for(b(), "/later", is_forbidden)?;
    two.wait_for(b(), "/", |answer| answer.is_ok() && answer.remote == "b")?;
    for path in ["/secret", "/own"] {
        assert!(is_forbidden(&two.get(b(), path)?), "{path}");
    }

    // It moves back while nobody can tell the waypoints.
    let settings = two.mesh.plane.settings();
    two.mesh.plane.kill()?;
    bind(&two.mesh, manifest::USE_WAYPOINT)?;
    two.mesh.plane = settings.start()?;
    two.wait_for_routes(&[B], &[T])?;
    two.wait_for(b(), "/later", Answer::is_ok)?;
    for path in ["/secret", "/own"] {
        assert!(is_forbidden(&two.get(b(), path)?), "{path}");
    }
    Ok(())
}

#[test]
fn connections_to_a_service_that_is_bound_to_another_waypoint_end_and_none_is_refused() -> Result<()>
{
    let two = Two::new("wpleave")?;
    two.wait_for_routes(&[B], &[T])?;
    two.wait_for(b(), "/", |answer| answer.is_ok() && answer.remote == "b")?;
    let mut kept = dial(&two.mesh.a, b())?;
    kept.write_all(b"GET / HTTP/1.1\r\nhost: b\r\n\r\n")?;
    let mut first = vec![0; b"HTTP/1.1 200".len()];
    kept.read_exact(&mut first)?;
    assert_eq!(first, b"HTTP/1.1 200");

    bind(&two.mesh, USE_OTHER)?;
    // It ends in order, without another request.
    kept.set_read_timeout(Some(FELT))?;
    kept.read_to_end(&mut Vec::new())?;
    two.wait_for_routes(&[], &[B, T])?;
    two.wait_for(b(), "/", |answer| answer.is_ok() && answer.remote == "b")
}

/// Returns how a client stands with what only waypoints are told, if it is one.
fn l7(client: &Value) -> Option<&Value> {
    client["types"].get("type.googleapis.com/fairlead.l7.Resource")
}
