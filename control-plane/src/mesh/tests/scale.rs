//! A change costs what depends on it, whatever the size of the mesh.

use std::{net::Ipv4Addr, sync::Arc};

use crate::{
    fixture::{declared, object},
    mesh::{Computed, Event, Mesh},
    object::{
        Metadata, Object, ObjectKind, ObjectName, Plain, Pod, Service, ServicePort, TargetPort,
    },
};

const PODS: usize = 50_000;
const NAMESPACES: usize = 50;
/// Pods of a namespace with the same label.
const PODS_PER_APP: usize = 10;
const PODS_PER_NODE: usize = 500;
const PODS_PER_NAMESPACE: usize = PODS / NAMESPACES;
const APPS: usize = PODS / PODS_PER_APP;
const FIRST_ADDRESS: u32 = Ipv4Addr::new(10, 0, 0, 0).to_bits();

/// Pod `i`; it is of app `i % APPS`, and apps are spread evenly over the namespaces.
fn pod(i: usize, ready: bool) -> Object {
    let (app, node) = (i % APPS, i / PODS_PER_NODE);
    let address = FIRST_ADDRESS + u32::try_from(i).unwrap();
    Object::Pod(Arc::new(Pod {
        metadata: metadata(&format!("p{i}"), app, &[("app", &format!("a{app}")), ("tier", "t")]),
        service_account: format!("sa{app}").into(),
        node: format!("n{node}").into(),
        addresses: [Ipv4Addr::from_bits(address).into()].into(),
        ready: Some(ready),
        ..Pod::default()
    }))
}

fn service(app: usize) -> Object {
    let port = ServicePort {
        name: "".into(),
        port: 80,
        target: TargetPort::Number(80),
        app_protocol: None,
    };
    Object::Service(Arc::new(Service {
        metadata: metadata(&format!("s{app}"), app, &[]),
        selector: [("app", format!("a{app}").as_str())].into_iter().collect(),
        ports: [port].into(),
        ..Service::default()
    }))
}

fn namespace(i: usize) -> Object {
    let labels = [("istio.io/dataplane-mode", "ambient")].into_iter().collect();
    let name = ObjectName::new("", format!("ns{i}"));
    Object::Namespace(Arc::new(Plain {
        metadata: Metadata { name, labels, ..Metadata::default() },
    }))
}

fn metadata(name: &str, app: usize, labels: &[(&str, &str)]) -> Metadata {
    let name = ObjectName::new(format!("ns{}", app % NAMESPACES), name);
    Metadata { name, labels: labels.iter().copied().collect(), ..Metadata::default() }
}

/// Applies an event; returns what was computed because of it, and how many changes came of it.
fn cost(mesh: &mut Mesh, yaml: &str) -> (Computed, usize) {
    cost_of(mesh, vec![Event::Applied(object(yaml))])
}

fn cost_of(mesh: &mut Mesh, events: Vec<Event>) -> (Computed, usize) {
    let before = mesh.computed();
    let changes = mesh.apply(events).len();
    let after = mesh.computed();
    let computed = Computed {
        workloads: after.workloads - before.workloads,
        services: after.services - before.services,
        policies: after.policies - before.policies,
        routes: after.routes - before.routes,
    };
    (computed, changes)
}

fn computed(workloads: usize, services: u64, policies: u64) -> Computed {
    Computed { workloads: workloads as u64, services, policies, routes: 0 }
}

#[test]
fn a_change_computes_only_what_depends_on_it() {
    let mut mesh = Mesh::new(declared());
    let others = (0..NAMESPACES).map(namespace).chain((0..APPS).map(service));
    mesh.apply(others.map(Event::Applied).collect());
    let changes = mesh.apply((0..PODS).map(|i| Event::Applied(pod(i, true))).collect());
    assert_eq!((changes.len(), mesh.count(ObjectKind::Pod)), (PODS, PODS));

    let event = vec![Event::Applied(pod(7, false))];
    assert_eq!(cost_of(&mut mesh, event), (computed(1, 0, 0), 1), "a pod");
    let event = vec![Event::Applied(pod(7, false))];
    assert_eq!(cost_of(&mut mesh, event), (computed(0, 0, 0), 0), "the same pod");
    let event = vec![Event::Deleted(pod(7, false).key())];
    assert_eq!(cost_of(&mut mesh, event), (computed(0, 0, 0), 1), "a pod that goes");
    mesh.apply(vec![Event::Applied(pod(7, true))]);

    let service = "{apiVersion: v1, kind: Service, metadata: {name: s7, namespace: ns7}, spec: \
                   {selector: {app: a7}, ports: [{port: 81}]}}";
    let expected = (computed(PODS_PER_APP, 1, 0), PODS_PER_APP + 1);
    assert_eq!(cost(&mut mesh, service), expected, "a service");

    let policy = "{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: p, \
                  namespace: ns7}, spec: {selector: {matchLabels: {app: a7, tier: t}}}}";
    let expected = (computed(PODS_PER_APP, 0, 1), PODS_PER_APP + 1);
    assert_eq!(cost(&mut mesh, policy), expected, "a policy with a selector");

    let policy = "{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: q, \
                  namespace: ns7}}";
    assert_eq!(cost(&mut mesh, policy), (computed(0, 0, 1), 1), "a policy of a namespace");

    let strict = "{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: p, \
                  namespace: ns7}, spec: {mtls: {mode: STRICT}}}";
    let expected = (computed(PODS_PER_NAMESPACE, 0, 1), PODS_PER_NAMESPACE + 1);
    assert_eq!(cost(&mut mesh, strict), expected, "a peer authentication of a namespace");

    let namespace = "{apiVersion: v1, kind: Namespace, metadata: {name: ns7}}";
    let expected = (computed(PODS_PER_NAMESPACE, 100, 0), PODS_PER_NAMESPACE);
    assert_eq!(cost(&mut mesh, namespace), expected, "a namespace");

    let node = "{apiVersion: v1, kind: Node, metadata: {name: n7, labels: \
                {topology.kubernetes.io/zone: z}}}";
    let expected = (computed(PODS_PER_NODE, 0, 0), PODS_PER_NODE);
    assert_eq!(cost(&mut mesh, node), expected, "a node");
    let node = node.replace("labels: {", "labels: {other: x, ");
    assert_eq!(cost(&mut mesh, &node), (computed(0, 0, 0), 0), "another label of a node");

    let account = "{apiVersion: v1, kind: ServiceAccount, metadata: {name: sa7, namespace: ns7}}";
    assert_eq!(cost(&mut mesh, account), (computed(PODS_PER_APP, 0, 0), 0), "a service account");

    let gateway = "{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: w, \
                   namespace: ns7}, spec: {gatewayClassName: istio-waypoint}}";
    assert_eq!(cost(&mut mesh, gateway), (computed(0, 0, 0), 0), "a gateway that nobody names");
}

/// Objects with routes for one service.
const ROUTES: u64 = 300;

fn route(i: u64, path: &str) -> Object {
    object(&format!(
        "{{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {{name: r{i}, \
         namespace: ns}}, spec: {{parentRefs: [{{group: '', kind: Service, name: s}}], rules: \
         [{{matches: [{{path: {{value: /{i}/{path}}}}}], backendRefs: [{{name: t, port: 80}}]}}]}}}}"
    ))
}

#[test]
fn a_change_of_a_route_computes_only_its_own_object() {
    let mut mesh = Mesh::new(declared());
    let namespaced = |text: &str| object(&text.replace("METADATA", "namespace: ns"));
    let service = |name: &str, port: u16| {
        namespaced(&format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: {name}, METADATA, labels: \
             {{istio.io/use-waypoint: w}}}}, spec: {{ports: [{{port: {port}}}]}}}}"
        ))
    };
    let gateway = namespaced(
        "{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: w, METADATA}, \
         spec: {gatewayClassName: istio-waypoint}, status: {addresses: [{value: 10.9.0.1}]}}",
    );
    let others = [gateway, service("s", 80), service("t", 80)];
    let routes = (0..ROUTES).map(|i| route(i, "a"));
    mesh.apply(others.into_iter().chain(routes).map(Event::Applied).collect());
    let mut cost = |event| {
        let (Computed { routes, .. }, changes) = cost_of(&mut mesh, vec![event]);
        (routes, changes as u64)
    };
    assert_eq!(cost(Event::Applied(route(7, "b"))), (1, 1), "a route");
    assert_eq!(cost(Event::Applied(route(7, "b"))), (0, 0), "the same route");
    assert_eq!(cost(Event::Deleted(route(7, "b").key())), (0, 1), "a route that goes");
    assert_eq!(cost(Event::Applied(route(7, "b"))), (1, 1), "a route that comes back");
    // Backends are not there any more: what they are is said with each route.
    assert_eq!(cost(Event::Applied(service("t", 81))), (ROUTES, ROUTES + 1), "a backend");
    assert_eq!(cost(Event::Applied(pod(1, true))).0, 0, "a pod");
}
