//! Which waypoints are told.

use std::{collections::BTreeMap, fmt::Write as _};

use mesh_api::xds_client::EVERY_WAYPOINT;

use super::{SHOP, destination_rule, shop, virtual_service};
use crate::{
    fixture::{applied, mesh},
    mesh::Mesh,
    resource::{Kind, Resource},
};

fn l7(mesh: &Mesh) -> impl Iterator<Item = &Resource> {
    mesh.resources().map(|resource| &**resource).filter(|resource| resource.kind == Kind::L7)
}

/// Returns whom each resource is for; `*` for all waypoints.
fn audiences(mesh: &Mesh) -> BTreeMap<String, String> {
    let short = |name: &str| if name == EVERY_WAYPOINT { "*".to_owned() } else { name.to_owned() };
    let of = |resource: &Resource| {
        let names: Vec<_> = resource.aliases.iter().map(|alias| short(alias)).collect();
        (resource.name.to_string(), names.join(" "))
    };
    l7(mesh).map(of).collect()
}

/// Returns how many resources a waypoint asks for by some names, and their size in bytes.
fn share(mesh: &Mesh, names: &[&str]) -> (usize, usize) {
    size(l7(mesh).filter(|resource| resource.aliases.iter().any(|a| names.contains(&&**a))))
}

fn size<'a>(resources: impl Iterator<Item = &'a Resource>) -> (usize, usize) {
    let bytes = resources.map(|resource| resource.name.as_str().len() + resource.body.len());
    bytes.fold((0, 0), |(count, sum), bytes| (count + 1, sum + bytes))
}

fn policy(namespace: &str, spec: &str) -> String {
    format!(
        "---\n{{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {{name: p, \
         namespace: {namespace}}}, spec: {{{spec}}}}}\n"
    )
}

#[test]
fn a_policy_of_a_gateway_is_for_it_and_any_other_for_every_waypoint() {
    let gateway = "{group: gateway.networking.k8s.io, kind: Gateway, name: w}";
    let class = "{group: gateway.networking.k8s.io, kind: GatewayClass, name: istio-waypoint}";
    let service = "{group: '', kind: Service, name: cart}";
    let entry = "{group: networking.istio.io, kind: ServiceEntry, name: e}";
    for (namespace, targets, expected) in [
        ("shop", vec![gateway], "shop/w"),
        ("bank", vec![gateway], "bank/w"),
        ("istio-system", vec![class], "*"),
        ("shop", vec![service], "*"),
        ("bank", vec![service], "*"),
        ("shop", vec![entry], "*"),
        ("shop", vec![gateway, gateway], "shop/w"),
        ("shop", vec![gateway, service], "* shop/w"),
    ] {
        let entry = "---
{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: e, namespace: shop}, spec: \
 {hosts: [a.b], resolution: DNS}}
";
        let policy = policy(namespace, &format!("targetRefs: [{}]", targets.join(", ")));
        let told = audiences(&shop(&(policy + entry)));
        let told = told.get(&format!("authorization/{namespace}/p")).map(String::as_str);
        assert_eq!(told, Some(expected), "{targets:?} in {namespace}");
    }
}

#[test]
fn labels_are_for_every_waypoint() {
    let pod = crate::fixture::pod("a", "10.0.0.1", "app: cart");
    let told = audiences(&shop(&pod));
    assert_eq!(told["labels/Kubernetes//Pod/shop/a"], "*");
}

#[test]
fn what_is_said_of_a_service_moves_with_it_to_another_waypoint() {
    let other = "---
{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: other, namespace: shop}, \
 spec: {gatewayClassName: istio-waypoint}}
";
    let route =
        virtual_service("v", "hosts: [cart], http: [{route: [{destination: {host: till}}]}]");
    let of_cart = destination_rule("shop", "c", "host: cart, subsets: [{name: v1}]");
    let of_till = destination_rule("shop", "t", "host: till, subsets: [{name: v1}]");
    let mut mesh = shop(&(other.to_owned() + &route + &of_cart + &of_till));
    let names = [
        "route/shop/cart.shop.svc.cluster.local/virtualservice/shop/v/http/0/0",
        "destination/shop/shop/cart.shop.svc.cluster.local",
        "destination/shop/shop/till.shop.svc.cluster.local",
    ];
    let told = |mesh: &Mesh| {
        let told = audiences(mesh);
        names.map(|name| told.get(name).cloned().unwrap_or_default())
    };
    assert_eq!(told(&mesh), ["shop/w"; 3]);
    let bound = |to: &str| {
        let labels =
            format!("name: cart, namespace: shop, labels: {{istio.io/use-waypoint: {to}}}");
        applied(&SHOP.replace("name: cart, namespace: shop", &labels))
    };
    mesh.apply(bound("other"));
    assert_eq!(told(&mesh), ["shop/other", "shop/other", "shop/other shop/w"]);
    mesh.apply(bound("none"));
    assert_eq!(told(&mesh), ["", "", "shop/w"]);
    mesh.apply(bound("w"));
    assert_eq!(told(&mesh), ["shop/w"; 3]);
}

/// A namespace with a waypoint, services with routes, and a policy of each kind.
fn namespace(number: usize, services: usize) -> String {
    let name = format!("ns{number}");
    let mut text =
        SHOP.split("---\n{apiVersion: v1, kind: Service").next().unwrap_or_default().to_owned();
    for service in 0..services {
        let _ = write!(
            text,
            "---\n{{apiVersion: v1, kind: Service, metadata: {{name: s{service}, namespace: shop}}, \
             spec: {{ports: [{{port: 80, name: http}}]}}}}\n"
        );
        let to = format!(
            "hosts: [s{service}], http: [{{route: [{{destination: {{host: s{service}}}}}]}}]"
        );
        text += &virtual_service(&format!("v{service}"), &to);
        let rule = format!("host: s{service}, subsets: [{{name: v1, labels: {{version: v1}}}}]");
        text += &destination_rule("shop", &format!("d{service}"), &rule);
    }
    let gateway = "{group: gateway.networking.k8s.io, kind: Gateway, name: w}";
    text += &policy("shop", &format!("targetRefs: [{gateway}], rules: [{{}}]"));
    text.replace("namespace: shop", &format!("namespace: {name}"))
        .replace("name: shop", &format!("name: {name}"))
}

#[test]
fn the_share_of_a_waypoint_does_not_grow_with_the_number_of_waypoints() {
    const SERVICES: usize = 10;
    let of = |waypoints: usize| {
        let namespaces: String = (0..waypoints).map(|number| namespace(number, SERVICES)).collect();
        let mesh = mesh(&namespaces);
        (share(&mesh, &["ns0/w", EVERY_WAYPOINT]), size(l7(&mesh)))
    };
    let ((own, bytes), _) = of(1);
    assert_eq!(own, 2 * SERVICES + 1, "a route and a destination of each, and a policy");
    let (share, (all, all_bytes)) = of(20);
    assert_eq!(share, (own, bytes));
    assert_eq!((all, all_bytes / bytes), (20 * own, 20));
}
