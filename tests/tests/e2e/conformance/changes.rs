//! What is changed of requests on their way.

use anyhow::Result;

use super::{Case, Test, get, http_route, redirects, run};

#[test]
fn requests_are_changed_and_redirected_as_the_gateway_api_wants_it() -> Result<()> {
    let changes = [header_modifier(), backend_header_modifier(), rewrite_path()];
    run("gchange", changes.into_iter().chain(redirects::tests()))
}

/// Paths, and what is done with the headers of requests to them.
const MODIFIERS: [(&str, &str); 5] = [
    ("/set", "set: [{name: X-Header-Set, value: set-overwrites-values}]"),
    ("/add", "add: [{name: X-Header-Add, value: add-appends-values}]"),
    ("/remove", "remove: [X-Header-Remove]"),
    (
        "/multiple",
        "set: [{name: X-Header-Set-1, value: header-set-1}, {name: X-Header-Set-2, value: \
         header-set-2}], add: [{name: X-Header-Add-1, value: header-add-1}, {name: X-Header-Add-2, \
         value: header-add-2}, {name: X-Header-Add-3, value: header-add-3}], remove: \
         [X-Header-Remove-1, X-Header-Remove-2]",
    ),
    (
        "/case-insensitivity",
        "set: [{name: X-Header-Set, value: header-set}], add: [{name: X-Header-Add, value: \
         header-add}], remove: [X-Header-Remove]",
    ),
];

fn header_modifier() -> Test {
    let rule = |path: &str, filter: &str| {
        format!(
            "{{matches: [{{path: {{value: {path}}}}}], filters: [{filter}], backendRefs: [{{name: \
             echo-v1, port: 80}}]}}"
        )
    };
    modifiers("MeshHTTPRouteRequestHeaderModifier", rule)
}

fn backend_header_modifier() -> Test {
    let rule = |path: &str, filter: &str| {
        format!(
            "{{matches: [{{path: {{value: {path}}}}}], backendRefs: [{{name: echo-v1, port: 80, \
             filters: [{filter}]}}]}}"
        )
    };
    modifiers("MeshHTTPRouteBackendRequestHeaderModifier", rule)
}

fn modifiers(name: &'static str, rule: impl Fn(&str, &str) -> String) -> Test {
    let rules = MODIFIERS.map(|(path, fields)| {
        let filter =
            format!("{{type: RequestHeaderModifier, requestHeaderModifier: {{{fields}}}}}");
        rule(path, &filter)
    });
    let manifests = http_route("headers", "echo", &rules.each_ref().map(String::as_str));
    Test { name, manifests, cases: header_cases() }
}

fn header_cases() -> Vec<Case> {
    let set = |case: Case| {
        case.arrives("some-other-header", "val").arrives("x-header-set", "set-overwrites-values")
    };
    let to = |target: &str| get(target).at("echo-v1").header("Some-Other-Header", "val");
    vec![
        set(to("echo/set")),
        set(to("echo/set").header("X-Header-Set", "some-other-value")),
        to("echo/add")
            .arrives("some-other-header", "val")
            .arrives("x-header-add", "add-appends-values"),
        to("echo/add")
            .header("X-Header-Add", "some-other-value")
            .arrives("x-header-add", "some-other-value,add-appends-values"),
        get("echo/remove")
            .header("X-Header-Remove", "val")
            .at("echo-v1")
            .does_not_arrive("x-header-remove"),
        get("echo/multiple")
            .header("X-Header-Set-2", "set-val-2")
            .header("X-Header-Add-2", "add-val-2")
            .header("X-Header-Remove-2", "remove-val-2")
            .header("Another-Header", "another-header-val")
            .at("echo-v1")
            .arrives("x-header-set-1", "header-set-1")
            .arrives("x-header-set-2", "header-set-2")
            .arrives("x-header-add-1", "header-add-1")
            .arrives("x-header-add-2", "add-val-2,header-add-2")
            .arrives("x-header-add-3", "header-add-3")
            .arrives("another-header", "another-header-val")
            .does_not_arrive("x-header-remove-1")
            .does_not_arrive("x-header-remove-2"),
        get("echo/case-insensitivity")
            .header("x-header-set", "original-val-set")
            .header("x-header-add", "original-val-add")
            .header("x-header-remove", "original-val-remove")
            .header("Another-Header", "another-header-val")
            .at("echo-v1")
            .arrives("x-header-set", "header-set")
            .arrives("x-header-add", "original-val-add,header-add")
            .arrives("another-header", "another-header-val")
            .does_not_arrive("x-header-remove"),
    ]
}

fn rewrite_path() -> Test {
    const NOTHING: &str = "{type: RequestHeaderModifier, requestHeaderModifier: {}}";
    const HEADERS: &str = "{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: \
                           X-Header-Set, value: set-overwrites-values}], add: [{name: X-Header-Add, \
                           value: header-val-1}, {name: X-Header-Add-Append, value: header-val-2}], \
                           remove: [X-Header-Remove]}}";
    let prefix = |to: &str| format!("{{type: ReplacePrefixMatch, replacePrefixMatch: {to}}}");
    let full = |to: &str| format!("{{type: ReplaceFullPath, replaceFullPath: {to}}}");
    let rules = [
        ("/prefix/one", prefix("/one"), NOTHING),
        ("/strip-prefix", prefix("/"), NOTHING),
        ("/full/one", full("/one"), NOTHING),
        ("/full/rewrite-path-and-modify-headers", full("/test"), HEADERS),
        ("/prefix/rewrite-path-and-modify-headers", prefix("/prefix"), HEADERS),
    ];
    let rules = rules.map(|(path, to, more)| {
        format!(
            "{{matches: [{{path: {{value: {path}}}}}], filters: [{{type: URLRewrite, urlRewrite: \
             {{path: {to}}}}}, {more}], backendRefs: [{{name: echo-v1, port: 80}}]}}"
        )
    });
    let changed = |target: &str, path: &'static str| {
        get(target)
            .header("X-Header-Remove", "remove-val")
            .header("X-Header-Add-Append", "append-val-1")
            .header("X-Header-Set", "set-val")
            .at("echo-v1")
            .path(path)
            .arrives("x-header-add", "header-val-1")
            .arrives("x-header-add-append", "append-val-1,header-val-2")
            .arrives("x-header-set", "set-overwrites-values")
            .does_not_arrive("x-header-remove")
    };
    Test {
        name: "MeshHTTPRouteRewritePath",
        manifests: http_route("rewrite", "echo", &rules.each_ref().map(String::as_str)),
        cases: vec![
            get("echo/prefix/one/two").at("echo-v1").path("/one/two"),
            get("echo/strip-prefix/three").at("echo-v1").path("/three"),
            get("echo/strip-prefix").at("echo-v1").path("/"),
            get("echo/full/one/two").at("echo-v1").path("/one"),
            changed("echo/full/rewrite-path-and-modify-headers/test", "/test"),
            changed("echo/prefix/rewrite-path-and-modify-headers/one", "/prefix/one"),
        ],
    }
}
