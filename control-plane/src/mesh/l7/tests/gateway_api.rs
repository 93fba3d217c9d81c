use mesh_api::proto::l7::{
    Forward, HttpRoute, PortOrigin, RetryOn, http_route::Action, path_match, redirect, rewrite,
    route::Traffic, string_match,
};

use super::{shop, virtual_service};
use crate::{fixture::routes, mesh::l7::matching::never};

/// A route of the namespace `shop`, attached to `cart`.
fn route(kind: &str, name: &str, fields: &str) -> String {
    let version = if kind == "GRPCRoute" { "v1alpha2" } else { "v1beta1" };
    format!(
        "---\n{{apiVersion: gateway.networking.k8s.io/{version}, kind: {kind}, metadata: {{name: \
         {name}, namespace: shop}}, spec: {{parentRefs: [{{group: '', kind: Service, name: cart}}], \
         {fields}}}}}\n"
    )
}

/// The only route of `cart` with one rule, which has `fields`.
fn http(fields: &str) -> HttpRoute {
    let routes = routes(&shop(&route("HTTPRoute", "r", &format!("rules: [{{{fields}}}]"))));
    let [route] = routes.as_slice() else { panic!("{routes:#?}") };
    let Some(Traffic::Http(http)) = route.traffic.clone() else { panic!("{route:#?}") };
    http
}

/// A backend that is there.
const TILL: &str = "backendRefs: [{name: till, port: 8080}]";

fn forward(fields: &str) -> Forward {
    let Some(Action::Forward(forward)) = http(&format!("{TILL}, {fields}")).action else {
        panic!()
    };
    forward
}

/// Ids of the routes, in the order in which they are tried.
fn told(more: &str) -> Vec<String> {
    routes(&shop(more)).into_iter().map(|route| route.id).collect()
}

#[test]
fn rules_are_tried_by_how_close_they_are_across_routes() {
    let matches = [
        "path: {type: RegularExpression, value: '/a.*'}",
        "path: {value: /}",
        "path: {value: /a}",
        "path: {value: /a/b/}",
        "path: {value: /a}, headers: [{name: x, value: y}]",
        "path: {value: /a}, queryParams: [{name: x, value: y}]",
        "path: {value: /a}, method: GET",
        "path: {type: Exact, value: /a}",
    ];
    let rules: Vec<_> = matches.iter().map(|m| format!("{{matches: [{{{m}}}], {TILL}}}")).collect();
    let first = route("HTTPRoute", "b", &format!("rules: [{}]", rules.join(", ")));
    let dated = "namespace: shop, creationTimestamp: '2026'";
    let first = first.replace("namespace: shop", dated);
    let second = route("HTTPRoute", "a", &format!("rules: [{{{TILL}}}]"));
    let second = second.replace("namespace: shop", "namespace: shop, creationTimestamp: '2027'");
    let grpc = route("GRPCRoute", "g", "rules: [{matches: [{method: {service: s}}]}]");
    let spec = "hosts: [cart], http: [{route: [{destination: {host: till}}]}]";
    let virtual_service = virtual_service("v", spec);
    let expected: Vec<_> = [
        "grpcroute/shop/g/0/0",
        "httproute/shop/b/7/0",
        "httproute/shop/b/3/0",
        "httproute/shop/b/6/0",
        "httproute/shop/b/4/0",
        "httproute/shop/b/5/0",
        "httproute/shop/b/2/0",
        "httproute/shop/b/1/0",
        "httproute/shop/a/0/0",
        "httproute/shop/b/0/0",
        "virtualservice/shop/v/http/0/0",
    ]
    .map(str::to_owned)
    .into();
    assert_eq!(told(&(first + &second + &grpc + &virtual_service)), expected);
}

#[test]
fn routes_are_attached_to_services_and_ports_that_are_there() {
    let with = |parents: &str, namespace: &str| {
        let route = route("HTTPRoute", "r", &format!("rules: [{{{TILL}}}]"));
        let parent = "{group: '', kind: Service, name: cart}";
        let route = route.replace(parent, parents);
        route.replace("name: r, namespace: shop", &format!("name: r, namespace: {namespace}"))
    };
    let to_cart = "{group: '', kind: Service, name: cart, namespace: shop}";
    let cases = [
        (with("{kind: Service, group: core, name: cart}", "shop"), Some(vec![])),
        (with("{kind: Service, group: '', name: cart, port: 80}", "shop"), Some(vec![80])),
        (with("{kind: Service, group: '', name: cart, port: 81}", "shop"), None),
        (
            with("{kind: Service, group: '', name: cart, sectionName: tcp}", "shop"),
            Some(vec![9000]),
        ),
        (with("{kind: Service, group: '', name: cart, sectionName: no}", "shop"), None),
        (with("{kind: Service, group: '', name: cart, sectionName: tcp, port: 80}", "shop"), None),
        (with("{name: cart}", "shop"), None),
        (with("{kind: Service, group: '', name: nobody}", "shop"), None),
        (with(to_cart, "bank"), Some(vec![])),
    ];
    for (yaml, expected) in cases {
        let found = routes(&shop(&yaml)).first().map(|route| route.ports.clone());
        assert_eq!(found, expected, "{yaml}");
    }
    let entry = "---
{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: api, namespace: shop}, \
 spec: {hosts: [api.example.com], resolution: DNS, ports: [{number: 80, name: http}]}}
";
    let parent = "{group: networking.istio.io, kind: ServiceEntry, name: api}";
    let found = routes(&shop(&(entry.to_owned() + &with(parent, "shop"))));
    assert_eq!(found[0].service.as_ref().unwrap().hostname, "api.example.com");
}

#[test]
fn conditions_are_told_and_the_first_of_a_name_counts() {
    let matched = http(&format!(
        "matches: [{{path: {{value: /a}}, method: GET, headers: [{{name: X, value: a}}, {{name: x, \
         value: b}}], queryParams: [{{name: Q, type: RegularExpression, value: c.*}}]}}], {TILL}"
    ))
    .r#match
    .unwrap();
    assert_eq!(matched.path.unwrap().kind, Some(path_match::Kind::Elements("/a".into())));
    assert_eq!(matched.method.unwrap().kind, Some(string_match::Kind::Exact("GET".into())));
    let headers: Vec<_> =
        matched.headers.into_iter().map(|h| (h.name, h.value.unwrap().kind.unwrap())).collect();
    assert_eq!(headers, [("x".to_owned(), string_match::Kind::Exact("a".into()))]);
    let query = matched.query[0].value.clone().unwrap().kind;
    assert_eq!(query, Some(string_match::Kind::Regex("c.*".into())));
    let everything = http(TILL).r#match.unwrap().path.unwrap().kind;
    assert_eq!(everything, Some(path_match::Kind::Elements("/".into())));
}

#[test]
fn calls_are_matched_by_their_path() {
    let path = |method: &str| {
        let rules = format!("rules: [{{matches: [{{method: {{{method}}}}}], {TILL}}}]");
        let routes = routes(&shop(&route("GRPCRoute", "r", &rules)));
        let Some(Traffic::Http(http)) = routes[0].traffic.clone() else { panic!() };
        http.r#match.unwrap().path.map(|path| path.kind.unwrap())
    };
    let cases = [
        ("service: a.B, method: C", path_match::Kind::Exact("/a.B/C".into())),
        ("service: a.B", path_match::Kind::Prefix("/a.B/".into())),
        ("method: C.D", path_match::Kind::Regex("/[^/]+/C\\.D".into())),
        ("type: RegularExpression, service: a.*", path_match::Kind::Regex("/(?:a.*)/[^/]+".into())),
    ];
    for (method, expected) in cases {
        assert_eq!(path(method), Some(expected), "{method}");
    }
    assert_eq!(path(""), None);
}

#[test]
fn backends_that_cannot_be_meant_refuse_their_share() {
    let Some(Action::Forward(forward)) = http(
        "backendRefs: [{name: till, port: 8080, weight: 3}, {name: nobody, port: 80}, {name: till, \
         port: 1}, {name: till}, {kind: Pod, name: x, port: 1, weight: 0}, {group: \
         networking.istio.io, kind: Hostname, name: till.shop.svc.cluster.local, port: 8080}, {name: \
         till, port: 8080, filters: [{type: ExtensionRef}]}, {name: till, port: 8080, filters: [{type: \
         URLRewrite, urlRewrite: {hostname: h}}]}]",
    )
    .action
    else {
        panic!()
    };
    let told: Vec<_> =
        forward.destinations.iter().map(|to| (to.port, to.weight, to.refusal)).collect();
    let expected = [
        (8080, 3, 0),
        (0, 1, 500),
        (0, 1, 500),
        (0, 1, 500),
        (0, 0, 500),
        (8080, 1, 0),
        (0, 1, 500),
        (0, 1, 500),
    ];
    assert_eq!(told, expected);
    assert!(
        forward.destinations.iter().all(|to| !to.service.as_ref().unwrap().namespace.is_empty())
    );
}

#[test]
fn filters_are_told() {
    let all = http(&format!(
        "{TILL}, filters: [{{type: RequestHeaderModifier, requestHeaderModifier: {{set: [{{name: X, \
         value: 50%}}], remove: [Y]}}}}, {{type: ResponseHeaderModifier, responseHeaderModifier: \
         {{add: [{{name: Z, value: a}}]}}}}, {{type: URLRewrite, urlRewrite: {{hostname: h, path: \
         {{type: ReplacePrefixMatch, replacePrefixMatch: /b}}}}}}, {{type: RequestMirror, \
         requestMirror: {{backendRef: {{name: till, port: 8080}}, percent: 5}}}}, {{type: \
         RequestMirror, requestMirror: {{backendRef: {{name: till, port: 8080}}, fraction: \
         {{numerator: 1, denominator: 3}}}}}}, {{type: CORS, cors: {{allowOrigins: ['https://*.a.b', \
         '*']}}}}]"
    ));
    let request = all.request_headers.unwrap();
    assert_eq!((request.set[0].name.as_str(), request.set[0].value.as_str()), ("x", "50%%"));
    assert_eq!(request.remove, ["y"]);
    assert_eq!(all.response_headers.unwrap().add[0].name, "z");
    let Some(Action::Forward(forward)) = all.action else { panic!() };
    let rewrite = forward.rewrite.unwrap();
    assert_eq!(rewrite.path, Some(rewrite::Path::Prefix("/b".into())));
    assert_eq!(rewrite.authority, "h");
    let shares: Vec<_> = forward.mirrors.iter().map(|mirror| mirror.per_million).collect();
    assert_eq!(shares, [50_000, 333_333]);
    let cors = all.cors.unwrap();
    let origins: Vec<_> =
        cors.allow_origins.into_iter().map(|origin| origin.kind.unwrap()).collect();
    let wildcard = string_match::Kind::Regex("https://.+\\.a\\.b".into());
    assert_eq!(origins, [wildcard, string_match::Kind::Present(true)]);
    assert_eq!((cors.max_age.unwrap().seconds, cors.answer_unmatched), (5, true));
}

#[test]
fn redirects_are_told_and_what_is_not_understood_is_refused() {
    let redirected = |fields: &str| {
        let filter = format!("filters: [{{type: RequestRedirect, requestRedirect: {{{fields}}}}}]");
        let Some(Action::Redirect(redirect)) = http(&filter).action else { panic!() };
        (redirect.port.unwrap(), redirect.status, redirect.path)
    };
    let listener = redirect::Port::Derived(PortOrigin::Listener.into());
    let scheme = redirect::Port::Derived(PortOrigin::Scheme.into());
    assert_eq!(redirected("hostname: h"), (listener, 302, None));
    assert_eq!(redirected("scheme: https, statusCode: 301"), (scheme, 301, None));
    let full = Some(redirect::Path::Full("/b".into()));
    let path = "path: {type: ReplaceFullPath, replaceFullPath: /b}";
    assert_eq!(
        redirected(&format!("port: 8443, {path}")),
        (redirect::Port::Number(8443), 302, full)
    );
    let regex = "path: {type: RegularExpression, value: '/a.*'}";
    let prefix = "path: {type: ReplacePrefixMatch, replacePrefixMatch: /}";
    let unusable = format!(
        "matches: [{{{regex}}}], filters: [{{type: URLRewrite, urlRewrite: {{{prefix}}}}}]"
    );
    let broken = http(&format!("matches: [{{{}}}], {TILL}", regex.replace(".*", "(")));
    assert_eq!(broken.r#match, Some(never()), "it is there, so that nothing else is forwarded");
    let refused = [
        &unusable,
        "filters: [{type: ExtensionRef}]",
        "filters: [{type: RequestMirror}]",
        "filters: [{type: RequestRedirect, requestRedirect: {}}, {type: URLRewrite, urlRewrite: {}}]",
        "filters: [{type: RequestHeaderModifier, requestHeaderModifier: {remove: [Connection]}}]",
        "filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: host, value: \
         x}]}}]",
        "filters: [{type: RequestHeaderModifier, requestHeaderModifier: {add: [{name: x, value: \
         \"a\\nb\"}]}}]",
        "filters: [{type: URLRewrite, urlRewrite: {path: {replaceFullPath: /a b}}}]",
    ];
    for fields in refused {
        let action = http(&format!("{TILL}, {fields}")).action;
        assert!(matches!(action, Some(Action::DirectResponse(r)) if r.status == 500), "{fields}");
    }
    let Some(Action::Forward(forward)) = http("backendRefs: []").action else { panic!() };
    assert!(forward.destinations.is_empty());
}

#[test]
fn times_and_retries_are_told() {
    let seconds = |time: &Option<prost_types::Duration>| time.as_ref().map(|time| time.seconds);
    let usual = forward("timeouts: {request: 10s, backendRequest: 2s}");
    assert_eq!(seconds(&usual.timeout), Some(2));
    assert_eq!(usual.retry.unwrap().attempts, 2);
    assert_eq!(seconds(&forward("timeouts: {request: 0s}").timeout), None);
    let retried = forward(
        "timeouts: {request: 10s, backendRequest: 2s}, retry: {codes: [500, 503], backoff: 1s}",
    );
    assert_eq!(seconds(&retried.timeout), Some(10));
    let retry = retried.retry.unwrap();
    assert_eq!((retry.attempts, &*retry.statuses), (2, &[500, 503][..]));
    assert_eq!(
        (seconds(&retry.per_try_timeout), seconds(&retry.base_interval)),
        (Some(2), Some(1))
    );
    assert!(retry.on.contains(&RetryOn::ConnectFailure.into()));
}
