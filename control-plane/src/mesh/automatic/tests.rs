use super::*;
use crate::{
    fixture::{applied, declared, l7, services},
    mesh::{Event, Mesh, Options},
    object::ObjectKind,
};

const NAMESPACE: &str = "---
{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {istio-injection: enabled}}}
";
const ROUTE: &str = "---
{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: cart, namespace: shop}, \
 spec: {hosts: [cart], http: [{timeout: 1s, route: [{destination: {host: cart}}]}]}}
";
const PROVIDED_GATEWAY: &str = "---
{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: auto-waypoint, \
 namespace: shop, labels: {fairlead.io/automatic: 'true'}}, spec: {gatewayClassName: \
 istio-waypoint}, status: {addresses: [{value: 10.96.0.9}]}}
";

fn service(labels: &str) -> String {
    format!(
        "---\n{{apiVersion: v1, kind: Service, metadata: {{name: cart, namespace: shop, labels: \
         {{{labels}}}}}, spec: {{clusterIP: 10.96.0.1, ports: [{{port: 80, name: http}}]}}}}\n"
    )
}

fn gateway(name: &str, metadata: &str) -> String {
    format!(
        "---\n{{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {{name: {name}, \
         namespace: shop, {metadata}}}, spec: {{gatewayClassName: istio-waypoint}}}}\n"
    )
}

fn pod(ready: bool) -> String {
    format!(
        "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: w, namespace: shop, labels: \
         {{gateway.networking.k8s.io/gateway-name: auto-waypoint}}}}, spec: {{nodeName: n1}}, \
         status: {{podIP: 10.0.0.9, conditions: [{{type: Ready, status: '{}'}}]}}}}\n",
        if ready { "True" } else { "False" }
    )
}

fn reported(yaml: &str) -> Mesh {
    let mut mesh = Mesh::new(Options::default());
    mesh.apply(applied(yaml));
    mesh
}

fn is_missing(yaml: &str) -> bool {
    !reported(yaml).provision().missing.is_empty()
}

fn is_bound(mesh: &Mesh) -> bool {
    services(mesh).values().any(|service| service.waypoint.is_some())
}

fn delete(mesh: &mut Mesh, yaml: &str) {
    let keys = crate::fixture::objects(yaml);
    mesh.apply(keys.iter().map(|object| Event::Deleted(object.key())).collect());
}

#[test]
fn a_namespace_that_opts_in_needs_one_when_its_services_are_routed() {
    let injected = NAMESPACE.to_owned() + &service("");
    let route = |kind: &str, spec: &str| {
        let group = match kind {
            "HTTPRoute" | "GRPCRoute" => "gateway.networking.k8s.io",
            _ => "networking.istio.io",
        };
        format!(
            "---\n{{apiVersion: {group}/v1, kind: {kind}, metadata: {{name: r, namespace: shop}}, \
             spec: {{{spec}}}}}\n"
        )
    };
    let http = "http: [{route: [{destination: {host: cart}}]}]";
    let parent = "parentRefs: [{group: '', kind: Service, name: cart}]";
    let cases = [
        ("", false),
        (ROUTE, true),
        (&route("DestinationRule", "host: cart.shop.svc.cluster.local"), true),
        (&route("DestinationRule", "host: other"), false),
        (&route("VirtualService", &format!("hosts: ['*.shop.svc.cluster.local'], {http}")), true),
        (&route("DestinationRule", "host: '*'"), true),
        (&route("VirtualService", &format!("hosts: ['*.bank.svc.cluster.local'], {http}")), false),
        (&route("VirtualService", &format!("hosts: [cart], gateways: [edge], {http}")), false),
        (&route("VirtualService", &format!("hosts: [cart], gateways: [edge, mesh], {http}")), true),
        (&route("HTTPRoute", parent), true),
        (&route("GRPCRoute", parent), true),
        (&route("HTTPRoute", "parentRefs: [{kind: Gateway, name: edge}]"), false),
        (&ROUTE.replace("namespace: shop", "namespace: bank"), false),
    ];
    for (routing, expected) in cases {
        assert_eq!(is_missing(&(injected.clone() + routing)), expected, "{routing}");
        assert!(!is_missing(&(service("") + routing)), "does not opt in: {routing}");
    }
    let yaml = injected + ROUTE;
    let options = Options { automatic_waypoints: false, ..Options::default() };
    let mut mesh = Mesh::new(options);
    mesh.apply(applied(&yaml));
    assert_eq!(mesh.provision(), Provision::default(), "turned off");
}

#[test]
fn whoever_declares_or_names_a_waypoint_is_provided_none() {
    let labelled = NAMESPACE.replace("enabled", "enabled, istio.io/use-waypoint: none");
    let for_workloads = "labels: {istio.io/waypoint-for: workload}";
    let for_account = "annotations: {istio.io/for-service-account: sa}";
    let opted_out = service("istio.io/use-waypoint: none");
    let cases = [
        (NAMESPACE.to_owned() + &service("") + ROUTE, true),
        (labelled + &service("") + ROUTE, false),
        (NAMESPACE.to_owned() + &opted_out + ROUTE, false),
        (NAMESPACE.to_owned() + &service("") + ROUTE + &gateway("w", ""), false),
        (NAMESPACE.to_owned() + &service("") + ROUTE + &gateway("auto-waypoint", ""), false),
        (NAMESPACE.to_owned() + &service("") + ROUTE + &gateway("w", for_workloads), true),
        (NAMESPACE.to_owned() + &service("") + ROUTE + &gateway("w", for_account), true),
    ];
    for (yaml, expected) in cases {
        assert_eq!(is_missing(&yaml), expected, "{yaml}");
    }
    let kube_system = NAMESPACE.to_owned() + &service("") + ROUTE;
    assert!(!is_missing(&kube_system.replace("shop", "kube-system")));
}

#[test]
fn services_are_bound_once_the_waypoint_has_an_address_and_while_it_is_there() {
    let mut mesh = reported(&(NAMESPACE.to_owned() + &service("") + ROUTE));
    assert!(!is_bound(&mesh), "traffic passes as before");
    let starting = PROVIDED_GATEWAY.replace("{value: 10.96.0.9}", "");
    mesh.apply(applied(&starting));
    assert_eq!(mesh.provision(), Provision::default());
    assert!(!is_bound(&mesh), "it has no address");
    assert!(l7(&mesh).keys().any(|name| name.starts_with("route/")), "it is told what to do");
    mesh.apply(applied(PROVIDED_GATEWAY));
    assert!(is_bound(&mesh));
    assert_eq!(mesh.judgements().filter(|(_, (_, judgement))| judgement.holds).count(), 1);
    mesh.apply(applied(&service("istio.io/use-waypoint: none")));
    assert!(!is_bound(&mesh));
    mesh.apply(applied(&service("")));
    let leaving = PROVIDED_GATEWAY.replace("labels:", "deletionTimestamp: '2026', labels:");
    mesh.apply(applied(&leaving));
    assert!(!is_bound(&mesh), "it is going");
}

#[test]
fn one_that_is_needed_no_more_is_surplus() {
    let mut mesh = reported(&(NAMESPACE.to_owned() + &service("") + ROUTE + PROVIDED_GATEWAY));
    assert_eq!(mesh.provision(), Provision::default());
    delete(&mut mesh, ROUTE);
    let surplus = Provision { surplus: vec![name(&"shop".into())], ..Provision::default() };
    assert_eq!(mesh.provision(), surplus);
    mesh.apply(applied(ROUTE));
    assert_eq!(mesh.provision(), Provision::default());
    mesh.apply(applied(&gateway("declared", "")));
    assert_eq!(mesh.provision(), surplus, "somebody has declared one");
    assert!(mesh.count(ObjectKind::Gateway) == 2);
}

#[test]
fn where_nothing_is_deployed_one_that_somebody_has_started_is_used() {
    let mut mesh = Mesh::new(declared());
    mesh.apply(applied(&(NAMESPACE.to_owned() + &service("") + ROUTE)));
    assert!(!is_bound(&mesh));
    for (ready, expected) in [(true, true), (false, false), (true, true)] {
        mesh.apply(applied(&pod(ready)));
        assert_eq!(is_bound(&mesh), expected, "{ready}");
    }
    delete(&mut mesh, ROUTE);
    assert!(!is_bound(&mesh), "it is needed no more");
    mesh.apply(applied(ROUTE));
    assert!(is_bound(&mesh));
    delete(&mut mesh, &pod(true));
    assert!(!is_bound(&mesh));
}

#[test]
fn a_route_of_another_namespace_says_whether_there_is_a_waypoint_that_applies_it() {
    let route = "---
{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: r, namespace: bank}, \
 spec: {parentRefs: [{group: '', kind: Service, name: cart, namespace: shop}], rules: [{}]}}
";
    let key = ObjectKey { kind: ObjectKind::HttpRoute, name: ObjectName::new("bank", "r") };
    let is_applied = |mesh: &Mesh| {
        mesh.parents(&key).iter().any(|parent| parent.accepted.message.contains("auto-waypoint"))
    };
    let mut mesh = Mesh::new(declared());
    mesh.apply(applied(&(NAMESPACE.to_owned() + &service("") + &pod(true) + route)));
    assert!(!is_applied(&mesh));
    mesh.apply(applied(ROUTE));
    assert!(is_applied(&mesh));
    delete(&mut mesh, ROUTE);
    assert!(!is_applied(&mesh));
}
