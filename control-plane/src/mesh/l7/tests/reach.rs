use std::collections::BTreeSet;

use super::{SHOP, destination_rule, shop, virtual_service};
use crate::{
    fixture::{l7, object},
    mesh::Event,
    resource::Kind,
};

const VIRTUAL: &str = "hosts: [cart], http: [{route: [{destination: {host: till, subset: v1}}]}]";

fn names(changes: Vec<crate::resource::Change>) -> BTreeSet<String> {
    let l7 = changes.into_iter().filter(|change| change.kind == Kind::L7);
    l7.map(|change| {
        let sign = if change.resource.is_some() { "" } else { "-" };
        format!("{sign}{}", change.name)
    })
    .collect()
}

fn set<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

const ROUTE: &str = "route/shop/cart.shop.svc.cluster.local/virtualservice/shop/v/http/0/0";

#[test]
fn a_change_is_told_of_what_it_changes_and_nothing_else() {
    let mut mesh = shop("");
    let rule = |name: &str| {
        object(&destination_rule("shop", name, &format!("host: {name}, subsets: [{{name: v1}}]")))
    };
    let told = mesh.apply(vec![Event::Applied(rule("till"))]);
    assert_eq!(names(told), set(["destination/shop/shop/till.shop.svc.cluster.local"]));
    let before = mesh.computed();
    let virtual_service = object(&virtual_service("v", VIRTUAL));
    let told = mesh.apply(vec![Event::Applied(virtual_service.clone())]);
    assert_eq!(names(told), set([ROUTE]));
    assert_eq!(mesh.computed().services - before.services, 1, "only that of its host");
    let told = mesh.apply(vec![Event::Deleted(virtual_service.key())]);
    assert_eq!(names(told), set([&format!("-{ROUTE}")]));
}

#[test]
fn what_a_route_names_is_told_to_the_waypoints_of_its_service() {
    let bank = "---
{apiVersion: v1, kind: Service, metadata: {name: vault, namespace: bank}, spec: {ports: [{port: 1}]}}
";
    let to_vault = VIRTUAL.replace("till", "vault.bank.svc.cluster.local");
    let rule = destination_rule("bank", "r", "host: vault, subsets: [{name: v1}]");
    let mut mesh = shop(&(bank.to_owned() + &rule));
    assert!(l7(&mesh).is_empty());
    let told = mesh.apply(vec![Event::Applied(object(&virtual_service("v", &to_vault)))]);
    let destination = "destination/shop/bank/vault.bank.svc.cluster.local";
    assert_eq!(names(told), set([ROUTE, destination]));
    let resource = mesh.resources().find(|resource| resource.name.as_str() == destination).unwrap();
    assert_eq!(*resource.aliases, ["shop/w".into()]);
    let gone = mesh.apply(vec![Event::Deleted(object(bank).key())]);
    assert_eq!(names(gone), set([ROUTE, &format!("-{destination}")]), "it leads nowhere");
    let again = mesh.apply(vec![Event::Applied(object(bank))]);
    assert_eq!(names(again), set([ROUTE, destination]));
}

#[test]
fn a_service_that_is_not_bound_has_no_routes() {
    let unbound = SHOP.replace("{istio.io/use-waypoint: w}", "{}");
    let mesh = crate::fixture::mesh(&(unbound + &virtual_service("v", VIRTUAL)));
    assert!(l7(&mesh).is_empty());
}

#[test]
fn routes_go_with_the_waypoint_and_name_it() {
    let mut mesh = shop(&virtual_service("v", VIRTUAL));
    let aliases: Vec<_> =
        mesh.resources().filter(|r| r.kind == Kind::L7).map(|r| r.aliases.join(" ")).collect();
    assert_eq!(aliases, ["shop/w"]);
    let gateway = crate::fixture::objects(SHOP).remove(1);
    mesh.apply(vec![Event::Deleted(gateway.key())]);
    assert!(l7(&mesh).is_empty());
    mesh.apply(vec![Event::Applied(gateway)]);
    assert_eq!(l7(&mesh).len(), 1);
}

#[test]
fn a_delegate_that_changes_changes_the_routes_of_the_root() {
    let root = "hosts: [cart], http: [{match: [{uri: {prefix: /a}}], delegate: {name: d}}]";
    let mut mesh = shop(&virtual_service("v", root));
    assert!(l7(&mesh).is_empty());
    let delegate = virtual_service("d", "http: [{route: [{destination: {host: till}}]}]");
    let told = mesh.apply(vec![Event::Applied(object(&delegate))]);
    assert_eq!(names(told), set([ROUTE]));
    let told = mesh.apply(vec![Event::Deleted(object(&delegate).key())]);
    assert_eq!(names(told), set([&format!("-{ROUTE}")]));
}

#[test]
fn labels_of_workloads_are_told_where_waypoints_send_traffic() {
    let pod = crate::fixture::pod("a", "10.0.0.1", "app: cart, version: v1");
    let entry = "---
{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {name: vm, namespace: shop}, \
 spec: {address: 10.0.0.2, labels: {app: cart}}}
";
    let elsewhere = crate::fixture::pod("b", "10.0.0.3", "").replace("shop", "bank");
    let mut mesh = shop(&(pod + entry + &elsewhere));
    let told: BTreeSet<_> = l7(&mesh).into_keys().collect();
    let labels = set([
        "labels/Kubernetes//Pod/shop/a",
        "labels/Kubernetes/networking.istio.io/WorkloadEntry/shop/vm",
    ]);
    assert_eq!(told, labels);
    let gateway = crate::fixture::objects(SHOP).remove(1);
    mesh.apply(vec![Event::Deleted(gateway.key())]);
    assert!(l7(&mesh).is_empty());
    let told = mesh.apply(vec![Event::Applied(gateway)]);
    assert_eq!(names(told), labels);
    let other = crate::fixture::pod("a", "10.0.0.1", "app: cart, version: v2");
    let told = mesh.apply(vec![Event::Applied(object(&other))]);
    assert_eq!(names(told), set(["labels/Kubernetes//Pod/shop/a"]));
}

#[test]
fn labels_of_all_workloads_are_told_while_a_route_is_for_clients_with_some() {
    let pod = crate::fixture::pod("a", "10.0.0.1", "app: web").replace("shop", "bank");
    let mut mesh = shop(&pod);
    assert!(l7(&mesh).is_empty());
    let labels = "labels/Kubernetes//Pod/bank/a";
    let spec = "hosts: [cart], http: [{match: [{sourceLabels: {app: web}}], route: [{destination: \
                {host: till}}]}]";
    let labelled = object(&virtual_service("v", spec));
    let told = mesh.apply(vec![Event::Applied(labelled.clone())]);
    assert_eq!(names(told), set([ROUTE, labels]));

    let changed = object(&pod.replace("app: web", "app: cart"));
    assert_eq!(names(mesh.apply(vec![Event::Applied(changed.clone())])), set([labels]));
    let second = crate::fixture::pod("b", "10.0.0.2", "app: web").replace("shop", "tools");
    let told = mesh.apply(vec![Event::Applied(object(&second))]);
    assert_eq!(names(told), set(["labels/Kubernetes//Pod/tools/b"]));
    let gone = mesh.apply(vec![Event::Deleted(object(&second).key())]);
    assert_eq!(names(gone), set(["-labels/Kubernetes//Pod/tools/b"]));

    let for_all = object(&virtual_service("v", VIRTUAL));
    let told = mesh.apply(vec![Event::Applied(for_all)]);
    assert_eq!(names(told), set([ROUTE, &format!("-{labels}")]));
    mesh.apply(vec![Event::Applied(labelled.clone())]);
    assert!(l7(&mesh).contains_key(labels));
    // Nothing is told that nobody looks at: without a waypoint there are no routes.
    let gateway = crate::fixture::objects(SHOP).remove(1);
    mesh.apply(vec![Event::Deleted(gateway.key())]);
    assert!(l7(&mesh).is_empty());
}
