//! What is said of routes that are accepted and do not do what they seem to.

use super::{shop, virtual_service};
use crate::{
    fixture::object,
    mesh::{Event, Mesh, Warning},
};

const TO: &str = "route: [{destination: {host: till}}]";

/// All warnings of a mesh but that of its waypoint, which nobody runs, in the order of their texts.
fn warnings(mesh: &Mesh) -> Vec<String> {
    let warnings = mesh.warnings().into_values().flatten();
    let of_routes = warnings.filter(|warning| !matches!(warning, Warning::WaypointNotReady(_)));
    let mut warnings: Vec<_> = of_routes.map(|warning| warning.to_string()).collect();
    warnings.sort();
    warnings
}

#[test]
fn what_virtual_services_say_without_effect_is_told_with_its_field() {
    let http = |fields: &str| format!("http: [{{{fields}, {TO}}}]");
    let claim = "'@request.auth.claims.a': {exact: b}";
    let own = "cart.shop.svc.cluster.local";
    let cases = [
        (http("match: [{uri: {regex: /a.*}}]"), None),
        (http("match: [{uri: {prefix: /a}}], rewrite: {uri: /b}"), None),
        (http("fault: {abort: {httpStatus: 500, percentage: {value: 0}}}"), None),
        (http("fault: {delay: {fixedDelay: 1s, percent: 1}}"), None),
        (http(&format!("match: [{{headers: {{{claim}}}}}]")), Some("spec.http[0].match[0]")),
        (
            http(&format!("match: [{{withoutHeaders: {{{claim}}}}}]")),
            Some("spec.http[0].match[0].withoutHeaders.@request.auth.claims.a"),
        ),
        (http("match: [{statPrefix: a}]"), Some("spec.http[0].match[0].statPrefix")),
        (http("match: [{uri: {regex: /a}}], rewrite: {uri: /b}"), Some("spec.http[0].rewrite.uri")),
        (http("fault: {delay: {fixedDelay: 1s}}"), Some("spec.http[0].fault.delay")),
        (http("fault: {abort: {httpStatus: 500}}"), Some("spec.http[0].fault.abort")),
        (format!("http: [{{{TO}}}, {{{TO}}}, {{{TO}}}]"), Some("spec.http[1]")),
        (
            format!("http: [{{match: [{{uri: {{prefix: /}}}}], {TO}}}, {{{TO}}}]"),
            Some("spec.http[1]"),
        ),
        (format!("http: [{{match: [{{port: 80}}], {TO}}}, {{{TO}}}]"), None),
        (format!("http: [{{match: [{{sourceNamespace: a}}], {TO}}}, {{{TO}}}]"), None),
        (format!("tls: [{{match: [{{sniHosts: [{own}]}}], {TO}}}]"), None),
        (
            format!("tls: [{{match: [{{sniHosts: [{own}, a]}}], {TO}}}]"),
            Some("spec.tls[0].match[0]"),
        ),
        (format!("tls: [{{match: [{{sniHosts: ['*.a']}}], {TO}}}]"), Some("spec.tls[0].match[0]")),
        (
            format!("tcp: [{{match: [{{sourceSubnet: 10.0.0.0/8}}], {TO}}}]"),
            Some("spec.tcp[0].match[0]"),
        ),
        (format!("gateways: [g], {}", http("match: [{statPrefix: a}]")), None),
    ];
    for (spec, expected) in cases {
        let mut mesh = shop(&virtual_service("v", &format!("hosts: [cart], {spec}")));
        let found = warnings(&mesh);
        let fields: Vec<_> =
            found.iter().map(|text| text.split(" has no effect: ").next()).collect();
        assert_eq!(fields, Vec::from_iter(expected.map(Some)), "{spec}");
        let corrected = virtual_service("v", &format!("hosts: [cart], http: [{{{TO}}}]"));
        mesh.apply(vec![Event::Applied(object(&corrected))]);
        assert_eq!(warnings(&mesh), [""; 0], "{spec}");
    }
}

#[test]
fn destinations_and_delegates_that_are_not_there_are_told_until_they_are() {
    let to = |host: &str| format!("http: [{{route: [{{destination: {{host: {host}}}}}]}}]");
    let mut mesh = shop(&virtual_service("v", &format!("hosts: [cart], {}", to("nobody"))));
    let found = warnings(&mesh);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("routed to nobody.shop.svc.cluster.local fail"), "{found:?}");
    let nobody = "{apiVersion: v1, kind: Service, metadata: {name: nobody, namespace: shop}, spec: \
                  {ports: [{port: 80}]}}";
    mesh.apply(vec![Event::Applied(object(nobody))]);
    assert_eq!(warnings(&mesh), [""; 0]);

    let delegates = virtual_service("v", "hosts: [cart], http: [{delegate: {name: d}}]");
    mesh.apply(vec![Event::Applied(object(&delegates))]);
    let found = warnings(&mesh);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("virtual service shop/v delegates to shop/d"), "{found:?}");
    let with_hosts = virtual_service("d", &format!("hosts: [till], {}", to("till")));
    mesh.apply(vec![Event::Applied(object(&with_hosts))]);
    assert_eq!(warnings(&mesh), found);
    mesh.apply(vec![Event::Applied(object(&virtual_service("d", &to("till"))))]);
    assert_eq!(warnings(&mesh), [""; 0]);
}

#[test]
fn routes_of_http_for_ports_that_carry_something_else_are_told() {
    for (fields, expected) in [
        ("match: [{port: 80}]", None),
        ("match: [{uri: {exact: /}}]", None),
        ("match: [{port: 9000}]", Some("virtualservice shop v routes requests of HTTP")),
    ] {
        let spec = format!("hosts: [cart], http: [{{{fields}, {TO}}}]");
        let found = warnings(&shop(&virtual_service("v", &spec)));
        assert_eq!(found.len(), expected.iter().count(), "{fields}: {found:?}");
        assert!(expected.is_none_or(|expected| found[0].starts_with(expected)), "{found:?}");
    }
}
