//! Which requests a route is for.

use anyhow::Result;

use super::{Test, get, http_route, route_of, run};

const V1: &str = "backendRefs: [{name: echo-v1, port: 80}]";
const V2: &str = "backendRefs: [{name: echo-v2, port: 80}]";

#[test]
fn requests_are_matched_as_the_gateway_api_wants_it() -> Result<()> {
    let matching = [
        basic(),
        simple(),
        matching(),
        query_parameters(),
        named_rule(),
        split(),
        order(),
        across_routes(),
    ];
    let frontends = [frontend(), frontend_hostname(), ports(), consumer_route()];
    run("gmatch", matching.into_iter().chain(frontends))
}

fn rule(matches: &str, backend: &str) -> String {
    format!("{{matches: [{matches}], {backend}}}")
}

fn attached(name: &str, parent: &str, rules: &[(&str, &str)]) -> String {
    let rules: Vec<_> = rules.iter().map(|(matches, backend)| rule(matches, backend)).collect();
    http_route(name, parent, &rules.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Returns a rule that marks the answers of a backend.
fn marked(value: &str, backend: &str) -> String {
    let set = format!("set: [{{name: X-Header-Set, value: {value}}}]");
    let filter = format!("{{type: ResponseHeaderModifier, responseHeaderModifier: {{{set}}}}}");
    format!("{{filters: [{filter}], {backend}}}")
}

fn basic() -> Test {
    Test { name: "MeshBasic", manifests: String::new(), cases: vec![get("echo")] }
}

fn simple() -> Test {
    Test {
        name: "MeshHTTPRouteSimpleSameNamespace",
        manifests: http_route("simple", "echo", &[&format!("{{{V1}}}")]),
        cases: vec![get("echo/").at("echo-v1")],
    }
}

fn matching() -> Test {
    let rules = [
        ("{path: {value: /}}, {headers: [{name: version, value: one}]}", V1),
        ("{path: {value: /v2}}, {headers: [{name: version, value: two}]}", V2),
    ];
    Test {
        name: "MeshHTTPRouteMatching",
        manifests: attached("matching", "echo", &rules),
        cases: vec![
            get("echo/").at("echo-v1"),
            get("echo/example").at("echo-v1"),
            get("echo/").header("Version", "one").at("echo-v1"),
            get("echo/v2").at("echo-v2"),
            get("echo/v2/example").at("echo-v2"),
            get("echo/").header("Version", "two").at("echo-v2"),
            get("echo/v2/").at("echo-v2"),
            // Not the same element of the path.
            get("echo/v2example").at("echo-v1"),
            get("echo/foo/v2/example").at("echo-v1"),
        ],
    }
}

fn query_parameters() -> Test {
    let rules = [
        ("{queryParams: [{name: animal, value: whale}]}", V1),
        ("{queryParams: [{name: animal, value: dolphin}]}", V2),
        // With other conditions, all of which have to hold.
        ("{path: {value: /path1}, queryParams: [{name: animal, value: whale}]}", V1),
        (
            "{headers: [{name: version, value: one}], queryParams: [{name: animal, value: whale}]}",
            V2,
        ),
        // Any of these.
        (
            "{path: {value: /path3}, queryParams: [{name: animal, value: shark}]}, {path: {value: \
             /path4}, headers: [{name: version, value: three}], queryParams: [{name: animal, value: \
             kraken}]}",
            V1,
        ),
        // The path comes before the parameter.
        ("{path: {value: /path5}}", V1),
        ("{queryParams: [{name: animal, value: hydra}]}", V2),
    ];
    Test {
        name: "MeshHTTPRouteQueryParamMatching",
        manifests: attached("query", "echo", &rules),
        cases: vec![
            get("echo/?animal=whale").at("echo-v1"),
            get("echo/?animal=dolphin").at("echo-v2"),
            get("echo/?animal=whale&otherparam=irrelevant").at("echo-v1"),
            get("echo/?animal=dolphin&color=yellow").at("echo-v2"),
            get("echo/?color=blue").status(404),
            get("echo/?animal=dog").status(404),
            get("echo/?animal=whaledolphin").status(404),
            get("echo/").status(404),
            get("echo/path1?animal=whale").at("echo-v1"),
            get("echo/?animal=whale").header("version", "one").at("echo-v2"),
            get("echo/path3?animal=shark").at("echo-v1"),
            get("echo/path4?animal=kraken").header("version", "three").at("echo-v1"),
            get("echo/?animal=shark").status(404),
            get("echo/path4?animal=kraken").status(404),
            get("echo/path5?animal=hydra").at("echo-v1"),
            get("echo/?animal=hydra").at("echo-v2"),
        ],
    }
}

fn named_rule() -> Test {
    let named = format!("{{name: named-rule, matches: [{{path: {{value: /named}}}}], {V1}}}");
    let unnamed = rule("{path: {value: /unnamed}}", V2);
    Test {
        name: "MeshHTTPRouteNamedRule",
        manifests: http_route("http-named-rules", "echo:80", &[&named, &unnamed]),
        cases: vec![
            get("echo/named").at("echo-v1").path("/named"),
            get("echo/unnamed").at("echo-v2").path("/unnamed"),
        ],
    }
}

fn split() -> Test {
    let exact = |path: &str| format!("{{path: {{type: Exact, value: {path}}}}}");
    let (v1, v2) = (exact("/v1"), exact("/v2"));
    Test {
        name: "MeshTrafficSplit",
        manifests: attached("mesh-split", "echo", &[(&v1, V1), (&v2, V2)]),
        cases: vec![get("echo/v1").at("echo-v1"), get("echo/v2").at("echo-v2")],
    }
}

/// Of the suite for gateways: what comes first within a route.
fn order() -> Test {
    let path = |kind: &str, value: &str| format!("{{path: {{type: {kind}, value: {value}}}}}");
    let rules = [
        (path("RegularExpression", "'/match.*'"), V2),
        (path("PathPrefix", "/match/"), V1),
        (path("PathPrefix", "/match/prefix"), V2),
        (path("Exact", "/match/exact"), V2),
        ("{path: {value: /method}, method: POST}".to_owned(), V1),
        ("{path: {value: /method}, method: GET}".to_owned(), V2),
        ("{headers: [{name: version, value: two}, {name: color, value: blue}]}".to_owned(), V2),
        ("{headers: [{name: version, value: two}]}".to_owned(), V1),
    ];
    let rules = rules.each_ref().map(|(matched, backend)| (matched.as_str(), *backend));
    Test {
        name: "HTTPRoutePathMatchOrder, HTTPRouteMethodMatching, HTTPRouteHeaderMatching",
        manifests: attached("order", "echo", &rules),
        cases: vec![
            get("echo/match").at("echo-v1"),
            get("echo/matching").at("echo-v2"),
            get("echo/match/any").at("echo-v1"),
            get("echo/match/prefix/x").at("echo-v2"),
            get("echo/match/prefixed").at("echo-v1"),
            get("echo/match/exact").at("echo-v2"),
            get("echo/match/exact/").at("echo-v1"),
            get("echo/method").at("echo-v2"),
            get("echo/method").with(&["-X", "POST"]).at("echo-v1"),
            get("echo/method").with(&["-X", "PUT"]).status(404),
            get("echo/").header("version", "two").at("echo-v1"),
            get("echo/").header("version", "two").header("color", "blue").at("echo-v2"),
            get("echo/").header("version", "two").header("color", "blues").at("echo-v1"),
            get("echo/").header("color", "blue").status(404),
        ],
    }
}

/// Of the suite for gateways: what comes first among routes.
fn across_routes() -> Test {
    let routes = [
        attached("one", "echo", &[("{path: {value: /}}", V1), ("{path: {value: /a/b}}", V1)]),
        attached("two", "echo", &[("{path: {value: /a}}", V2), ("{path: {value: /}}", V2)]),
        attached("three", "echo:8080", &[("{path: {value: /a/b/c}}", V2)]),
    ];
    Test {
        name: "HTTPRouteMatchingAcrossRoutes",
        manifests: fairlead_lab::manifest::join(routes),
        cases: vec![
            get("echo/").at("echo-v1"),
            get("echo/a").at("echo-v2"),
            get("echo/a/b").at("echo-v1"),
            get("echo/a/b/c").at("echo-v1"),
            get("echo:8080/a/b/c").at("echo-v2"),
            get("echo:8080/a/b").at("echo-v1"),
        ],
    }
}

fn frontend() -> Test {
    Test {
        name: "MeshFrontend",
        manifests: http_route("mesh-frontend", "echo-v2", &[&marked("set", V2)]),
        cases: vec![
            get("echo-v2").at("echo-v2").answered("x-header-set", "set"),
            // Whoever asks a pod asks no frontend.
            get("pod-v2").at("echo-v2").not_answered("x-header-set"),
        ],
    }
}

fn frontend_hostname() -> Test {
    Test {
        name: "MeshFrontendHostname",
        manifests: frontend().manifests,
        cases: vec![
            get("echo-v2").header("Host", "echo-v1").at("echo-v2").answered("x-header-set", "set"),
            get("echo-v1").header("Host", "echo-v2").at("echo-v1").not_answered("x-header-set"),
        ],
    }
}

fn ports() -> Test {
    let one = http_route("mesh-ports-set", "echo-v1:80", &[&marked("v1", V1)]);
    let all = http_route("mesh-ports-all", "echo-v2", &[&marked("v2", V2)]);
    Test {
        name: "MeshPorts",
        manifests: fairlead_lab::manifest::join([one, all]),
        cases: vec![
            get("echo-v1").at("echo-v1").answered("x-header-set", "v1"),
            get("echo-v1:8080").at("echo-v1").not_answered("x-header-set"),
            get("echo-v2").at("echo-v2").answered("x-header-set", "v2"),
            get("echo-v2:8080").at("echo-v2").answered("x-header-set", "v2"),
        ],
    }
}

fn consumer_route() -> Test {
    let backend = "backendRefs: [{name: echo-v1, namespace: shop, port: 80}]";
    let rules = [marked("set", backend)];
    let name = ["tools", "mesh-echo-add-header"];
    Test {
        name: "MeshConsumerRoute",
        manifests: route_of("HTTPRoute", name, "echo-v1", &[&rules[0]]),
        cases: vec![
            get("echo-v1/").sent_by_consumer().at("echo-v1").answered("x-header-set", "set"),
            get("echo-v1/").at("echo-v1").not_answered("x-header-set"),
        ],
    }
}
