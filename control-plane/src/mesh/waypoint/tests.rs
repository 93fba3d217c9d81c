use mesh_api::proto::workload::{
    GatewayAddress, application_tunnel::Protocol, gateway_address::Destination,
};

use crate::{
    fixture::{applied, declared, mesh, pod, services, workload},
    mesh::{AbsentWaypoint, Mesh, Options, Warning},
};

const READY: &str = "status: {addresses: [{type: IPAddress, value: 10.96.0.9}, {type: Hostname, \
                     value: w.shop.svc.cluster.local}]}";
const READY_HOST: &str = "shop/w.shop.svc.cluster.local:15008";
const MANAGED: &str = "gateway.istio.io/managed: istio.io-mesh-controller";

/// A gateway `w` of the shop.
fn gateway(metadata: &str, listener: &str, rest: &str) -> String {
    format!(
        "---\n{{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {{name: w, \
         namespace: shop, {metadata}}}, spec: {{gatewayClassName: istio-waypoint, listeners: \
         [{{name: mesh, port: 15008, protocol: HBONE, {listener}}}]}}, {rest}}}\n"
    )
}

fn namespace(name: &str, labels: &str) -> String {
    format!(
        "---\n{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}, labels: {{{labels}}}}}}}\n"
    )
}

fn service(namespace: &str, labels: &str) -> String {
    format!(
        "---\n{{apiVersion: v1, kind: Service, metadata: {{name: cart, namespace: {namespace}, \
         labels: {{{labels}}}}}}}\n"
    )
}

fn text(waypoint: Option<&GatewayAddress>) -> String {
    let Some(waypoint) = waypoint else { return "none".to_owned() };
    let destination = match waypoint.destination.as_ref().unwrap() {
        Destination::Hostname(host) => format!("{}/{}", host.namespace, host.hostname),
        Destination::Address(address) => format!("{:?}", &address.address[..]),
    };
    format!("{destination}:{}", waypoint.hbone_mtls_port)
}

/// Returns the waypoints of the service `cart` and of the pod `p` of the shop.
fn bound(mesh: &Mesh) -> (String, String) {
    let service = services(mesh).into_values().find(|service| service.name == "cart").unwrap();
    (text(service.waypoint.as_ref()), text(workload(mesh, "p").waypoint.as_ref()))
}

fn warnings(mesh: &Mesh) -> Vec<&'static str> {
    let mut reasons: Vec<_> = mesh.warnings().values().flatten().map(Warning::reason).collect();
    reasons.sort_unstable();
    reasons.dedup();
    reasons
}

#[test]
fn a_waypoint_serves_what_it_is_for() {
    let label = "istio.io/use-waypoint: w";
    let cases = [
        ("", READY_HOST, "none"),
        ("istio.io/waypoint-for: service", READY_HOST, "none"),
        ("istio.io/waypoint-for: workload", "none", READY_HOST),
        ("istio.io/waypoint-for: all", READY_HOST, READY_HOST),
        ("istio.io/waypoint-for: none", "none", "none"),
    ];
    for (kind, of_service, of_pod) in cases {
        let gateway = gateway(&format!("labels: {{{kind}}}"), "", READY);
        let by_namespace =
            namespace("shop", label) + &service("shop", "") + &pod("p", "10.0.0.1", "");
        let by_object = service("shop", label) + &pod("p", "10.0.0.1", label);
        for users in [by_namespace, by_object] {
            let bound = bound(&mesh(&(gateway.clone() + &users)));
            assert_eq!(bound, (of_service.to_owned(), of_pod.to_owned()), "{kind}: {users}");
        }
    }
}

#[test]
fn the_nearest_label_counts() {
    let label = "istio.io/use-waypoint: w";
    let none = "istio.io/use-waypoint: none";
    let shop = namespace("shop", label);
    let gateway = gateway("labels: {istio.io/waypoint-for: all}", "", READY);
    let account = |labels: &str| {
        format!(
            "---\n{{apiVersion: v1, kind: ServiceAccount, metadata: {{name: default, namespace: shop, \
             labels: {{{labels}}}}}}}\n"
        )
    };
    let cases = [
        ("none at the pod", shop.clone() + &account(label), none, "none"),
        ("none at the account", shop.clone() + &account(none), "", "none"),
        ("account", account(label), "", READY_HOST),
        ("nothing", String::new(), "", "none"),
    ];
    for (case, objects, labels, expected) in cases {
        let users = service("shop", "") + &pod("p", "10.0.0.1", labels);
        assert_eq!(bound(&mesh(&(gateway.clone() + &objects + &users))).1, expected, "{case}");
    }
}

#[test]
fn a_gateway_may_name_the_service_account_that_it_is_for() {
    let gateway = gateway("annotations: {istio.io/for-service-account: default}", "", READY);
    let users = service("shop", "") + &pod("p", "10.0.0.1", "");
    assert_eq!(bound(&mesh(&(gateway + &users))), ("none".to_owned(), READY_HOST.to_owned()));
}

#[test]
fn another_namespace_needs_permission() {
    let label = "istio.io/use-waypoint: w, istio.io/use-waypoint-namespace: shop";
    let users = service("bank", label) + &pod("p", "10.0.0.1", "");
    let selector = "selector: {matchLabels: {team: money}}";
    let forbidden = "shop/w.shop.forbidden.invalid:15008";
    let cases = [
        ("", "", forbidden),
        ("allowedRoutes: {namespaces: {from: All}}", "", READY_HOST),
        ("allowedRoutes: {namespaces: {from: Same}}", "", forbidden),
        (&format!("allowedRoutes: {{namespaces: {{from: Selector, {selector}}}}}"), "", forbidden),
        (
            &format!("allowedRoutes: {{namespaces: {{from: Selector, {selector}}}}}"),
            "team: money",
            READY_HOST,
        ),
    ];
    for (listener, labels, expected) in cases {
        let objects = gateway("", listener, READY) + &namespace("bank", labels) + &users;
        let mesh = mesh(&objects);
        assert_eq!(bound(&mesh).0, expected, "{listener}");
        let warned = warnings(&mesh).contains(&"CrossNamespaceWaypointForbidden");
        assert_eq!(warned, expected == forbidden, "{listener}");
    }
}

#[test]
fn traffic_to_a_waypoint_that_is_not_there_is_refused_or_passes_as_told() {
    let label = "istio.io/use-waypoint: w";
    let users = namespace("shop", label) + &service("shop", "") + &pod("p", "10.0.0.1", "");
    let other_class = gateway("", "", READY).replace("istio-waypoint", "nginx");
    let absent = READY_HOST.to_owned();
    for gateway in [String::new(), other_class, gateway("", "", "")] {
        let mut refusing = Mesh::new(Options::default());
        refusing.apply(applied(&(gateway.clone() + &users)));
        assert_eq!(bound(&refusing), (absent.clone(), "none".to_owned()), "{gateway}");
        assert_eq!(warnings(&refusing), ["WaypointIsNotReady"], "{gateway}");
        let bypass = AbsentWaypoint::Bypass;
        let mut bypassing = Mesh::new(Options { absent_waypoint: bypass, ..Options::default() });
        bypassing.apply(applied(&(gateway.clone() + &users)));
        assert_eq!(bound(&bypassing), ("none".to_owned(), "none".to_owned()), "{gateway}");
    }
    let named = service("shop", "") + &pod("p", "10.0.0.1", label);
    assert_eq!(bound(&mesh(&named)).1, absent, "a pod that names it itself");
}

#[test]
fn where_no_controller_reports_addresses_the_service_of_the_same_name_is_taken() {
    let users = namespace("shop", "istio.io/use-waypoint: w")
        + &service("shop", "")
        + &pod("p", "10.0.0.1", "");
    let own = "---\n{apiVersion: v1, kind: Service, metadata: {name: w, namespace: shop}}\n";
    let mesh = mesh(&(gateway("", "", "") + &users + own));
    assert_eq!(bound(&mesh).0, READY_HOST);
    assert_eq!(warnings(&mesh), [""; 0]);
    let own = services(&mesh).into_values().find(|service| service.name == "w").unwrap();
    assert_eq!(text(own.waypoint.as_ref()), "none");
}

#[test]
fn a_waypoint_is_found_by_the_name_that_its_gateway_gives_its_service() {
    let named = "annotations: {gateway.istio.io/name-override: other}";
    let users = namespace("shop", "istio.io/use-waypoint: w")
        + &service("shop", "")
        + &pod("p", "10.0.0.1", "");
    let of_name = |name: &str| {
        format!(
            "---\n{{apiVersion: v1, kind: Service, metadata: {{name: {name}, namespace: shop}}}}\n"
        )
    };
    let services_of = of_name("w") + &of_name("other");
    let waypoint_of = |mesh: &Mesh, name: &str| {
        let found = services(mesh).into_values().find(|service| service.name == name).unwrap();
        text(found.waypoint.as_ref())
    };
    let renamed = "shop/other.shop.svc.cluster.local:15008";
    let mut mesh = mesh(&(gateway("", "", "") + &users + &services_of));
    let found = |mesh: &Mesh| ["cart", "w", "other"].map(|name| waypoint_of(mesh, name));
    assert_eq!(found(&mesh), [READY_HOST, "none", READY_HOST]);
    mesh.apply(applied(&gateway(named, "", "")));
    assert_eq!(found(&mesh), [renamed, renamed, "none"]);
    // While it has no service, this is where one is waited for.
    let mut reported = Mesh::new(Options::default());
    reported.apply(applied(&(gateway(named, "", "") + &users)));
    assert_eq!(bound(&reported).0, renamed);
}

#[test]
fn a_host_name_is_preferred_to_an_address() {
    let ip = "status: {addresses: [{value: 10.96.0.9}]}";
    let users = service("shop", "istio.io/use-waypoint: w") + &pod("p", "10.0.0.1", "");
    assert_eq!(bound(&mesh(&(gateway("", "", ip) + &users))).0, "[10, 96, 0, 9]:15008");
}

#[test]
fn what_belongs_to_a_gateway_has_no_waypoint() {
    let label = "istio.io/use-waypoint: w";
    let of_gateway = "gateway.networking.k8s.io/gateway-name: w";
    for labels in [MANAGED, of_gateway] {
        let objects = namespace("shop", label)
            + &gateway("labels: {istio.io/waypoint-for: all}", "", READY)
            + &service("shop", labels)
            + &pod("p", "10.0.0.1", labels);
        assert_eq!(bound(&mesh(&objects)), ("none".to_owned(), "none".to_owned()), "{labels}");
    }
}

#[test]
fn pods_of_a_waypoint_are_handed_connections_as_it_says() {
    let tunnel = |binding: &str| {
        let annotation =
            format!("annotations: {{ambient.istio.io/waypoint-inbound-binding: {binding}}}");
        let own = pod("p", "10.0.0.1", "gateway.networking.k8s.io/gateway-name: w");
        let mesh = mesh(&(gateway(&annotation, "", READY) + &own));
        workload(&mesh, "p").application_tunnel.map(|tunnel| (tunnel.protocol(), tunnel.port))
    };
    assert_eq!(tunnel("PROXY/15088"), Some((Protocol::Proxy, 15088)));
    assert_eq!(tunnel("PROXY"), Some((Protocol::Proxy, 0)));
    assert_eq!(tunnel("NONE/80"), Some((Protocol::None, 80)));
    assert_eq!(tunnel("other"), None);
}

#[test]
fn a_canary_has_a_share() {
    let weighted = |weight: &str, canary: &str| {
        let second =
            gateway("", "", READY).replace("w.shop", "w2.shop").replace("name: w,", "name: w2,");
        let labels = format!("istio.io/use-waypoint: w, istio.io/use-waypoint-canary: {canary}");
        let user = service("shop", &labels).replace(
            "namespace: shop,",
            &format!(
                "namespace: shop, annotations: {{istio.io/use-waypoint-canary-weight: '{weight}'}},"
            ),
        );
        let mesh = mesh(&(gateway("", "", READY) + &second + &user));
        let service = services(&mesh).into_values().next().unwrap();
        let shares: Vec<_> = service
            .weighted_waypoints
            .iter()
            .map(|share| (text(share.destination.as_ref()), share.weight))
            .collect();
        (shares, warnings(&mesh))
    };
    let second = "shop/w2.shop.svc.cluster.local:15008".to_owned();
    let (shares, reasons) = weighted("20", "w2");
    assert_eq!(shares, [(READY_HOST.to_owned(), 80), (second, 20)]);
    assert_eq!(reasons, [""; 0]);
    assert_eq!(weighted("120", "w2"), (vec![], vec!["CanaryInvalidWeight"]));
    assert_eq!(weighted("20", "w"), (vec![], vec!["CanarySameAsPrimary"]));
}

#[test]
fn ingress_passes_the_waypoint_where_told() {
    let uses = |namespace_labels: &str, labels: &str| {
        let mut mesh = Mesh::new(declared());
        let labels = format!("istio.io/use-waypoint: w, {labels}");
        let objects = gateway("", "", READY)
            + &namespace("shop", namespace_labels)
            + &service("shop", &labels);
        mesh.apply(applied(&objects));
        services(&mesh).into_values().next().unwrap().ingress_use_waypoint
    };
    let yes = "istio.io/ingress-use-waypoint: 'true'";
    assert!(!uses("", ""));
    assert!(uses("", yes));
    assert!(uses(yes, ""));
    assert!(!uses(yes, "istio.io/ingress-use-waypoint: 'false'"));
}
