mod audience;
mod authorization;
mod consumers;
mod credentials;
mod destinations;
mod gateway_api;
mod reach;
mod route_status;
mod settings;
mod streams;
mod virtual_services;
mod warnings;

use crate::{
    fixture::{applied, mesh, objects, routes},
    mesh::{Event, Mesh},
    resource::{Kind, Urgency},
};

/// A namespace with a waypoint, for all services of which it is, and two of them.
const SHOP: &str = "---
{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {istio.io/use-waypoint: w}}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: w, namespace: shop}, \
 spec: {gatewayClassName: istio-waypoint}}
---
{apiVersion: v1, kind: Service, metadata: {name: cart, namespace: shop}, spec: {clusterIP: \
 10.96.0.1, ports: [{port: 80, name: http}, {port: 9000, name: tcp}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: till, namespace: shop}, spec: {clusterIP: \
 10.96.0.2, ports: [{port: 8080, name: http}]}}
";

/// A virtual service of the namespace `shop`.
fn virtual_service(name: &str, spec: &str) -> String {
    format!(
        "---\n{{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {{name: {name}, \
         namespace: shop}}, spec: {{{spec}}}}}\n"
    )
}

/// A destination rule of a namespace.
fn destination_rule(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "---\n{{apiVersion: networking.istio.io/v1beta1, kind: DestinationRule, metadata: {{name: \
         {name}, namespace: {namespace}}}, spec: {{{spec}}}}}\n"
    )
}

fn shop(more: &str) -> Mesh {
    mesh(&format!("{SHOP}{more}"))
}

/// Routes as text, each with its id, ports and what it does.
fn told(more: &str) -> Vec<String> {
    let short = |route: mesh_api::proto::l7::Route| {
        let id = route.id.replace("virtualservice/shop/", "");
        format!("{id} {:?} {}", route.ports, route.name)
    };
    routes(&shop(more)).into_iter().map(short).collect()
}

#[test]
fn what_says_how_requests_are_routed_waits_little_for_others_and_its_end_not_at_all() {
    let mut mesh = shop("");
    let said =
        virtual_service("v", "hosts: [cart], http: [{route: [{destination: {host: cart}}]}]")
            + &destination_rule(
                "shop",
                "d",
                "host: cart, subsets: [{name: v1, labels: {version: v1}}]",
            );
    let mut urgency_of = |events: Vec<Event>| {
        let changes = mesh.apply(events).into_iter().filter(|change| change.kind == Kind::L7);
        let mut urgencies: Vec<_> = changes.map(|change| change.urgency).collect();
        urgencies.dedup();
        urgencies
    };
    assert_eq!(urgency_of(applied(&said)), [Urgency::Prompt]);
    let changed = said.replace("v1", "v2").replace("http: [{", "http: [{name: other, ");
    assert_eq!(urgency_of(applied(&changed)), [Urgency::Prompt]);
    let gone = objects(&said).iter().map(|object| Event::Deleted(object.key())).collect();
    assert_eq!(urgency_of(gone), [Urgency::Immediate]);
}
