//! What is done with requests, and where they go.

use super::*;

#[test]
fn destinations_are_services_with_a_port_that_is_named_or_the_only_one() {
    let spec = "route: [{destination: {host: till, subset: v1}, weight: 90}, {destination: {host: \
                cart.shop.svc.cluster.local, port: {number: 9000}}, weight: 10}, {destination: \
                {host: cart}}, {destination: {host: nobody}}]";
    let Some(Action::Forward(forward)) = http(spec).action else { panic!() };
    let told: Vec<_> = forward
        .destinations
        .iter()
        .map(|to| {
            let service = to.service.as_ref().unwrap();
            let key = format!("{}/{}", service.namespace, service.hostname);
            (key, to.port, to.subset.as_str(), to.weight)
        })
        .collect();
    let key = |name: &str| format!("shop/{name}.shop.svc.cluster.local");
    let expected = [
        (key("till"), 8080, "v1", 90),
        (key("cart"), 9000, "", 10),
        (key("cart"), 0, "", 0),
        (key("nobody"), 0, "", 0),
    ];
    assert_eq!(told, expected);
    assert_eq!(forward_weight("weight: 0"), 1, "the only one gets everything");
}

fn forward_weight(fields: &str) -> u32 {
    let http = http(&format!("route: [{{destination: {{host: till}}, {fields}}}]"));
    let Some(Action::Forward(forward)) = http.action else { panic!("{http:#?}") };
    forward.destinations[0].weight
}

#[test]
fn retries_are_the_usual_ones_unless_they_are_written() {
    let usual = [
        RetryOn::ConnectFailure,
        RetryOn::RefusedStream,
        RetryOn::GrpcUnavailable,
        RetryOn::GrpcCancelled,
    ];
    let usual = || usual.map(i32::from).to_vec();
    let seconds = |millis| prost_types::Duration { seconds: 0, nanos: millis * 1_000_000 };
    let cases = [
        ("", Some(Retry { attempts: 2, on: usual(), ..Retry::default() })),
        ("retries: {attempts: 0}", None),
        ("retries: {attempts: 3}", Some(Retry { attempts: 3, on: usual(), ..Retry::default() })),
        (
            "retries: {attempts: 1, retryOn: '5xx, 409,retriable-status-codes', perTryTimeout: 300ms, \
             backoff: 50ms, retryRemoteLocalities: true, retryIgnorePreviousHosts: false}",
            Some(Retry {
                attempts: 1,
                per_try_timeout: Some(seconds(300)),
                on: vec![RetryOn::ServerError.into()],
                statuses: vec![409],
                base_interval: Some(seconds(50)),
                same_endpoints: true,
                other_localities: true,
            }),
        ),
        (
            "retries: {attempts: 1, retryOn: 'gateway-error,connect-failure,retriable-4xx'}",
            Some(Retry {
                attempts: 1,
                on: [RetryOn::GatewayError, RetryOn::ConnectFailure, RetryOn::Retriable4xx]
                    .map(i32::from)
                    .to_vec(),
                ..Retry::default()
            }),
        ),
    ];
    for (fields, expected) in cases {
        assert_eq!(forward(fields).retry, expected, "{fields}");
    }
}

#[test]
fn a_mesh_that_says_when_to_try_again_says_it_of_services_without_routes_too() {
    let config = "---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: istio, namespace: \
                  istio-system}, data: {mesh: '{defaultHttpRetryPolicy: {attempts: 0}}'}}\n";
    let tcp = virtual_service("v", "hosts: [till], tcp: [{route: [{destination: {host: till}}]}]");
    assert_eq!(routes(&shop(&(config.to_owned() + &tcp))).len(), 3, "one is for TCP only");
    let routes = routes(&shop(config));
    let ids: Vec<_> = routes.iter().map(|route| (route.id.as_str(), route.name.as_str())).collect();
    assert_eq!(ids, [("default", "default"); 2]);
    for route in routes {
        let Some(Traffic::Http(HttpRoute { action: Some(Action::Forward(to)), .. })) =
            route.traffic
        else {
            panic!()
        };
        assert_eq!(to.retry, None);
        assert_eq!(to.destinations[0].service, route.service);
    }
}

#[test]
fn times_and_mirrors_are_told() {
    let mirrored = |fields: &str| {
        let mirrors = forward(fields).mirrors;
        mirrors.iter().map(|m| (m.subset.clone(), m.port, m.per_million)).collect::<Vec<_>>()
    };
    let half = prost_types::Duration { seconds: 0, nanos: 500_000_000 };
    assert_eq!(forward("timeout: 0.5s").timeout, Some(half));
    assert_eq!(forward("timeout: 0s").timeout, None);
    assert_eq!(forward("").timeout, None);
    let v2 = "mirror: {host: till, subset: v2}";
    let cases = [
        (v2.to_owned(), vec![("v2".to_owned(), 8080, 1_000_000)]),
        (format!("{v2}, mirrorPercentage: {{value: 0.01}}"), vec![("v2".to_owned(), 8080, 100)]),
        (format!("{v2}, mirrorPercent: 50"), vec![("v2".to_owned(), 8080, 500_000)]),
        (format!("{v2}, mirror_percent: 5"), vec![("v2".to_owned(), 8080, 50_000)]),
        (format!("{v2}, mirrorPercentage: {{value: 0}}"), vec![]),
        (
            "mirrors: [{destination: {host: till}}, {destination: {host: cart}, percentage: {value: \
             1}}]"
                .to_owned(),
            vec![(String::new(), 8080, 1_000_000), (String::new(), 0, 10_000)],
        ),
    ];
    for (fields, expected) in cases {
        assert_eq!(mirrored(&fields), expected, "{fields}");
    }
}

#[test]
fn faults_happen_to_the_share_that_is_written() {
    let fault = |fields: &str| {
        let fault = http(&format!("{TILL}, fault: {{{fields}}}")).fault;
        fault.map(|fault| {
            let delay = fault.delay.map(|delay| {
                let time: Duration = delay.duration.unwrap().try_into().unwrap();
                (time.as_secs(), delay.per_million)
            });
            (
                delay,
                fault.abort.map(|abort| (format!("{:?}", abort.with.unwrap()), abort.per_million)),
            )
        })
    };
    let status = |text: &str, share| Some((None, Some((text.to_owned(), share))));
    let cases = [
        ("delay: {fixedDelay: 2s, percent: 100}", Some((Some((2, 1_000_000)), None))),
        ("delay: {fixedDelay: 7s, percentage: {value: 0.0001}}", Some((Some((7, 1)), None))),
        ("delay: {fixedDelay: 7s}", None),
        ("abort: {httpStatus: 500, percentage: {value: 50}}", status("HttpStatus(500)", 500_000)),
        (
            "abort: {grpcStatus: UNAVAILABLE, percentage: {value: 100}}",
            status("GrpcStatus(14)", 1_000_000),
        ),
        ("abort: {httpStatus: 500}", None),
    ];
    for (fields, expected) in cases {
        assert_eq!(fault(fields), expected, "{fields}");
    }
}

#[test]
fn paths_and_authorities_are_written_anew() {
    let written = |matched: &str, rewrite: &str| {
        let fields = format!("match: [{{{matched}}}], {TILL}, rewrite: {{{rewrite}}}");
        let Some(Action::Forward(forward)) = http(&fields).action else { panic!() };
        forward.rewrite.map(|rewrite| (rewrite.path, rewrite.authority))
    };
    let prefix = |text: &str| Some(rewrite::Path::Prefix(text.to_owned()));
    let a = "uri: {prefix: /a}";
    assert_eq!(written(a, "uri: /b"), Some((prefix("/b"), String::new())));
    assert_eq!(written("uri: {exact: /a}", "uri: /b"), Some((prefix("/b"), String::new())));
    assert_eq!(written("uri: {regex: /a.*}", "uri: /b"), None);
    assert_eq!(written("", "uri: /b, authority: x"), Some((prefix("/b"), "x".into())));
    let root = http(&format!("{TILL}, rewrite: {{uri: /b}}")).r#match.unwrap().path.unwrap().kind;
    assert_eq!(root, Some(path_match::Kind::Prefix("/".into())));
    let regex = written(a, "uriRegexRewrite: {match: '/(.*)', rewrite: '/x/\\1'}").unwrap().0;
    assert!(matches!(regex, Some(rewrite::Path::Regex(r)) if r.substitution == "/x/\\1"));
    let headers = http(&format!("{TILL}, headers: {{request: {{set: {{Host: y, X-A: '1'}}}}}}"));
    let set: Vec<_> =
        headers.request_headers.unwrap().set.into_iter().map(|h| (h.name, h.value)).collect();
    let expected = [("host", "y"), ("x-a", "1")].map(|(n, v)| (n.to_owned(), v.to_owned()));
    assert_eq!(set, expected);
}

#[test]
fn redirects_and_answers_are_told() {
    let redirected = |fields: &str| {
        let http = http(&format!("match: [{{uri: {{prefix: /a}}}}], redirect: {{{fields}}}"));
        let Some(Action::Redirect(redirect)) = http.action else { panic!("{http:#?}") };
        redirect
    };
    let plain = redirected("uri: /b, authority: x.y, scheme: https, redirectCode: 308");
    assert_eq!(plain.path, Some(redirect::Path::Full("/b".into())));
    assert_eq!(
        (plain.status, plain.authority.as_str(), plain.scheme.as_str()),
        (308, "x.y", "https")
    );
    assert_eq!(redirected("prefixRewrite: /c").path, Some(redirect::Path::Prefix("/c".into())));
    let ports = [
        ("uri: /b, port: 8443", Some(redirect::Port::Number(8443))),
        ("uri: /b, authority: x.y", None),
        (
            "derivePort: FROM_PROTOCOL_DEFAULT",
            Some(redirect::Port::Derived(l7::PortOrigin::Scheme.into())),
        ),
        (
            "derivePort: FROM_REQUEST_PORT",
            Some(redirect::Port::Derived(l7::PortOrigin::Listener.into())),
        ),
    ];
    for (fields, expected) in ports {
        let redirect = redirected(fields);
        assert_eq!((redirect.port, redirect.status), (expected, 301), "{fields}");
    }
    for (fields, expected) in [("string: no", "no"), ("bytes: bm8=", "no")] {
        let http = http(&format!("directResponse: {{status: 503, body: {{{fields}}}}}"));
        let Some(Action::DirectResponse(response)) = http.action else { panic!() };
        assert_eq!((response.status, &*response.body), (503, expected.as_bytes()), "{fields}");
    }
}

#[test]
fn scripts_of_other_origins_may_ask_as_it_is_written() {
    let cors = http(&format!(
        "{TILL}, corsPolicy: {{allowOrigin: ['*', a.b], allowOrigins: [{{prefix: http}}], \
         allowMethods: [GET], maxAge: 24h, allowCredentials: true, unmatchedPreflights: IGNORE}}"
    ))
    .cors
    .unwrap();
    let origins: Vec<_> =
        cors.allow_origins.into_iter().map(|origin| origin.kind.unwrap()).collect();
    let expected = [
        string_match::Kind::Present(true),
        string_match::Kind::Exact("a.b".into()),
        string_match::Kind::Prefix("http".into()),
    ];
    assert_eq!(origins, expected);
    assert_eq!(cors.max_age.unwrap().seconds, 86_400);
    assert!(cors.allow_credentials && cors.answer_unmatched);
}

#[test]
fn connections_are_routed_by_what_is_known_of_them() {
    let to = "route: [{destination: {host: till}}]";
    let own = "cart.shop.svc.cluster.local";
    let cases = [
        (format!("tcp: [{{{to}}}]"), vec!["v/tcp/0/0 [] "]),
        (format!("tcp: [{{match: [{{port: 9000}}], {to}}}]"), vec!["v/tcp/0/0 [9000] "]),
        (format!("tcp: [{{match: [{{port: 9001}}], {to}}}]"), vec![]),
        (format!("tcp: [{{match: [{{sourceNamespace: shop}}], {to}}}]"), vec!["v/tcp/0/0 [] "]),
        (
            format!("tcp: [{{match: [{{destinationSubnets: [10.96.0.0/16]}}], {to}}}]"),
            vec!["v/tcp/0/0 [] "],
        ),
        (format!("tcp: [{{match: [{{destinationSubnets: [10.97.0.0/16]}}], {to}}}]"), vec![]),
        (
            format!("tcp: [{{{to}}}], tls: [{{match: [{{sniHosts: [{own}]}}], {to}}}]"),
            vec!["v/tls/0/0 [] ", "v/tcp/0/0 [] "],
        ),
        (format!("tls: [{{match: [{{sniHosts: [{own}, other]}}], {to}}}]"), vec![]),
    ];
    for (spec, expected) in cases {
        let told = told(&virtual_service("v", &format!("hosts: [cart], {spec}")));
        assert_eq!(told, expected, "{spec}");
    }
}

#[test]
fn what_is_left_to_another_virtual_service_is_taken_from_it() {
    let root = |matched: &str| {
        virtual_service(
            "root",
            &format!(
                "hosts: [cart], http: [{{name: r, match: [{{{matched}}}], delegate: {{name: d}}, \
                 timeout: 3s}}]"
            ),
        )
    };
    let delegate = |matched: &str| {
        virtual_service("d", &format!("http: [{{name: x, match: [{{{matched}}}], {TILL}}}]"))
    };
    let cases = [
        ("uri: {prefix: /a}", "uri: {exact: /a/b}", Some("Exact(\"/a/b\")")),
        ("uri: {prefix: /a}", "uri: {prefix: /a/b}", Some("Prefix(\"/a/b\")")),
        ("uri: {prefix: /a}", "method: {exact: GET}", Some("Prefix(\"/a\")")),
        ("uri: {prefix: /a}", "uri: {prefix: /b}", None),
        ("uri: {regex: /a}", "uri: {regex: /b}", None),
        ("uri: {prefix: /a}, ignoreUriCase: true", "uri: {prefix: /a/b}", None),
        ("port: 80, uri: {exact: /}", "port: 9000", None),
        ("headers: {a: {exact: b}}, uri: {exact: /}", "headers: {a: {exact: c}}", None),
        ("uri: {exact: /}, sourceLabels: {a: b}", "sourceLabels: {a: c}", None),
    ];
    for (outer, inner, expected) in cases {
        let routes = routes(&shop(&(root(outer) + &delegate(inner))));
        let told = routes.first().map(|route| {
            assert_eq!(route.name, "r-x");
            let Some(Traffic::Http(http)) = &route.traffic else { panic!() };
            let Some(Action::Forward(forward)) = &http.action else { panic!() };
            assert_eq!(forward.timeout.as_ref().unwrap().seconds, 3);
            let path = http.r#match.as_ref().unwrap().path.as_ref().unwrap();
            format!("{:?}", path.kind.as_ref().unwrap())
        });
        assert_eq!(told.as_deref(), expected, "{outer} {inner}");
    }
    assert_eq!(routes(&shop(&root("uri: {exact: /}"))).len(), 0, "there is no delegate");
}

#[test]
fn the_host_of_a_copy_has_a_suffix_only_if_that_is_asked_for() {
    for asked in [false, true] {
        let mut mesh = Mesh::new(Options { shadow_suffix: asked, ..declared() });
        let route = virtual_service(
            "v",
            &format!("hosts: [cart], http: [{{{TILL}, mirror: {{host: till}}}}]"),
        );
        mesh.apply(applied(&format!("{SHOP}{route}")));
        let [route] = &routes(&mesh)[..] else { panic!("not one route") };
        let Some(Traffic::Http(http)) = &route.traffic else { panic!("{route:#?}") };
        let Some(Action::Forward(forward)) = &http.action else { panic!("{http:#?}") };
        assert_eq!(forward.mirrors[0].shadow_suffix, asked);
    }
}
