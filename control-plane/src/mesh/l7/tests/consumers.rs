//! Routes of those who own neither the service nor its waypoint.

use mesh_api::proto::l7::{Forward, HttpRoute, Route, http_route::Action, route::Traffic};

use super::shop;
use crate::{
    fixture::{object, routes},
    mesh::{Event, Mesh},
};

/// A service of the namespace `bank`.
const VAULT: &str = "---
{apiVersion: v1, kind: Service, metadata: {name: vault, namespace: bank}, spec: {ports: [{port: 1}]}}
";

const GRANT: &str = "---
{apiVersion: gateway.networking.k8s.io/v1beta1, kind: ReferenceGrant, metadata: {name: g, namespace: \
 shop}, spec: {from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: bank}], to: \
 [{group: '', kind: Service, name: till}]}}
";

/// A route of the namespace `bank` for `cart` with some backends.
fn route(backends: &str) -> String {
    format!(
        "---\n{{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {{name: r, \
         namespace: bank}}, spec: {{parentRefs: [{{group: '', kind: Service, name: cart, namespace: \
         shop}}], rules: [{{backendRefs: [{backends}]}}]}}}}\n"
    )
}

fn forward(route: &Route) -> Forward {
    match route.traffic.clone() {
        Some(Traffic::Http(HttpRoute { action: Some(Action::Forward(forward)), .. })) => forward,
        other => panic!("{other:?}"),
    }
}

/// Ports that the only route sends to, or the status that it refuses with.
fn told(mesh: &Mesh) -> Vec<u32> {
    let destinations = forward(&routes(mesh)[0]).destinations.into_iter();
    destinations.map(|to| to.port.max(to.refusal)).collect()
}

#[test]
fn a_route_of_another_namespace_is_for_its_clients_only() {
    let found = routes(&shop(&route("{name: cart, namespace: shop, port: 80}")));
    let [route] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(route.client_namespace, "bank");
    assert_eq!(route.service.as_ref().unwrap().namespace, "shop");
}

#[test]
fn what_is_said_of_retries_holds_for_those_without_a_route_of_their_own() {
    let config = "---
{apiVersion: v1, kind: ConfigMap, metadata: {name: istio, namespace: istio-system}, data: {mesh: \
 'defaultHttpRetryPolicy: {attempts: 7}'}}
";
    let found = routes(&shop(&(route("{name: cart, namespace: shop, port: 80}") + config)));
    let clients = found.iter().map(|route| (route.name.as_str(), route.client_namespace.as_str()));
    let clients: Vec<_> = clients.filter(|(name, _)| !name.starts_with("till")).collect();
    assert!(clients.contains(&("default", "")) && clients.contains(&("bank.r.0", "bank")));
}

#[test]
fn a_route_of_another_namespace_reaches_what_its_clients_asked_for_and_its_own() {
    let backends = "{name: cart, namespace: shop, port: 80}, {name: vault, port: 1}, {name: till, \
                    namespace: shop, port: 8080}, {group: networking.istio.io, kind: Hostname, \
                    name: till.shop.svc.cluster.local, port: 8080}";
    let mut mesh = shop(&(VAULT.to_owned() + &route(backends)));
    assert_eq!(told(&mesh), [80, 1, 500, 500]);
    mesh.apply(vec![Event::Applied(object(GRANT))]);
    assert_eq!(told(&mesh), [80, 1, 8080, 500], "the grant is for services");
    mesh.apply(vec![Event::Deleted(object(GRANT).key())]);
    assert_eq!(told(&mesh), [80, 1, 500, 500]);
    for other in ["kind: GRPCRoute", "namespace: tools", "name: cart"] {
        let key = other.split_once(' ').unwrap().0;
        let own = ["kind: HTTPRoute", "namespace: bank", "name: till"];
        let own = own.iter().find(|field| field.starts_with(key)).unwrap();
        let told = told(&shop(&(VAULT.to_owned() + &route(backends) + &GRANT.replace(own, other))));
        assert_eq!(told, [80, 1, 500, 500], "{other}");
    }
}

#[test]
fn a_route_of_another_namespace_gets_no_copies_that_it_may_not_send() {
    let mirror = |name: &str, namespace: &str, port: u32| {
        let to = format!("{{name: {name}, namespace: {namespace}, port: {port}}}");
        let filter = format!("{{type: RequestMirror, requestMirror: {{backendRef: {to}}}}}");
        let rule = format!("{{filters: [{filter}], backendRefs:");
        let yaml = route("{name: vault, port: 1}").replace("{backendRefs:", &rule);
        forward(&routes(&shop(&(VAULT.to_owned() + &yaml)))[0]).mirrors.len()
    };
    assert_eq!(mirror("till", "shop", 8080), 0);
    assert_eq!(mirror("vault", "bank", 1), 1);
}

#[test]
fn who_owns_the_service_or_its_waypoint_needs_no_permission() {
    let backends = "{name: vault, namespace: bank, port: 1}";
    let own = route(backends).replace("namespace: bank}, spec", "namespace: shop}, spec");
    let mesh = shop(&(VAULT.to_owned() + &own));
    assert_eq!(told(&mesh), [1]);
    assert_eq!(routes(&mesh)[0].client_namespace, "");
}
