//! What the status of routes says.

use super::{SHOP, shop, virtual_service};
use crate::{
    fixture::{mesh, object, objects},
    mesh::{Event, Mesh},
    object::{ObjectKey, ObjectKind, ObjectName},
};

/// A route of a namespace with parents and rules.
fn route(namespace: &str, parents: &str, rules: &str) -> String {
    format!(
        "---\n{{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {{name: r, \
         namespace: {namespace}}}, spec: {{parentRefs: [{parents}], rules: [{{{rules}}}]}}}}\n"
    )
}

const CART: &str = "{group: '', kind: Service, name: cart, namespace: shop}";
const TILL: &str = "backendRefs: [{name: till, namespace: shop, port: 8080}]";

/// Both conditions of each parent.
fn told(mesh: &Mesh, namespace: &str) -> Vec<[(bool, &'static str); 2]> {
    let name = ObjectName::new(namespace, "r");
    let parents = mesh.parents(&ObjectKey { kind: ObjectKind::HttpRoute, name });
    let judgements = parents.iter().map(|parent| [&parent.accepted, &parent.resolved]);
    judgements.map(|both| both.map(|judgement| (judgement.holds, judgement.reason))).collect()
}

const ACCEPTED: (bool, &str) = (true, "Accepted");
const RESOLVED: (bool, &str) = (true, "ResolvedRefs");

#[test]
fn a_route_is_accepted_by_services_that_are_there_if_it_can_be_applied() {
    let no_parent = (false, "NoMatchingParent");
    let unsupported = (false, "UnsupportedValue");
    let redirect = "{type: RequestRedirect, requestRedirect: {hostname: h}}";
    let rewrite = "{type: URLRewrite, urlRewrite: {hostname: h}}";
    let cases = [
        (CART.to_owned(), TILL.to_owned(), vec![[ACCEPTED, RESOLVED]]),
        (CART.replace("cart", "nobody"), TILL.to_owned(), vec![[no_parent, RESOLVED]]),
        (CART.replace("cart", "cart, port: 81"), TILL.to_owned(), vec![[no_parent, RESOLVED]]),
        (CART.replace("cart", "cart, sectionName: tcp"), String::new(), vec![[ACCEPTED, RESOLVED]]),
        ("{name: gateway}".to_owned(), TILL.to_owned(), vec![]),
        (
            format!("{{name: gateway}}, {CART}, {CART}"),
            TILL.to_owned(),
            vec![[ACCEPTED, RESOLVED]; 2],
        ),
        (
            CART.to_owned(),
            format!("{TILL}, filters: [{{type: ExtensionRef}}]"),
            vec![[unsupported, RESOLVED]],
        ),
        (
            CART.to_owned(),
            format!("filters: [{}]", redirect.replace("hostname: h", "hostname: h/i")),
            vec![[unsupported, RESOLVED]],
        ),
        (
            CART.to_owned(),
            TILL.replace("port: 8080", &format!("port: 8080, filters: [{rewrite}]")),
            vec![[unsupported, RESOLVED]],
        ),
        (
            CART.to_owned(),
            format!("{TILL}, matches: [{{path: {{type: RegularExpression, value: '('}}}}]"),
            vec![[unsupported, RESOLVED]],
        ),
        (
            CART.to_owned(),
            format!("filters: [{redirect}, {rewrite}]"),
            vec![[(false, "IncompatibleFilters"), RESOLVED]],
        ),
    ];
    for (parents, rules, expected) in cases {
        let mesh = shop(&route("shop", &parents, &rules));
        assert_eq!(told(&mesh, "shop"), expected, "{parents} {rules}");
    }
}

#[test]
fn references_that_lead_nowhere_say_why() {
    let backend = |fields: &str| format!("backendRefs: [{{{fields}}}]");
    let mirror = |fields: &str| {
        format!("filters: [{{type: RequestMirror, requestMirror: {{backendRef: {{{fields}}}}}}}]")
    };
    let cases = [
        ("shop", backend("kind: Pod, name: x, port: 1"), "InvalidKind"),
        ("shop", backend("name: nobody, port: 80"), "BackendNotFound"),
        ("shop", backend("name: till, port: 1"), "BackendNotFound"),
        ("shop", backend("name: till"), "BackendNotFound"),
        ("shop", mirror("name: nobody, port: 80"), "BackendNotFound"),
        ("bank", TILL.to_owned(), "RefNotPermitted"),
        ("bank", mirror("name: till, namespace: shop, port: 8080"), "RefNotPermitted"),
    ];
    for (namespace, rules, reason) in cases {
        let mesh = shop(&route(namespace, CART, &rules));
        assert_eq!(told(&mesh, namespace), [[ACCEPTED, (false, reason)]], "{rules}");
    }
}

#[test]
fn what_is_said_follows_what_others_do() {
    let grant = "{apiVersion: gateway.networking.k8s.io/v1beta1, kind: ReferenceGrant, metadata: \
                 {name: g, namespace: shop}, spec: {from: [{group: gateway.networking.k8s.io, kind: \
                 HTTPRoute, namespace: bank}], to: [{group: '', kind: Service}]}}";
    let [namespace, gateway, cart, till] = objects(SHOP).try_into().unwrap();
    let mut mesh = mesh("");
    mesh.apply(vec![Event::Applied(object(&route("bank", CART, TILL)))]);
    let missing = (false, "BackendNotFound");
    assert_eq!(told(&mesh, "bank"), [[(false, "NoMatchingParent"), missing]]);
    mesh.apply(vec![Event::Applied(cart.clone())]);
    assert_eq!(told(&mesh, "bank"), [[ACCEPTED, missing]]);
    mesh.apply(vec![Event::Applied(till)]);
    assert_eq!(told(&mesh, "bank"), [[ACCEPTED, (false, "RefNotPermitted")]]);
    mesh.apply(vec![Event::Applied(object(grant))]);
    assert_eq!(told(&mesh, "bank"), [[ACCEPTED, RESOLVED]]);
    let name = ObjectName::new("bank", "r");
    let key = ObjectKey { kind: ObjectKind::HttpRoute, name };
    let message = |mesh: &Mesh| mesh.parents(&key)[0].accepted.message.clone();
    assert!(message(&mesh).contains("istio.io/use-waypoint"), "{}", message(&mesh));
    mesh.apply(vec![Event::Applied(gateway), Event::Applied(namespace)]);
    assert!(message(&mesh).contains("shop/w"), "{}", message(&mesh));
    mesh.apply(vec![Event::Deleted(object(grant).key()), Event::Deleted(cart.key())]);
    assert_eq!(told(&mesh, "bank")[0][0], (false, "NoMatchingParent"));
    mesh.apply(vec![Event::Deleted(key.clone())]);
    assert_eq!(mesh.parents(&key), []);
}

#[test]
fn a_route_of_what_its_ports_do_not_carry_says_that_it_has_no_effect() {
    for (kind, port, has_effect) in [
        (ObjectKind::HttpRoute, "port: 80", true),
        (ObjectKind::HttpRoute, "sectionName: ''", true),
        (ObjectKind::HttpRoute, "port: 9000", false),
        (ObjectKind::TcpRoute, "port: 9000", true),
        (ObjectKind::TcpRoute, "port: 80", false),
    ] {
        let parent = CART.replace("name: cart", &format!("name: cart, {port}"));
        let yaml = route("shop", &parent, TILL).replace("HTTPRoute", kind.name());
        let yaml =
            if kind == ObjectKind::TcpRoute { yaml.replace("/v1,", "/v1alpha2,") } else { yaml };
        let mesh = shop(&yaml);
        let key = ObjectKey { kind, name: ObjectName::new("shop", "r") };
        let message = &mesh.parents(&key)[0].accepted.message;
        assert_eq!(!message.contains("without effect"), has_effect, "{kind:?} {port}: {message}");
    }
}

#[test]
fn what_a_route_leaves_to_virtual_services_is_said() {
    let name = ObjectName::new("shop", "r");
    let key = ObjectKey { kind: ObjectKind::HttpRoute, name };
    let message = |mesh: &Mesh| mesh.parents(&key)[0].accepted.message.clone();
    let http = "http: [{route: [{destination: {host: till}}]}]";
    let mut mesh = shop(&route("shop", CART, TILL));
    assert!(message(&mesh).ends_with("whose waypoint shop/w applies it"), "{}", message(&mesh));
    for (host, list, is_said) in [
        ("cart", http, true),
        ("'*.shop.svc.cluster.local'", http, true),
        ("till", http, false),
        ("cart", "tcp: [{route: [{destination: {host: till}}]}]", false),
    ] {
        let other = object(&virtual_service("v", &format!("hosts: [{host}], {list}")));
        mesh.apply(vec![Event::Applied(other.clone())]);
        assert_eq!(message(&mesh).contains("virtual service shop/v"), is_said, "{host} {list}");
        mesh.apply(vec![Event::Deleted(other.key())]);
        assert!(!message(&mesh).contains("virtual service"), "{}", message(&mesh));
    }
}
