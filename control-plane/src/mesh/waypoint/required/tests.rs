use mesh_api::proto::security::{Action, Authorization, string_match::MatchType};

use crate::{
    fixture::{applied, declared, mesh, pod, policies, workload},
    mesh::{Mesh, Options},
};

const DEMANDS: &str = "annotations: {fairlead.io/require-waypoint: \"true\"}";

/// A gateway of the shop, with a service of its own.
fn gateway(name: &str, metadata: &str) -> String {
    format!(
        "---\n{{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {{name: {name}, \
         namespace: shop, {metadata}}}, spec: {{gatewayClassName: istio-waypoint, listeners: \
         [{{name: mesh, port: 15008, protocol: HBONE}}]}}}}\n---\n{{apiVersion: v1, kind: Service, \
         metadata: {{name: {name}, namespace: shop}}}}\n"
    )
}

/// A service of the shop of all pods with the label `app: cart`.
fn service(name: &str, labels: &str) -> String {
    format!(
        "---\n{{apiVersion: v1, kind: Service, metadata: {{name: {name}, namespace: shop, labels: \
         {{{labels}}}}}, spec: {{selector: {{app: cart}}, ports: [{{port: 80}}]}}}}\n"
    )
}

fn cart() -> String {
    pod("cart-0", "10.0.0.1", "app: cart")
}

/// Returns the policies that the pod `cart-0` names.
fn named(mesh: &Mesh) -> Vec<String> {
    workload(mesh, "cart-0").authorization_policies
}

/// Returns who is not denied by a policy.
fn admitted(policy: &Authorization) -> Vec<&str> {
    assert_eq!(policy.action(), Action::Deny);
    let matches = policy.rules.iter().flat_map(|r| &r.clauses).flat_map(|c| &c.matches);
    let principals = matches.flat_map(|m| &m.not_principals);
    let exact = principals.map(|principal| match &principal.match_type {
        Some(MatchType::Exact(principal)) => principal.as_str(),
        other => panic!("{other:?}"),
    });
    exact.collect()
}

#[test]
fn pods_behind_a_waypoint_that_has_to_be_passed_name_its_policy() {
    let bound = "istio.io/use-waypoint: w";
    let cases = [
        // Who is bound: the service, the pod, nobody.
        (DEMANDS.to_owned(), bound, "", true),
        (format!("{DEMANDS}, labels: {{istio.io/waypoint-for: workload}}"), bound, "", false),
        (format!("{DEMANDS}, labels: {{istio.io/waypoint-for: workload}}"), "", bound, true),
        (format!("{DEMANDS}, labels: {{istio.io/waypoint-for: all}}"), bound, bound, true),
        (DEMANDS.to_owned(), "", bound, false),
        (DEMANDS.to_owned(), "", "", false),
        (String::new(), bound, "", false),
    ];
    for (metadata, of_service, of_pod, expected) in cases {
        let pod = pod("cart-0", "10.0.0.1", &format!("app: cart, {of_pod}"));
        let yaml = gateway("w", &metadata) + &service("cart", of_service) + &pod;
        let mesh = mesh(&yaml);
        let expected: &[&str] = if expected { &["shop/only_through_w"] } else { &[] };
        assert_eq!(named(&mesh), expected, "{yaml}");
        let of_pods: Vec<_> = policies(&mesh).into_keys().collect();
        let demands = metadata.contains(DEMANDS);
        assert_eq!(of_pods.is_empty(), !demands, "{yaml}");
    }
}

#[test]
fn an_option_demands_it_of_all_waypoints_that_do_not_say_otherwise() {
    let users = service("cart", "istio.io/use-waypoint: w") + &cart();
    for (metadata, expected) in [
        ("", &["shop/only_through_w"][..]),
        ("annotations: {fairlead.io/require-waypoint: \"false\"}", &[]),
    ] {
        let mut mesh = Mesh::new(Options { require_waypoints: true, ..declared() });
        mesh.apply(applied(&(gateway("w", metadata) + &users)));
        assert_eq!(named(&mesh), expected, "{metadata}");
    }
}

#[test]
fn a_pod_of_services_behind_different_waypoints_is_reached_through_each_of_them() {
    let one = service("one", "istio.io/use-waypoint: w1");
    let other = service("other", "istio.io/use-waypoint: w2");
    let gateways = gateway("w1", DEMANDS) + &gateway("w2", DEMANDS);
    let mut mesh = mesh(&(gateways + &one + &other + &cart()));
    let [key] = &named(&mesh)[..] else { panic!("{:?}", named(&mesh)) };
    assert_eq!(key, "shop/only_through_Kubernetes__Pod_shop_cart-0");
    let both = ["cluster.local/ns/shop/sa/w1", "cluster.local/ns/shop/sa/w2"];
    assert_eq!(admitted(&policies(&mesh)[key]), both);
    // Without the second one the pod has no policy of its own.
    let unbound = service("other", "");
    mesh.apply(applied(&unbound));
    assert_eq!(named(&mesh), ["shop/only_through_w1"]);
    let keys: Vec<_> = policies(&mesh).into_keys().collect();
    assert_eq!(keys, ["shop/only_through_w1", "shop/only_through_w2"]);
    assert_eq!(admitted(&policies(&mesh)["shop/only_through_w1"]), both[..1]);
}

#[test]
fn the_account_that_a_gateway_declares_is_let_through() {
    let runs_as = |account: &str| {
        format!(
            "annotations: {{fairlead.io/require-waypoint: \"true\", \
             gateway.istio.io/service-account: {account}}}"
        )
    };
    let users = service("one", "istio.io/use-waypoint: w1") + &cart();
    let mut mesh = mesh(&(gateway("w1", DEMANDS) + &gateway("w2", &runs_as("other")) + &users));
    let admits = |mesh: &Mesh, key: &str| {
        admitted(&policies(mesh)[key]).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let of_w1 = "shop/only_through_w1";
    assert_eq!(admits(&mesh, of_w1), ["cluster.local/ns/shop/sa/w1"]);
    // A pod that passes itself off as the waypoint changes nothing.
    let label = "gateway.networking.k8s.io/gateway-name: w1";
    mesh.apply(applied(&pod("pretender", "10.0.0.6", label)));
    assert_eq!(admits(&mesh, of_w1), ["cluster.local/ns/shop/sa/w1"]);
    mesh.apply(applied(&gateway("w1", &runs_as("keeper"))));
    assert_eq!(admits(&mesh, of_w1), ["cluster.local/ns/shop/sa/keeper"]);
    // So it is in the policy of a pod that has several waypoints.
    mesh.apply(applied(&service("other", "istio.io/use-waypoint: w2")));
    let [key] = &named(&mesh)[..] else { panic!("{:?}", named(&mesh)) };
    let both = ["cluster.local/ns/shop/sa/keeper", "cluster.local/ns/shop/sa/other"];
    assert_eq!(admits(&mesh, key), both);
    mesh.apply(applied(&gateway("w2", DEMANDS)));
    let both = ["cluster.local/ns/shop/sa/keeper", "cluster.local/ns/shop/sa/w2"];
    assert_eq!(admits(&mesh, key), both);
}

#[test]
fn a_demand_is_felt_as_soon_as_it_is_made_or_withdrawn() {
    let users = service("cart", "istio.io/use-waypoint: w") + &cart();
    let mut mesh = mesh(&(gateway("w", "") + &users));
    for (metadata, expected) in [(DEMANDS, &["shop/only_through_w"][..]), ("", &[])] {
        mesh.apply(applied(&gateway("w", metadata)));
        assert_eq!(named(&mesh), expected);
        assert_eq!(policies(&mesh).len(), expected.len());
    }
}

#[test]
fn pods_of_waypoints_may_be_reached_by_anybody() {
    let label = "gateway.networking.k8s.io/gateway-name: w, istio.io/use-waypoint: w, app: cart";
    let kind = format!("{DEMANDS}, labels: {{istio.io/waypoint-for: all}}");
    let yaml = gateway("w", &kind) + &pod("cart-0", "10.0.0.1", label);
    assert!(named(&mesh(&yaml)).is_empty());
}
