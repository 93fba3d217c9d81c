mod actions;

use std::time::Duration;

use mesh_api::proto::l7::{
    self, Forward, HttpRoute, Retry, RetryOn, http_route::Action, path_match, redirect, rewrite,
    route::Traffic, string_match,
};

use super::{SHOP, shop, told, virtual_service};
use crate::{
    fixture::{applied, declared, routes},
    mesh::{Mesh, Options, l7::matching::never},
};

/// The only route of `cart` with one rule, which has `fields`.
fn http(fields: &str) -> HttpRoute {
    let rule = format!("hosts: [cart], http: [{{{fields}}}]");
    let routes = routes(&shop(&virtual_service("v", &rule)));
    let [route] = routes.as_slice() else { panic!("{routes:#?}") };
    let Some(Traffic::Http(http)) = route.traffic.clone() else { panic!("{route:#?}") };
    http
}

fn forward(fields: &str) -> Forward {
    let http = http(&format!("route: [{{destination: {{host: till}}}}], {fields}"));
    let Some(Action::Forward(forward)) = http.action else { panic!("{http:#?}") };
    forward
}

/// Route of everything to `till`.
const TILL: &str = "route: [{destination: {host: till}}]";

#[test]
fn matches_become_routes_in_the_order_in_which_they_are_written() {
    let spec = format!(
        "hosts: [cart.shop.svc.cluster.local], http: [{{name: a, match: [{{name: x, uri: {{exact: \
         /x}}}}, {{method: {{exact: GET}}, port: 9000}}], {TILL}}}, {{name: b, {TILL}}}, {{name: c, \
         {TILL}}}]"
    );
    let expected = ["v/http/0/0 [] a.x", "v/http/0/1 [9000] a", "v/http/1/0 [] b"];
    assert_eq!(told(&virtual_service("v", &spec)), expected);
}

#[test]
fn what_takes_everything_of_a_port_ends_the_list_there() {
    let spec = format!(
        "hosts: [cart], http: [{{match: [{{port: 80, uri: {{prefix: /}}}}], {TILL}}}, {{match: \
         [{{method: {{exact: GET}}}}], {TILL}}}, {{match: [{{port: 80, method: {{exact: PUT}}}}], \
         {TILL}}}]"
    );
    let told = told(&virtual_service("v", &spec));
    assert_eq!(told, ["v/http/1/0 [9000] ", "v/http/0/0 [80] "]);
}

#[test]
fn several_virtual_services_of_a_host_are_merged_and_what_takes_everything_comes_last() {
    let dated = |name: &str, date: &str, spec: &str| {
        let dated = format!("namespace: shop, creationTimestamp: '{date}'");
        virtual_service(name, spec).replace("namespace: shop", &dated)
    };
    let get = format!("http: [{{match: [{{method: {{exact: GET}}}}], {TILL}}}]");
    let all = format!("http: [{{{TILL}}}]");
    let more = dated("new", "2026", &format!("hosts: [cart], {get}"))
        + &dated("old", "2024", &format!("hosts: [cart], {all}"))
        + &dated("mid", "2025", &format!("hosts: ['*.shop.svc.cluster.local', cart], {get}"))
        + &dated("own", "2027", &format!("hosts: [cart], exportTo: ['.'], {get}"));
    let of_cart: Vec<_> = routes(&shop(&more))
        .into_iter()
        .filter(|route| route.service.as_ref().unwrap().hostname.starts_with("cart"))
        .map(|route| route.id.split('/').nth(2).unwrap().to_owned())
        .collect();
    assert_eq!(of_cart, ["own", "mid", "new", "old"]);
}

#[test]
fn virtual_services_that_are_not_for_the_mesh_or_not_seen_do_not_count() {
    let other = format!("hosts: [cart.shop.svc.cluster.local], http: [{{{TILL}}}]");
    let elsewhere = virtual_service("v", &other).replace("namespace: shop", "namespace: bank");
    let cases = [
        (virtual_service("v", &format!("hosts: [cart], gateways: [g], http: [{{{TILL}}}]")), 0),
        (
            virtual_service(
                "v",
                &format!("hosts: [cart], gateways: [g, mesh], http: [{{{TILL}}}]"),
            ),
            1,
        ),
        (virtual_service("v", &format!("hosts: [cart], exportTo: [bank], http: [{{{TILL}}}]")), 0),
        (elsewhere, 0),
        (virtual_service("v", &format!("hosts: [nobody], http: [{{{TILL}}}]")), 0),
    ];
    for (yaml, expected) in cases {
        assert_eq!(told(&yaml).len(), expected, "{yaml}");
    }
}

#[test]
fn conditions_that_are_decided_beforehand_drop_their_entries() {
    let cases = [
        ("gateways: [g]", 0),
        ("gateways: [g], sourceLabels: {app: web}", 0),
        ("headers: {'@request.auth.claims.a': {exact: b}}", 1),
        ("withoutHeaders: {'@request.auth.claims.a': {exact: b}}", 1),
        ("headers: {':method': {exact: GET}}", 1),
        ("headers: {':method': {exact: GET}}, method: {exact: GET}", 1),
        ("headers: {':path': {prefix: /a}}", 1),
        ("withoutHeaders: {':method': {exact: GET}}", 1),
        ("port: 80", 1),
        ("port: 81", 0),
    ];
    for (conditions, expected) in cases {
        let spec = format!("hosts: [cart], http: [{{match: [{{{conditions}}}], {TILL}}}]");
        assert_eq!(told(&virtual_service("v", &spec)).len(), expected, "{conditions}");
    }
}

#[test]
fn what_is_for_those_with_a_claim_is_for_nobody_and_leaves_no_service_without_routes() {
    let claim = "'@request.auth.claims.a': {exact: b}";
    let matched = |name: &str, conditions: &str| {
        let fields = format!("match: [{{uri: {{prefix: /a}}, {name}: {{{conditions}}}}}], {TILL}");
        http(&fields).r#match.unwrap()
    };
    assert_eq!(matched("headers", claim), never());
    let without = matched("withoutHeaders", claim);
    assert_eq!(without, matched("headers", ""), "nobody has one");
}

#[test]
fn labels_of_clients_are_told_unless_gateways_decide() {
    let web = [("app", "web")];
    let cases = [
        (format!("http: [{{match: [{{sourceLabels: {{app: web}}}}], {TILL}}}]"), &web[..]),
        (
            format!(
                "http: [{{match: [{{sourceLabels: {{app: web}}, gateways: [mesh]}}], {TILL}}}]"
            ),
            &[],
        ),
        (format!("http: [{{match: [{{uri: {{prefix: /a}}}}], {TILL}}}]"), &[]),
        (format!("tcp: [{{match: [{{sourceLabels: {{app: web}}}}], {TILL}}}]"), &web),
        (
            format!(
                "tls: [{{match: [{{sniHosts: [cart.shop.svc.cluster.local], sourceLabels: {{app: \
                 web}}}}], {TILL}}}]"
            ),
            &web,
        ),
    ];
    for (spec, expected) in cases {
        let found = routes(&shop(&virtual_service("v", &format!("hosts: [cart], {spec}"))));
        let [route] = found.as_slice() else { panic!("{spec}: {found:#?}") };
        let labels =
            route.client_labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        assert_eq!(labels.collect::<Vec<_>>(), expected, "{spec}");
    }
}

#[test]
fn the_namespace_of_clients_is_told_unless_gateways_decide() {
    let own = "sniHosts: [cart.shop.svc.cluster.local]";
    for (list, conditions, expected) in [
        ("http", "sourceNamespace: bank", "bank"),
        ("http", "sourceNamespace: shop", "shop"),
        ("http", "sourceNamespace: bank, gateways: [mesh]", ""),
        ("tcp", "sourceNamespace: bank", "bank"),
        ("tls", &format!("{own}, sourceNamespace: bank"), "bank"),
    ] {
        let spec = format!("hosts: [cart], {list}: [{{match: [{{{conditions}}}], {TILL}}}]");
        let found = routes(&shop(&virtual_service("v", &spec)));
        let [route] = found.as_slice() else { panic!("{spec}: {found:#?}") };
        assert_eq!(route.source_namespace, expected, "{spec}");
    }
}

#[test]
fn what_takes_everything_of_some_clients_stays_in_its_place_and_leaves_the_rest_to_others() {
    for some in ["match: [{sourceLabels: {app: web}}]", "match: [{sourceNamespace: bank}]"] {
        let spec = format!(
            "hosts: [cart], http: [{{name: a, {some}, {TILL}}}, {{name: b, match: [{{method: \
             {{exact: GET}}}}], {TILL}}}, {{name: c, {TILL}}}, {{name: d, {some}, {TILL}}}]"
        );
        let expected = ["v/http/0/0 [] a", "v/http/1/0 [] b", "v/http/2/0 [] c"];
        assert_eq!(told(&virtual_service("v", &spec)), expected);
        let spec = format!("hosts: [cart], tcp: [{{{some}, {TILL}}}, {{{TILL}}}, {{{TILL}}}]");
        assert_eq!(told(&virtual_service("v", &spec)), ["v/tcp/0/0 [] ", "v/tcp/1/0 [] "]);
    }
}

#[test]
fn what_is_said_of_retries_holds_for_clients_that_no_route_is_for() {
    let config = "---
{apiVersion: v1, kind: ConfigMap, metadata: {name: istio, namespace: istio-system}, data: {mesh: \
 'defaultHttpRetryPolicy: {attempts: 7}'}}
";
    let labelled = "match: [{sourceLabels: {app: web}}]";
    let spec = format!("hosts: [cart, till], http: [{{name: a, {labelled}, {TILL}}}]");
    let told = told(&(virtual_service("v", &spec) + config));
    let expected = ["v/http/0/0 [] a", "default [] default"].repeat(2);
    assert_eq!(told, expected, "behind those for some, of each service");
}

#[test]
fn every_condition_is_told() {
    let conditions = "uri: {prefix: /a}, ignoreUriCase: true, scheme: {exact: https}, method: \
         {regex: 'GET|PUT'}, authority: {prefix: cart}, headers: {X-User: {exact: jason}, y: {}, z: \
         {regex: '*'}}, withoutHeaders: {q: {exact: b}, ':method': {exact: PUT}}, queryParams: {Debug: {exact: ''}}";
    let matched = http(&format!("match: [{{{conditions}}}], {TILL}")).r#match.unwrap();
    let path = matched.path.unwrap();
    assert_eq!(path.kind, Some(path_match::Kind::Prefix("/a".into())));
    assert!(path.ignore_case);
    let kind = |text: &Option<l7::StringMatch>| text.clone().unwrap().kind.unwrap();
    assert_eq!(kind(&matched.scheme), string_match::Kind::Exact("https".into()));
    assert_eq!(kind(&matched.method), string_match::Kind::Regex("GET|PUT".into()));
    assert_eq!(kind(&matched.authority), string_match::Kind::Prefix("cart".into()));
    let headers: Vec<_> =
        matched.headers.iter().map(|h| (h.name.as_str(), kind(&h.value), h.invert)).collect();
    let expected = [
        ("x-user", string_match::Kind::Exact("jason".into()), false),
        ("y", string_match::Kind::Present(true), false),
        ("z", string_match::Kind::Present(true), false),
        (":method", string_match::Kind::Exact("PUT".into()), true),
        ("q", string_match::Kind::Exact("b".into()), true),
    ];
    assert_eq!(headers, expected);
    let [query] = matched.query.as_slice() else { panic!("{:?}", matched.query) };
    assert_eq!(query.name, "Debug");
    assert_eq!(kind(&query.value), string_match::Kind::Exact(String::new()));
}
