//! What becomes of requests that cannot be forwarded as they are, and beside those that are: tests of
//! the suite for gateways, as far as they say something of meshes.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use fairlead_lab::{manifest::join, wait_for};

use super::{
    Sender, Test, check, get, http_route, route_of, run,
    scene::{FELT, Scene, url},
};

const V1: &str = "backendRefs: [{name: echo-v1, port: 80}]";

#[test]
fn what_cannot_be_forwarded_is_answered_as_the_gateway_api_wants_it() -> Result<()> {
    run("gbehave", [invalid_backends(), reference_grant(), timeouts(), cors(), rewrite_host()])
}

fn at(path: &str, fields: &str) -> String {
    format!("{{matches: [{{path: {{value: {path}}}}}], {fields}}}")
}

fn invalid_backends() -> Test {
    let to = |backend: &str| format!("backendRefs: [{{{backend}}}]");
    let rules = [
        at("/missing", &to("name: nobody, port: 80")),
        at("/port", &to("name: echo-v1, port: 81")),
        at("/kind", &to("group: example.com, kind: Cup, name: tea, port: 80")),
        at("/none", "backendRefs: []"),
        at("/weightless", &to("name: echo-v1, port: 80, weight: 0")),
        at("/filter", &format!("filters: [{{type: ExtensionRef}}], {V1}")),
        at("/good", V1),
    ];
    let paths = ["missing", "port", "kind", "none", "weightless", "filter"];
    let refused = paths.map(|path| get(&format!("echo/{path}")).status(500));
    Test {
        name: "HTTPRouteInvalidNonExistentBackendRef, HTTPRouteInvalidBackendRefUnknownKind, \
               HTTPRouteNoBackendRefs",
        manifests: http_route("invalid", "echo", &rules.each_ref().map(String::as_str)),
        cases: refused.into_iter().chain([get("echo/good").at("echo-v1")]).collect(),
    }
}

fn reference_grant() -> Test {
    let to =
        |service: &str| format!("backendRefs: [{{name: {service}, namespace: shop, port: 80}}]");
    let rules = [at("/granted", &to("echo-v2")), at("/other", &to("echo"))];
    let grant = "apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {name: grant, namespace: shop}
spec:
  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: tools}]
  to: [{group: '', kind: Service, name: echo-v2}]
";
    let name = ["tools", "grants"];
    let route = route_of("HTTPRoute", name, "echo-v1", &rules.each_ref().map(String::as_str));
    Test {
        name: "HTTPRouteReferenceGrant, HTTPRouteInvalidCrossNamespaceBackendRef",
        manifests: join([route.as_str(), grant]),
        cases: vec![
            get("echo-v1/granted").sent_by_consumer().at("echo-v2"),
            get("echo-v1/other").sent_by_consumer().status(500),
            // Routes of their own are all that clients have.
            get("echo-v1/").sent_by_consumer().status(404),
            get("echo-v1/granted").at("echo-v1"),
        ],
    }
}

fn timeouts() -> Test {
    let limited = |limit: &str| format!("{V1}, timeouts: {{{limit}}}");
    let rules = [
        at("/request-timeout", &limited("request: 500ms")),
        at("/backend-timeout", &limited("backendRequest: 500ms")),
        at("/disable", &limited("request: 0s")),
    ];
    Test {
        name: "HTTPRouteTimeoutRequest, HTTPRouteTimeoutBackendRequest",
        manifests: http_route("timeouts", "echo", &rules.each_ref().map(String::as_str)),
        cases: vec![
            get("echo/request-timeout").header("x-answer-after", "6").status(504),
            get("echo/backend-timeout").header("x-answer-after", "6").status(504),
            get("echo/disable").header("x-answer-after", "1").at("echo-v1"),
        ],
    }
}

fn cors() -> Test {
    let cors = "{type: CORS, cors: {allowOrigins: ['https://www.foo.com', 'https://*.bar.com'], \
                allowMethods: [GET, OPTIONS], allowHeaders: [x-header-1, x-header-2], \
                exposeHeaders: [x-header-3], maxAge: 3600, allowCredentials: true}}";
    let rule = at("/", &format!("filters: [{cors}], {V1}"));
    let preflight = |origin: &'static str| {
        get("echo/")
            .with(&["-X", "OPTIONS"])
            .header("Origin", origin)
            .header("Access-Control-Request-Method", "GET")
            .header("Access-Control-Request-Headers", "x-header-1")
    };
    let allowed = |origin: &'static str| {
        preflight(origin)
            .answered("access-control-allow-origin", origin)
            .answered("access-control-allow-methods", "GET,OPTIONS")
            .answered("access-control-allow-headers", "x-header-1,x-header-2")
            .answered("access-control-max-age", "3600")
            .answered("access-control-allow-credentials", "true")
    };
    Test {
        name: "HTTPRouteCORS",
        manifests: http_route("cors", "echo", &[&rule]),
        cases: vec![
            allowed("https://www.foo.com"),
            allowed("https://a.bar.com"),
            preflight("https://bar.com").not_answered("access-control-allow-origin"),
            preflight("https://evil.com").not_answered("access-control-allow-origin"),
            get("echo/")
                .header("Origin", "https://www.foo.com")
                .at("echo-v1")
                .answered("access-control-allow-origin", "https://www.foo.com")
                .answered("access-control-expose-headers", "x-header-3"),
            get("echo/")
                .header("Origin", "https://evil.com")
                .at("echo-v1")
                .not_answered("access-control-allow-origin"),
        ],
    }
}

fn rewrite_host() -> Test {
    let to = |host: &str| format!("{{type: URLRewrite, urlRewrite: {{hostname: {host}}}}}");
    let rules =
        [at("/one", &format!("filters: [{}], {V1}", to("one.example.org"))), at("/keep", V1)];
    Test {
        name: "HTTPRouteRewriteHost",
        manifests: http_route("host", "echo", &rules.each_ref().map(String::as_str)),
        cases: vec![
            get("echo/one").at("echo-v1").arrives("host", "one.example.org"),
            get("echo/keep").at("echo-v1").arrives("host", "echo"),
        ],
    }
}

/// Counts the requests for a path that arrived at a version.
fn arrived(scene: &Scene, version: usize, path: &str) -> Result<usize> {
    let said = scene.servers[version].stdout()?;
    Ok(said.lines().filter(|line| line.ends_with(&format!(" {path}"))).count())
}

#[test]
fn requests_are_copied_tried_again_and_given_up_as_the_gateway_api_wants_it() -> Result<()> {
    let mut scene = Scene::new("gcopies")?;
    // HTTPRouteRequestMirror, HTTPRouteRequestMultipleMirrors
    let mirror = |name: &str| {
        format!(
            "{{type: RequestMirror, requestMirror: {{backendRef: {{name: {name}, port: 80}}}}}}"
        )
    };
    let filters = format!("filters: [{}, {}]", mirror("echo-v2"), mirror("echo-v1"));
    scene.apply(&http_route("mirror", "echo", &[&at("/", &format!("{filters}, {V1}"))]))?;
    check(&scene, &get("echo/mirrored").at("echo-v1"))?;
    wait_for("copies at both versions", FELT, || {
        let counts = (arrived(&scene, 0, "/mirrored")?, arrived(&scene, 1, "/mirrored")?);
        // The requests themselves arrive at the first one, too.
        Ok((counts.1 >= 3 && counts.0 == 2 * counts.1).then_some(()))
    })?;
    // HTTPRouteRetry
    let retried = format!("{V1}, retry: {{codes: [500, 503], attempts: 3, backoff: 1ms}}");
    scene.apply(&http_route("retry", "echo", &[&at("/", &retried)]))?;
    for (status, tries) in [("500", 4), ("503", 4), ("501", 1)] {
        let path = format!("/retried-{status}");
        let header = format!("x-answer-status: {status}");
        let options = ["-H", &header, &url("echo", &path)].map(str::to_owned);
        let answer = scene.send(Sender::Producer, &options)?;
        ensure!(answer.status.to_string() == status, "{answer:?}\n{}", scene.log());
        ensure!(arrived(&scene, 0, &path)? == tries, "{status}: {}", scene.log());
    }
    // HTTPRouteRetryWithTimeouts
    let limits = "timeouts: {request: 1500ms, backendRequest: 500ms}";
    let limited = format!("{V1}, {limits}, retry: {{codes: [504], attempts: 10, backoff: 1ms}}");
    scene.apply(&http_route("retry", "echo", &[&at("/", &limited)]))?;
    let started = Instant::now();
    let options = ["-H", "x-answer-after: 10", "http://echo/limited"];
    let answer = scene.send(Sender::Producer, &options)?;
    ensure!(answer.status == 504, "{answer:?}\n{}", scene.log());
    ensure!(started.elapsed() >= Duration::from_millis(1500), "{:?}", started.elapsed());
    // Half a second each, and one that is given up as it begins.
    ensure!(arrived(&scene, 0, "/limited")? <= 4, "{}", scene.log());
    Ok(())
}
