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
