mod authorization;
mod consumers;
mod destinations;
mod gateway_api;
mod reach;
mod route_status;
mod streams;
mod virtual_services;

use crate::{
    fixture::{mesh, routes},
    mesh::Mesh,
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
