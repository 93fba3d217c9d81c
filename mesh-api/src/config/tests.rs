use super::*;
use crate::policy::{DenyReason, Flow, PolicyIndex, Verdict, WorkloadPolicies};

const EXAMPLE: &str = include_str!("../../examples/local-config.yaml");

const WORKLOADS: &str = "\
workloads:
  - {uid: a, namespace: shop, addresses: [10.0.0.1]}
  - {uid: b, namespace: shop, addresses: [10.0.0.2]}
";

fn parse(text: &str) -> MeshConfig {
    LocalConfig::parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn error(text: &str) -> String {
    match LocalConfig::parse(text) {
        Ok(config) => panic!("{config:?}\n{text}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn the_example_is_valid_and_without_warnings() {
    let config = parse(EXAMPLE);
    assert_eq!(config.warnings, []);
    assert_eq!(config.workloads.len(), 3);
    assert_eq!(config.services.len(), 1);
    let policies: Vec<_> = config.policies.iter().map(|policy| policy.key.to_string()).collect();
    assert_eq!(
        policies,
        [
            "shop/orders-from-cart",
            "istio-system/no-guests",
            "istio-system/istio_converted_static_strict",
            "shop/converted_peer_authentication_orders",
        ]
    );
}

#[test]
fn the_example_decides_as_it_says() {
    let config = parse(EXAMPLE);
    let index = PolicyIndex::new(config.policies);
    let orders = WorkloadPolicies::compile(&config.workloads[1], &index);
    let cart = &config.workloads[0].identity;
    let decide = |source: &str, identity, port: u16| {
        let source = source.parse().unwrap();
        orders.decide(&Flow { source, identity, destination: ([10, 1, 2, 10], port).into() })
    };
    assert!(matches!(decide("10.1.1.10", Some(cart), 8080), Verdict::Allow(Some(_))));
    let not_allowed = Verdict::Deny(DenyReason::NotAllowed(
        config.workloads[1].authorization_policies[0].clone(),
    ));
    assert_eq!(decide("10.1.1.10", Some(cart), 9090), not_allowed);
    assert!(matches!(decide("10.1.1.20", None, 8080), Verdict::Deny(DenyReason::Policy(_))));
    assert_eq!(decide("10.1.1.20", None, 9090), not_allowed);
    assert!(matches!(
        decide("192.168.2.1", Some(cart), 8080),
        Verdict::Deny(DenyReason::Policy(_))
    ));
}

#[test]
fn an_empty_file_is_an_empty_mesh() {
    for text in ["", "# nothing\n", "{}", "---\n", "workloads: []\n"] {
        assert_eq!(parse(text), MeshConfig::default(), "{text:?}");
    }
}

#[test]
fn peer_authentications_extend_the_policies_of_workloads() {
    let config = parse(&format!(
        "{WORKLOADS}peer_authentications:\n  - {{name: p, namespace: shop, mode: STRICT}}\n"
    ));
    for workload in &config.workloads {
        let keys: Vec<_> =
            workload.authorization_policies.iter().map(ToString::to_string).collect();
        assert_eq!(keys, ["istio-system/istio_converted_static_strict"]);
    }
    assert_eq!(config.warnings, []);
}

#[test]
fn an_unknown_policy_is_a_warning_and_denies() {
    let config = parse(
        "workloads:\n  - {uid: a, namespace: shop, addresses: [10.0.0.1], authorization_policies: [shop/gone]}\n",
    );
    let [warning] = config.warnings.as_slice() else { panic!("{:?}", config.warnings) };
    assert_eq!(
        warning.to_string(),
        "workload a refuses all connections because it names policy shop/gone, which does not \
         exist: add the policy or remove its key"
    );
    let policies =
        WorkloadPolicies::compile(&config.workloads[0], &PolicyIndex::new(config.policies));
    let flow = Flow {
        source: [10, 0, 0, 9].into(),
        identity: None,
        destination: ([10, 0, 0, 1], 80).into(),
    };
    assert!(matches!(policies.decide(&flow), Verdict::Deny(DenyReason::UnknownPolicy(_))));
}

#[test]
fn entries_without_effect_are_warnings() {
    let config = parse(&format!(
        "{WORKLOADS}\
         policies:\n  - {{name: p, namespace: shop, scope: WORKLOAD_SELECTOR, action: DENY}}\n\
         peer_authentications:\n  \
           - {{name: a, namespace: shop, mode: STRICT}}\n  \
           - {{name: b, namespace: shop, mode: PERMISSIVE}}\n"
    ));
    let warnings: Vec<_> = config.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].starts_with("policy shop/p applies to no workload"), "{warnings:?}");
    assert!(warnings[1].starts_with("peer authentication shop/b has no effect"), "{warnings:?}");
}

#[test]
fn workloads_of_the_host_network_may_share_an_address() {
    let text = "\
workloads:
  - {uid: a, namespace: shop, addresses: [10.0.0.1], network_mode: HOST_NETWORK}
  - {uid: b, namespace: shop, addresses: [10.0.0.1], network_mode: HOST_NETWORK}
  - {uid: c, namespace: shop, addresses: [10.0.0.2]}
  - {uid: d, namespace: shop, addresses: [10.0.0.2], network: other}
";
    assert_eq!(parse(text).workloads.len(), 4);
}

#[test]
fn a_text_over_the_limit_is_refused_before_it_is_parsed() {
    let text = "#".repeat(MAX_CONFIG_BYTES + 1);
    assert!(error(&text).contains("exceed the limit of 8388608"));
}

#[test]
fn a_text_of_many_entries_within_the_limit_is_accepted() {
    use std::fmt::Write as _;

    let mut text = String::from("workloads:\n");
    for i in 0..10_000_u32 {
        let [_, a, b, c] = i.to_be_bytes();
        writeln!(text, "- {{uid: w-{i}, namespace: shop, addresses: [10.{a}.{b}.{c}]}}").unwrap();
    }
    assert_eq!(parse(&text).workloads.len(), 10_000);
}

/// Text after the workloads a and b, and the whole error.
const INVALID: &[(&str, &str)] = &[
    (
        "  - {uid: a, namespace: shop, addresses: [10.0.0.3]}",
        "line 4, column 5: workloads[2].uid: a is used by workloads[0] already: change one of them",
    ),
    (
        "  - {uid: c, namespace: shop, addresses: [10.0.0.3, '::ffff:10.0.0.2']}",
        "line 4, column 5: workloads[2].addresses[1]: 10.0.0.2 is used by workloads[1] already: change one of them",
    ),
    (
        "  - {uid: c, namespace: shop, addresses: [10.0.0.3], services: {shop/x: {}}}",
        "line 4, column 5: workloads[2].services: shop/x does not exist: add it under services, or correct it",
    ),
    (
        "  - {uid: c, namespace: shop, addresses: [10.0.0.3, 10.0.0]}",
        "line 4, column 53: workloads[2].addresses[1]: \"10.0.0\" is not an address: write one such as 10.0.0.1 or fd00::1",
    ),
    (
        "  - {uid: c, namespace: shop, network_gateway: {address: 10.0.0.0/8}}",
        "line 4, column 5: workloads[2].network_gateway.address: a range of addresses: give one address",
    ),
    (
        "  - {uid: c, namespace: SHOP/x, addresses: [10.0.0.3]}",
        "line 4, column 5: workloads[2].namespace: invalid namespace \"SHOP/x\": use lower-case letters, digits, '-', '.' and '_'",
    ),
    (
        "services:\n  - {namespace: shop, hostname: a, port_names: [{number: 80}]}",
        "line 5, column 5: services[0].port_names[0].name: is empty: set it",
    ),
    (
        "services:\n  - {namespace: shop, hostname: a}\n  - {namespace: shop, hostname: a}",
        "line 6, column 5: services[1]: shop/a is used by services[0] already: change one of them",
    ),
    (
        "policies:\n  - {name: p, namespace: shop}\n  - {name: p, namespace: shop}",
        "line 6, column 5: policies[1]: shop/p is used by policies[0] already: change one of them",
    ),
    (
        "policies:\n  - {name: p, namespace: shop, rules: [{clauses: [{matches: [{destination_ports: [0]}]}]}]}",
        "line 5, column 5: policies[0].rules[0].clauses[0].matches[0].destination_ports[0]: 0 is not a port: use 1 to 65535",
    ),
    (
        "policies:\n  - {name: istio_converted_static_strict, namespace: istio-system}\n\
             peer_authentications:\n  - {name: p, namespace: shop}",
        "line 5, column 5: policies[0].name: istio-system/istio_converted_static_strict is the name of a policy made from peer_authentications: choose another",
    ),
    (
        "peer_authentications:\n  - {name: p, namespace: shop}\n  - {name: p, namespace: shop}",
        "line 6, column 5: peer_authentications[1]: shop/p is used by peer_authentications[0] already: change one of them",
    ),
    (
        "peer_authentications:\n  - {name: p, namespace: shop, workloads: [a, x]}",
        "line 5, column 5: peer_authentications[0].workloads[1]: x does not exist: add it under workloads, or correct it",
    ),
    (
        "peer_authentications:\n  - {name: p, namespace: other, workloads: [a]}",
        "line 5, column 5: peer_authentications[0].workloads[0]: a is not in namespace other: list workloads of that namespace only",
    ),
    (
        "peer_authentications:\n  - {name: p, namespace: shop, workloads: []}",
        "line 5, column 5: peer_authentications[0].workloads: is empty: list workloads, or remove it to select the whole namespace",
    ),
    (
        "peer_authentications:\n  - {name: p, namespace: shop, port_level: {80: STRICT}}",
        "line 5, column 5: peer_authentications[0].port_level: needs workloads: list them under workloads, ports differ between workloads",
    ),
    (
        "peer_authentications:\n  - {name: p, namespace: shop, workloads: [a], port_level: {0: STRICT}}",
        "line 5, column 5: peer_authentications[0].port_level: 0 is not a port: use 1 to 65535",
    ),
    (
        "peer_authentications:\n  - {namespace: shop}",
        "line 5, column 5: peer_authentications[0].name: is empty: set it",
    ),
];

#[test]
fn errors_name_the_place_the_field_and_the_remedy() {
    for (text, expected) in INVALID {
        assert_eq!(error(&format!("{WORKLOADS}{text}\n")), *expected, "{text}");
    }
}

/// A key without a value never counts as an empty list: in a policy that would match more.
#[test]
fn null_is_no_value() {
    let at_port = |field: &str| {
        format!("[{{clauses: [{{matches: [{{{field}, destination_ports: [80]}}]}}]}}]")
    };
    for rules in [
        "",
        "~",
        "[~]",
        "[{clauses: }]",
        "[{clauses: [~]}]",
        "[{clauses: [{matches: }]}]",
        "[{clauses: [{matches: [~]}]}]",
        &at_port("principals: "),
        &at_port("principals: [~]"),
        &at_port("principals: [{exact: }]"),
        &at_port("not_namespaces: "),
        &at_port("source_ips: "),
        &at_port("service_accounts: [~]"),
        &at_port("service_accounts: [{namespace: , service_account: a}]"),
    ] {
        let message =
            error(&format!("policies:\n  - {{name: p, namespace: shop, rules: {rules}}}\n"));
        assert!(message.starts_with("line 2, column "), "{rules}: {message}");
        assert!(message.contains(": policies[0].rules"), "{rules}: {message}");
    }
    for field in
        ["services", "authorization_policies", "waypoint", "locality", "capacity", "status", "node"]
    {
        let message = error(&format!("{WORKLOADS}  - {{uid: c, namespace: shop, {field}: }}\n"));
        assert!(message.contains(&format!(": workloads[2].{field}: ")), "{message}");
    }
    for text in ["workloads:", "workloads:\n  -", "policies: ~", "services: [~]"] {
        assert!(error(text).ends_with("has no value: write one, or remove it"), "{text}");
    }
    for field in ["workloads", "port_level", "mode", "name"] {
        let message = error(
            &format!("peer_authentications:\n  - {{name: p, namespace: shop, {field}: }}\n")
                .replace("{name: p, namespace: shop, name", "{namespace: shop, name"),
        );
        assert!(message.contains(&format!(": peer_authentications[0].{field}: ")), "{message}");
    }
}

/// A text that is not of the expected form, the begin of the error and a part of it.
const MALFORMED: &[(&str, &str, &str)] = &[
    ("workloads: [", "line 1, ", ""),
    ("workloads: 5\n", "line 1, column 12: workloads: ", "sequence"),
    ("pods: []\n", "line 1, column 1: pods: ", "workloads"),
    ("- a\n", "line 1, column 1: ", ""),
    ("a: &x [*x]\n", "line 1, ", ""),
    ("workloads:\n  - 5\n", "line 2, column 5: workloads[0]: ", ""),
    ("workloads:\n  - uid: a\n    uid: b\n", "line 3, column 5: workloads[0]", "uid"),
    ("workloads: []\nworkloads: []\n", "line 2, column 1: ", "workloads"),
    (
        "workloads:\n  - uid: a\n    adresses: []\n",
        "line 3, column 5: workloads[0].adresses: ",
        "addresses",
    ),
    (
        "workloads:\n  - uid: a\n    tunnel_protocol: HBON\n",
        "line 3, column 22: workloads[0].tunnel_protocol: ",
        "use one of NONE, HBONE",
    ),
    ("workloads:\n  - capacity: -1\n", "line 2, column 15: workloads[0].capacity: ", ""),
    ("workloads:\n  - native_tunnel: yes\n", "line 2, column 20: workloads[0].native_tunnel: ", ""),
    (
        "workloads:\n  - extensions: []\n",
        "line 2, column 5: workloads[0].extensions: ",
        "unknown field",
    ),
    (
        "workloads:\n  - services:\n      a/b: {ports: [{port: 1}]}\n",
        "line 3, column 22: workloads[0].services.a/b.ports[0].port: ",
        "service_port",
    ),
    (
        "services:\n  - port_names: [{port: 80}]\n",
        "line 2, column 19: services[0].port_names[0].port: ",
        "number",
    ),
    (
        "services:\n  - addresses: [x]\n",
        "line 2, column 17: services[0].addresses[0]: ",
        "network-1/10.0.0.1",
    ),
    (
        "policies:\n  - action: AUDIT\n",
        "line 2, column 13: policies[0].action: ",
        "use one of ALLOW, DENY",
    ),
    (
        "policies:\n  - rules: [{clauses: [{matches: [{source_ips: [10.0.0.0/33]}]}]}]\n",
        "line 2, column 49: policies[0].rules[0].clauses[0].matches[0].source_ips[0]: ",
        "10.0.0.0/8",
    ),
    (
        "policies:\n  - rules: [{clauses: [{matches: [{principals: [{regex: x}]}]}]}]\n",
        "line 2, column ",
        "exact",
    ),
    (
        "peer_authentications:\n  - mode: strict\n",
        "line 2, column 11: peer_authentications[0].mode: ",
        "STRICT",
    ),
    ("peer_authentications:\n  - port_level: {70000: STRICT}\n", "line 2, column ", ""),
    ("workloads: []\n---\nworkloads: []\n", "", "document"),
];

#[test]
fn errors_of_form_name_the_place_and_the_field() {
    for (text, start, part) in MALFORMED {
        let message = error(text);
        assert!(message.starts_with(start), "{text}\n{message}\nexpected start {start}");
        assert!(message.contains(part), "{text}\n{message}\nexpected {part}");
        assert!(!message.contains(" at line"), "{message}");
    }
}
