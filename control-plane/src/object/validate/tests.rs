use crate::object::{Read, read, yaml};

/// Returns what is wrong with a specification; nothing if it is valid.
fn check(kind: &str, spec: &str) -> String {
    let yaml = format!("{{apiVersion: {kind}, metadata: {{name: x}}, spec: {{{spec}}}}}");
    match read(yaml::documents(&yaml).remove(0).unwrap()) {
        Ok(Read::Object(_)) => String::new(),
        Ok(other) => panic!("{other:?}"),
        Err(error) => error.to_string(),
    }
}

fn check_all(kind: &str, cases: &[(&str, &str)]) {
    for (spec, expected) in cases {
        let error = check(kind, spec);
        let as_expected = error.starts_with(expected) && expected.is_empty() == error.is_empty();
        assert!(as_expected, "{spec}: {error:?} instead of {expected:?}");
    }
}

#[test]
fn authorization_policies_are_checked() {
    let kind = "security.istio.io/v1, kind: AuthorizationPolicy";
    check_all(
        kind,
        &[
            ("", ""),
            ("rules: [{}]", ""),
            ("action: DENY", "spec.rules: is missing"),
            ("action: CUSTOM, rules: [{}]", "spec.action: needs the name of a provider"),
            ("provider: {name: p}", "spec.provider: needs the action CUSTOM"),
            (
                "selector: {matchLabels: {app: 'a*'}}",
                "spec.selector.matchLabels.app: \"a*\" is not valid",
            ),
            (
                "selector: {}, targetRefs: [{kind: Service, name: s}]",
                "spec.selector: does not go together with targetRefs",
            ),
            (
                "targetRefs: [{kind: Pod, name: s}]",
                "spec.targetRefs[0].kind: \"/Pod\" is not known",
            ),
            ("targetRefs: [{kind: Service}]", "spec.targetRefs[0].name: is missing"),
            ("targetRefs: [{kind: Service, name: s}]", ""),
        ],
    );
}

#[test]
fn rules_of_authorization_policies_are_checked() {
    let kind = "security.istio.io/v1, kind: AuthorizationPolicy";
    check_all(
        kind,
        &[
            ("rules: [{from: [{}]}]", "spec.rules[0].from[0].source: is missing"),
            ("rules: [{from: [{source: {}}]}]", "spec.rules[0].from[0].source: is missing"),
            ("rules: [{to: [{operation: {}}]}]", "spec.rules[0].to[0].operation: is missing"),
            (
                "rules: [{}, {from: [{source: {ipBlocks: [10.0.0.0/8, 10.0.0.0/33]}}]}]",
                "spec.rules[1].from[0].source.ipBlocks[1]: \"10.0.0.0/33\" is not an IP address or \
                 range: use",
            ),
            (
                "rules: [{from: [{source: {principals: ['']}}]}]",
                "spec.rules[0].from[0].source.principals[0]: is missing",
            ),
            (
                "rules: [{from: [{source: {serviceAccounts: [a/b/c]}}]}]",
                "spec.rules[0].from[0].source.serviceAccounts[0]: \"a/b/c\" is not valid",
            ),
            (
                "rules: [{from: [{source: {serviceAccounts: [a], namespaces: [b]}}]}]",
                "spec.rules[0].from[0].source.serviceAccounts: does not go together",
            ),
            (
                "rules: [{to: [{operation: {ports: ['80', '0']}}]}]",
                "spec.rules[0].to[0].operation.ports[1]: \"0\" is not a port",
            ),
            (
                "rules: [{when: [{key: source.colour, values: [red]}]}]",
                "spec.rules[0].when[0].key: \"source.colour\" is not known: use one of",
            ),
            ("rules: [{when: [{key: source.ip}]}]", "spec.rules[0].when[0].values: is missing"),
            (
                "rules: [{when: [{key: destination.port, notValues: [http]}]}]",
                "spec.rules[0].when[0].notValues[0]: \"http\" is not a port",
            ),
            ("rules: [{when: [{key: 'request.headers[x]', values: [y]}]}]", ""),
            (
                "action: CUSTOM, provider: {name: p}, rules: [{from: [{source: {principals: [a]}}]}]",
                "spec.rules[0].from[0].source: does not go together with the action CUSTOM",
            ),
        ],
    );
}

#[test]
fn a_policy_has_a_bounded_number_of_rules() {
    let rules = vec!["{}"; 513].join(",");
    let error =
        check("security.istio.io/v1beta1, kind: AuthorizationPolicy", &format!("rules: [{rules}]"));
    assert_eq!(error, "spec.rules: has 513 entries: use at most 512");
}

#[test]
fn peer_authentications_are_checked() {
    check_all(
        "security.istio.io/v1, kind: PeerAuthentication",
        &[
            ("mtls: {mode: STRICT}", ""),
            ("mtls: {mode: strict}", "spec.mtls.mode: unknown variant"),
            ("portLevelMtls: {80: {mode: STRICT}}", "spec.portLevelMtls: needs a selector"),
            (
                "selector: {matchLabels: {a: b}}, portLevelMtls: {70000: {mode: STRICT}}",
                "spec.portLevelMtls: \"70000\" is not a port",
            ),
            ("selector: {matchLabels: {a: b}}, portLevelMtls: {80: {mode: STRICT}}", ""),
        ],
    );
}

#[test]
fn the_mesh_configuration_is_checked() {
    let at = "data.mesh.localityLbSetting";
    let cases = [
        ("enabled: false", String::new()),
        ("distribute: [{from: a, to: {b: 50}}]", format!("{at}.distribute[0].to: \"50\" is not")),
        ("failover: [{from: a, to: a}]", format!("{at}.failover[0].to: \"a\" is not valid")),
        ("enabld: false", format!("{at}.enabld: unknown field")),
    ];
    for (setting, expected) in cases {
        let mesh = format!("data: {{mesh: 'localityLbSetting: {{{setting}}}'}}");
        let yaml =
            format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: istio}}, {mesh}}}");
        let error = match read(yaml::documents(&yaml).remove(0).unwrap()) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        };
        let as_expected = error.starts_with(&expected) && expected.is_empty() == error.is_empty();
        assert!(as_expected, "{setting}: {error:?} instead of {expected:?}");
    }
}

#[test]
fn service_entries_are_checked() {
    check_all(
        "networking.istio.io/v1, kind: ServiceEntry",
        &[
            ("", "spec.hosts: is missing"),
            ("hosts: [a.b]", ""),
            ("hosts: ['*']", "spec.hosts[0]: \"*\" is not valid"),
            ("hosts: [a.b, a.b]", "spec.hosts[1]: \"a.b\" is listed twice"),
            ("hosts: [a.b], addresses: [10.0.0]", "spec.addresses[0]: \"10.0.0\" is not"),
            ("hosts: [a.b], ports: [{number: 0, name: a}]", "spec.ports[0].number: \"0\" is not"),
            ("hosts: [a.b], ports: [{number: 80}]", "spec.ports[0].name: is missing"),
            (
                "hosts: [a.b], ports: [{number: 80, name: a}, {number: 80, name: b}]",
                "spec.ports[1].number: \"80\" is listed twice",
            ),
            (
                "hosts: [a.b], endpoints: [{address: 10.0.0.1}]",
                "spec.endpoints: does not go together with resolution NONE",
            ),
            (
                "hosts: [a.b], resolution: STATIC, endpoints: [{address: 10.0.0.1}, {address: a.b}]",
                "spec.endpoints[1].address: \"a.b\" is not an IP address",
            ),
            ("hosts: ['*.b'], resolution: DNS", "spec.hosts[0]: \"*.b\" is not valid"),
            (
                "hosts: [a.b], resolution: DNS, addresses: [10.0.0.0/8]",
                "spec.addresses[0]: does not go together with a resolution by DNS",
            ),
            (
                "hosts: [a.b], resolution: STATIC, workloadSelector: {labels: {a: b}}, \
                 endpoints: [{address: 10.0.0.1}]",
                "spec.endpoints: does not go together with workloadSelector",
            ),
            ("hosts: [a.b], exportTo: ['*', a]", "spec.exportTo[0]: does not go together"),
            (
                "hosts: [a.b], resolution: DNS, endpoints: [{address: c.d, ports: {web: 0}}]",
                "spec.endpoints[0].ports.web: \"0\" is not a port",
            ),
        ],
    );
}

#[test]
fn workload_entries_are_checked() {
    check_all(
        "networking.istio.io/v1, kind: WorkloadEntry",
        &[
            ("", "spec.address: is missing"),
            ("address: 10.0.0.1", ""),
            ("network: x", ""),
            ("address: a b", "spec.address: \"a b\" is not valid: use an IP address"),
            ("address: a.b, serviceAccount: a/b", "spec.serviceAccount: \"a/b\" is not a name"),
            ("address: unix:///a, ports: {a: 1}", "spec.ports: does not go together"),
            ("address: 10.0.0.1, locality: a/b/c/d", "spec.locality: \"a/b/c/d\" is not valid"),
        ],
    );
}

const DESTINATION_RULE: &str = "networking.istio.io/v1alpha3, kind: DestinationRule";
const VIRTUAL_SERVICE: &str = "networking.istio.io/v1, kind: VirtualService";

#[test]
fn virtual_services_are_checked() {
    let to = "route: [{destination: {host: a}}]";
    let http = |fields: &str| format!("hosts: [a], http: [{{{to}, {fields}}}]");
    let cases = [
        (format!("hosts: [a], http: [{{{to}}}]"), ""),
        (format!("hosts: ['*'], gateways: [g], http: [{{{to}}}]"), ""),
        (format!("http: [{{{to}}}]"), ""),
        ("hosts: [a]".to_owned(), "spec.http: is missing"),
        (format!("hosts: ['*'], http: [{{{to}}}]"), "spec.hosts[0]: \"*\" is not valid"),
        (format!("hosts: ['a*b'], http: [{{{to}}}]"), "spec.hosts[0]: \"a*b\" is not valid"),
        (format!("hosts: [a, A], http: [{{{to}}}]"), "spec.hosts[1]: \"A\" is listed twice"),
        (format!("hosts: [a], exportTo: ['*', b], http: [{{{to}}}]"), "spec.exportTo[0]: does not"),
        (format!("gateways: [g], http: [{{{to}}}]"), "spec.gateways: needs a list of hosts"),
        (format!("tcp: [{{{to}}}]"), "spec.hosts: is missing"),
        (
            "http: [{delegate: {name: b}}]".to_owned(),
            "spec.http[0].delegate: needs a list of hosts",
        ),
        ("hosts: [a], http: [{}]".to_owned(), "spec.http[0].route: is missing"),
        (http("redirect: {uri: /}"), "spec.http[0].redirect: does not go together with route"),
        (http("directResponse: {status: 200}"), "spec.http[0].directResponse: does not go"),
        (http("delegate: {name: b}"), "spec.http[0].delegate: does not go together with route"),
        (
            http("mirror: {host: a}, mirrors: [{destination: {host: a}}]"),
            "spec.http[0].mirrors: does",
        ),
        (http("retries: {retryOn: 5xx}"), "spec.http[0].retries.attempts: is missing"),
        (http("retries: {attempts: -1}"), "spec.http[0].retries.attempts: \"-1\" is not valid"),
        (
            http("retries: {attempts: 1, retryOn: '503,x'}"),
            "spec.http[0].retries.retryOn: \"x\" is",
        ),
        (http("timeout: 0s"), ""),
        (
            http("timeout: 10us"),
            "spec.http[0].timeout: \"10\u{b5}s\" is not valid: use 1ms or longer",
        ),
        (http("timeout: 5"), "spec.http[0].timeout: invalid type"),
        (http("timeout: 5 min"), "spec.http[0].timeout: \"5 min\" is not a time"),
        (http("fault: {delay: {percent: 100}}"), "spec.http[0].fault.delay.fixedDelay: is missing"),
        (http("fault: {abort: {}}"), "spec.http[0].fault.abort.httpStatus: is missing"),
        (http("fault: {abort: {httpStatus: 600}}"), "spec.http[0].fault.abort.httpStatus: \"600\""),
        (
            http("fault: {abort: {grpcStatus: NO}}"),
            "spec.http[0].fault.abort.grpcStatus: \"NO\" is",
        ),
    ];
    for (spec, expected) in cases {
        check_all(VIRTUAL_SERVICE, &[(&spec, expected)]);
    }
}

#[test]
fn matches_and_actions_of_virtual_services_are_checked() {
    let to = "route: [{destination: {host: a}}]";
    let http = |fields: &str| format!("hosts: [a], http: [{{{to}, {fields}}}]");
    let cases = [
        (http("mirrorPercentage: {value: 101}"), "spec.http[0].mirrorPercentage.value: \"101\" is"),
        (http("match: [{uri: {exact: a, prefix: b}}]"), "spec.http[0].match[0].uri.exact: does not"),
        (http("match: [{uri: {regex: '('}}]"), "spec.http[0].match[0].uri.regex: \"(\" is not valid"),
        (http("match: [{uri: {prefix: ''}}]"), "spec.http[0].match[0].uri.prefix: is missing"),
        (http("match: [{headers: {'a b': {}}}]"), "spec.http[0].match[0].headers.a b: \"a b\" is"),
        (http("headers: {response: {set: {host: x}}}"), "spec.http[0].headers.response.set: \"host\""),
        (http("headers: {request: {set: {host: x}}}"), ""),
        (http("headers: {request: {set: {x: \"a\\nb\"}}}"), "spec.http[0].headers.request.set.x: "),
        (http("mirorr: {host: a}"), "spec.http[0].mirorr: unknown field"),
        (
            http("rewrite: {authority: b}, headers: {request: {set: {host: x}}}"),
            "spec.http[0].rewrite.authority: does not go together",
        ),
        (
            "hosts: [a], http: [{route: [{destination: {host: a}, weight: 0}, {destination: {host: \
             b}}]}]"
                .to_owned(),
            "spec.http[0].route[0].weight: is missing",
        ),
        (
            "hosts: [a], http: [{route: [{destination: {}}]}]".to_owned(),
            "spec.http[0].route[0].destination.host: is missing",
        ),
        (
            "hosts: [a], http: [{match: [{uri: {exact: /}}], redirect: {prefixRewrite: /b}}]".to_owned(),
            "spec.http[0].redirect.prefixRewrite: needs",
        ),
        (
            "hosts: [a], http: [{redirect: {redirectCode: 200}}]".to_owned(),
            "spec.http[0].redirect.redirectCode: \"200\" is not valid",
        ),
        (format!("hosts: [a], tls: [{{{to}}}]"), "spec.tls[0].match: is missing"),
        ("hosts: [a], tcp: [{}]".to_owned(), "spec.tcp[0].route: is missing"),
    ];
    for (spec, expected) in cases {
        check_all(VIRTUAL_SERVICE, &[(&spec, expected)]);
    }
}

#[test]
fn what_virtual_services_put_in_place_of_what_is_asked_is_checked() {
    let to = "route: [{destination: {host: a}}]";
    let http = |fields: &str| format!("hosts: [a], http: [{{{to}, {fields}}}]");
    let redirect = |fields: &str| format!("hosts: [a], http: [{{redirect: {{{fields}}}}}]");
    let cases = [
        (
            http("headers: {request: {set: {x: 100%}}}"),
            "spec.http[0].headers.request.set.x: \"100%\"",
        ),
        (
            http("headers: {request: {add: {x: '%NO%'}}}"),
            "spec.http[0].headers.request.add.x: \"%NO%",
        ),
        (http("headers: {response: {add: {x: '%REQ(y)%%%'}}}"), ""),
        (
            http("headers: {request: {remove: [Te]}}"),
            "spec.http[0].headers.request.remove: \"Te\" is",
        ),
        (
            http("headers: {request: {set: {upgrade: x}}}"),
            "spec.http[0].headers.request.set: \"upgr",
        ),
        (
            "hosts: [a], http: [{route: [{destination: {host: a}, headers: {response: {set: {x: \
             '%'}}}}]}]"
                .to_owned(),
            "spec.http[0].route[0].headers.response.set.x: \"%\" is not valid",
        ),
        (http("rewrite: {uri: /a b}"), "spec.http[0].rewrite.uri: \"/a b\" is not valid"),
        (http("rewrite: {authority: a/b}"), "spec.http[0].rewrite.authority: \"a/b\" is not valid"),
        (
            http("rewrite: {uriRegexRewrite: {match: '/(a)', rewrite: '\\2'}}"),
            "spec.http[0].rewrite.uriRegexRewrite.rewrite: ",
        ),
        (http("rewrite: {uriRegexRewrite: {match: '/(a)', rewrite: '\\1'}}"), ""),
        (redirect("uri: /a#b"), "spec.http[0].redirect.uri: \"/a#b\" is not valid"),
        (redirect("prefixRewrite: /a b"), "spec.http[0].redirect.prefixRewrite: \"/a b\" is"),
        (redirect("authority: a b"), "spec.http[0].redirect.authority: \"a b\" is not valid"),
        (http("mirror: {host: '*.a'}"), "spec.http[0].mirror.host: \"*.a\" is not valid"),
        (
            http("mirror: {host: a, port: {number: 70000}}"),
            "spec.http[0].mirror.port.port: \"70000\"",
        ),
        (
            http("retries: {attempts: 1, retryOn: '103'}"),
            "spec.http[0].retries.retryOn: \"103\" is",
        ),
    ];
    for (spec, expected) in cases {
        check_all(VIRTUAL_SERVICE, &[(&spec, expected)]);
    }
}

#[test]
fn destination_rules_are_checked() {
    let policy = |fields: &str| format!("host: a, trafficPolicy: {{{fields}}}");
    let balancer = |fields: &str| policy(&format!("loadBalancer: {{{fields}}}"));
    let at = "spec.trafficPolicy";
    let cases = [
        ("host: a".to_owned(), String::new()),
        ("host: '*.a.b'".to_owned(), String::new()),
        (String::new(), "spec.host: is missing".to_owned()),
        (policy(""), format!("{at}: is missing")),
        ("host: a, subsets: [{}]".to_owned(), "spec.subsets[0].name: is missing".to_owned()),
        (
            "host: a, subsets: [{name: x}, {name: x}]".to_owned(),
            "spec.subsets[1].name: \"x\" is listed twice".to_owned(),
        ),
        (
            policy("portLevelSettings: [{port: {number: 80}}]"),
            format!("{at}.portLevelSettings[0]: is"),
        ),
        (
            policy("portLevelSettings: [{tls: {}}]"),
            format!("{at}.portLevelSettings[0].port.number: \"0\" is not a port"),
        ),
        (
            balancer("simple: RANDOM, consistentHash: {}"),
            format!("{at}.loadBalancer.consistentHash: "),
        ),
        (
            balancer("consistentHash: {useSourceIp: true, maglev: {tableSize: 10}}"),
            format!("{at}.loadBalancer.consistentHash.maglev.tableSize: \"10\" is not valid"),
        ),
        (
            balancer("consistentHash: {useSourceIp: true, maglev: {tableSize: 65537}}"),
            String::new(),
        ),
        (
            balancer("consistentHash: {}"),
            format!("{at}.loadBalancer.consistentHash.httpHeaderName: is missing"),
        ),
        (
            balancer("localityLbSetting: {distribute: [{from: a, to: {b: 50}}]}"),
            format!("{at}.loadBalancer.localityLbSetting.distribute[0].to: \"50\" is not valid"),
        ),
    ];
    for (spec, expected) in cases {
        check_all(DESTINATION_RULE, &[(&spec, &expected)]);
    }
}

#[test]
fn limits_of_destination_rules_are_checked() {
    let policy = |fields: &str| format!("host: a, trafficPolicy: {{{fields}}}");
    let at = "spec.trafficPolicy";
    let cases = [
        (
            policy("connectionPool: {http: {useClientProtocol: true, h2UpgradePolicy: UPGRADE}}"),
            format!("{at}.connectionPool.http.useClientProtocol: does not go"),
        ),
        (
            policy("connectionPool: {tcp: {maxConnections: -1}}"),
            format!("{at}.connectionPool.tcp.maxConnections: \"-1\" is not valid"),
        ),
        (
            policy("outlierDetection: {consecutiveLocalOriginFailures: 1}"),
            format!("{at}.outlierDetection.consecutiveLocalOriginFailures: needs"),
        ),
        (
            policy("outlierDetection: {maxEjectionPercent: 101}"),
            format!("{at}.outlierDetection.maxEjectionPercent: \"101\" is not valid"),
        ),
        (policy("http: {}"), format!("{at}.http: unknown field")),
        (
            policy("connectionPool: {http: {http2KeepAlive: {interval: 1s}}}"),
            format!("{at}.connectionPool.http.http2KeepAlive.timeout: is missing"),
        ),
        (
            policy("connectionPool: {tcp: {tcpKeepalive: {time: 1us}}}"),
            format!("{at}.connectionPool.tcp.tcpKeepalive.time: \"1\u{b5}s\" is not valid"),
        ),
        (policy("tunnel: {targetPort: 1}"), format!("{at}.tunnel.targetHost: is missing")),
        (
            policy("tunnel: {protocol: GET, targetHost: a, targetPort: 1}"),
            format!("{at}.tunnel.protocol: \"GET\" is not known"),
        ),
        (
            policy("loadBalancer: {warmup: {duration: 1s, aggression: 1001}}"),
            format!("{at}.loadBalancer.warmup.aggression: \"1001\" is not valid"),
        ),
        (
            policy(
                "loadBalancer: {consistentHash: {useSourceIp: true, ringHash: {minimumRingSize: \
                 8388609}}}",
            ),
            format!(
                "{at}.loadBalancer.consistentHash.ringHash.minimumRingSize: \"8388609\" is not"
            ),
        ),
        (
            "host: a, workloadSelector: {matchLabels: {a: b}}, exportTo: ['*']".to_owned(),
            "spec.workloadSelector: does not go together with namespaces".to_owned(),
        ),
    ];
    for (spec, expected) in cases {
        check_all(DESTINATION_RULE, &[(&spec, &expected)]);
    }
}

#[test]
fn tls_of_destination_rules_is_checked() {
    let policy = |fields: &str| format!("host: a, trafficPolicy: {{{fields}}}");
    let at = "spec.trafficPolicy";
    let cases = [
        (policy("tls: {mode: MUTUAL, credentialName: client}"), String::new()),
        (policy("tls: {mode: SIMPLE, credentialName: client, sni: a.b}"), String::new()),
        (
            policy("tls: {mode: SIMPLE, credentialName: client, caCertificates: /ca.pem}"),
            format!("{at}.tls.credentialName: does not go together with paths of files"),
        ),
        (
            policy("tls: {mode: MUTUAL, credentialName: client, caCrl: /crl.pem}"),
            format!("{at}.tls.credentialName: does not go together with paths of files"),
        ),
        (
            policy("tls: {mode: MUTUAL, credentialName: bank/client}"),
            format!("{at}.tls.credentialName: \"bank/client\" is not valid: use the name"),
        ),
        (policy("tls: {mode: MUTUAL}"), format!("{at}.tls.clientCertificate: is missing")),
    ];
    for (spec, expected) in cases {
        check_all(DESTINATION_RULE, &[(&spec, &expected)]);
    }
}
