//! Routes for connections.

use mesh_api::proto::l7::{Route, route::Traffic};

use super::{shop, virtual_service};
use crate::fixture::routes;

/// A route of the namespace `shop`, attached to the port 9000 of `cart`.
fn route(kind: &str, backends: &str) -> String {
    format!(
        "---\n{{apiVersion: gateway.networking.k8s.io/v1alpha2, kind: {kind}, metadata: {{name: r, \
         namespace: shop}}, spec: {{parentRefs: [{{group: '', kind: Service, name: cart, port: \
         9000}}], rules: [{{backendRefs: [{backends}]}}]}}}}\n"
    )
}

/// Port or refusal, and share, of each destination.
fn told(route: &Route) -> Vec<(u32, u32)> {
    let Some(Traffic::Tcp(tcp)) = &route.traffic else { panic!("{route:?}") };
    tcp.destinations.iter().map(|to| (to.port.max(to.refusal), to.weight)).collect()
}

#[test]
fn connections_are_shared_out_and_backends_that_cannot_be_meant_refuse_their_share() {
    for kind in ["TCPRoute", "TLSRoute"] {
        let backends = "{name: cart, port: 9000, weight: 3}, {name: till, port: 1}, {name: till, \
                        port: 8080}";
        let found = routes(&shop(&route(kind, backends)));
        let [route] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(route.ports, [9000]);
        assert_eq!(told(route), [(9000, 3), (500, 1), (8080, 1)], "{kind}");
    }
}

#[test]
fn routes_for_tls_come_before_those_for_tcp_and_before_virtual_services() {
    let backends = "{name: till, port: 8080}";
    let spec = "hosts: [cart], tcp: [{route: [{destination: {host: cart, port: {number: 80}}}]}]";
    let all =
        route("TCPRoute", backends) + &route("TLSRoute", backends) + &virtual_service("v", spec);
    let ids: Vec<_> = routes(&shop(&all)).into_iter().map(|route| route.id).collect();
    let expected = ["tlsroute/shop/r/0/0", "tcproute/shop/r/0/0", "virtualservice/shop/v/tcp/0/0"];
    assert_eq!(ids, expected);
}

#[test]
fn requests_are_not_refused_because_of_a_route_for_connections() {
    let config = "---
{apiVersion: v1, kind: ConfigMap, metadata: {name: istio, namespace: istio-system}, data: {mesh: \
 'defaultHttpRetryPolicy: {attempts: 7}'}}
";
    let tcp = route("TCPRoute", "{name: till, port: 8080}");
    let found = routes(&shop(&(tcp + config)));
    let cart = found.iter().filter(|route| {
        route.service.as_ref().is_some_and(|service| service.hostname.starts_with("cart"))
    });
    let names: Vec<_> = cart.map(|route| route.name.as_str()).collect();
    assert_eq!(names, ["shop.r.0", "default"]);
}
