use mesh_api::crd::AuthorizationPolicy;

use super::*;
use crate::object::yaml;

fn lowered(rules: &str, action: Action) -> Lowered {
    let value = yaml::documents(&format!("rules: [{rules}]")).remove(0).unwrap();
    let policy: AuthorizationPolicy = serde_json::from_value(value).unwrap();
    lower(&policy.rules, action, "shop")
}

/// Writes clauses as `a|b&c`, a rule without any as `any`.
fn text(lowered: &Lowered) -> String {
    let clause =
        |clause: &Clause| clause.matches.iter().map(describe).collect::<Vec<_>>().join("|");
    let rule = |rule: &Rule| match rule.clauses.as_slice() {
        [] => "any".to_owned(),
        clauses => clauses.iter().map(clause).collect::<Vec<_>>().join("&"),
    };
    lowered.rules.iter().map(rule).collect::<Vec<_>>().join("; ")
}

fn describe(conditions: &Match) -> String {
    let mut parts = Vec::new();
    for (name, values) in [
        ("ns", &conditions.namespaces),
        ("!ns", &conditions.not_namespaces),
        ("p", &conditions.principals),
        ("!p", &conditions.not_principals),
    ] {
        parts.extend(values.iter().map(|value| format!("{name}={}", string_match(value))));
    }
    for (name, values) in [
        ("ip", &conditions.source_ips),
        ("!ip", &conditions.not_source_ips),
        ("dst", &conditions.destination_ips),
        ("!dst", &conditions.not_destination_ips),
    ] {
        let range = |a: &Address| format!("{name}={:?}/{}", &a.address[..], a.length);
        parts.extend(values.iter().map(range));
    }
    for (name, values) in
        [("port", &conditions.destination_ports), ("!port", &conditions.not_destination_ports)]
    {
        parts.extend(values.iter().map(|port| format!("{name}={port}")));
    }
    for (name, values) in
        [("sa", &conditions.service_accounts), ("!sa", &conditions.not_service_accounts)]
    {
        let account =
            |a: &ServiceAccountMatch| format!("{name}={}/{}", a.namespace, a.service_account);
        parts.extend(values.iter().map(account));
    }
    parts.join(" ")
}

fn string_match(value: &StringMatch) -> String {
    match value.match_type.as_ref().unwrap() {
        MatchType::Exact(text) => text.clone(),
        MatchType::Prefix(text) => format!("{text}..."),
        MatchType::Suffix(text) => format!("...{text}"),
        MatchType::Presence(()) => "present".to_owned(),
    }
}

#[test]
fn what_a_node_proxy_can_check_is_kept_as_written() {
    let cases = [
        ("{}", "any"),
        ("{from: [{source: {principals: [td/ns/a/sa/b]}}]}", "p=td/ns/a/sa/b"),
        ("{from: [{source: {principals: ['spiffe://td/ns/a/sa/b']}}]}", "p=td/ns/a/sa/b"),
        ("{from: [{source: {principals: ['*']}}]}", "p=present"),
        ("{from: [{source: {principals: ['*/sa/b', 'td/*']}}]}", "p=.../sa/b p=td/..."),
        ("{from: [{source: {notPrincipals: ['*'], notNamespaces: [a]}}]}", "!ns=a !p=present"),
        ("{from: [{source: {namespaces: [a]}}, {source: {namespaces: [b]}}]}", "ns=a|ns=b"),
        (
            "{from: [{source: {ipBlocks: [10.0.0.1], notIpBlocks: ['10.1.2.3/16']}}]}",
            "ip=[10, 0, 0, 1]/32 !ip=[10, 1, 0, 0]/16",
        ),
        ("{from: [{source: {serviceAccounts: [b, a/c]}}]}", "sa=shop/b sa=a/c"),
        ("{from: [{source: {notServiceAccounts: [b]}}]}", "!sa=shop/b"),
        (
            "{to: [{operation: {ports: ['80']}}, {operation: {notPorts: ['81']}}]}",
            "port=80|!port=81",
        ),
        (
            "{from: [{source: {namespaces: [a]}}], to: [{operation: {ports: ['80']}}]}",
            "ns=a&port=80",
        ),
        (
            "{when: [{key: source.namespace, values: [a]}, {key: destination.port, values: ['80'], \
             notValues: ['81']}]}",
            "ns=a&port=80 !port=81",
        ),
        ("{when: [{key: source.principal, values: [a]}]}", "p=a"),
        ("{when: [{key: source.serviceAccount, values: [a]}]}", "sa=shop/a"),
        (
            "{when: [{key: source.ip, notValues: ['::/0']}]}",
            "!ip=[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]/0",
        ),
        ("{when: [{key: destination.ip, values: [10.0.0.1]}]}", "dst=[10, 0, 0, 1]/32"),
        ("{from: [{source: {namespaces: [a]}}]}, {}", "ns=a; any"),
    ];
    for (rules, expected) in cases {
        for action in [Action::Allow, Action::Deny] {
            let lowered = lowered(rules, action);
            assert_eq!(text(&lowered), expected, "{rules}");
            assert_eq!(lowered.unsupported, [""; 0], "{rules}");
        }
    }
}

#[test]
fn what_a_node_proxy_cannot_check_makes_a_policy_stricter() {
    let cases = [
        // One that allows is dropped, one that denies ignores what cannot be checked.
        ("{to: [{operation: {methods: [GET]}}]}", "any"),
        ("{to: [{operation: {methods: [GET], ports: ['80']}}]}", "port=80"),
        ("{to: [{operation: {notPaths: [/a]}}]}", "any"),
        ("{to: [{operation: {ports: ['80']}}, {operation: {paths: [/a]}}]}", "any"),
        ("{from: [{source: {namespaces: [a]}}], to: [{operation: {hosts: [h]}}]}", "ns=a"),
        ("{from: [{source: {namespaces: [a], requestPrincipals: ['*']}}]}", "ns=a"),
        ("{from: [{source: {remoteIpBlocks: [10.0.0.0/8]}}]}", "any"),
        ("{from: [{source: {trustDomains: [td], namespaces: [a]}}]}", "ns=a"),
        ("{when: [{key: 'request.headers[x]', values: [y]}]}", "any"),
        (
            "{when: [{key: request.auth.principal, values: [y]}, {key: source.ip, values: \
             [10.0.0.1]}]}",
            "ip=[10, 0, 0, 1]/32",
        ),
        // A wildcard in the middle would never match as it stands.
        ("{from: [{source: {namespaces: ['a*b', c]}}]}", "any"),
        ("{from: [{source: {notNamespaces: ['a*b']}}]}", "any"),
        ("{from: [{source: {principals: ['*a*']}}]}", "any"),
    ];
    for (rule, denied) in cases {
        let allow = lowered(rule, Action::Allow);
        assert_eq!(allow.rules, [], "{rule}");
        let deny = lowered(rule, Action::Deny);
        assert_eq!(text(&deny), denied, "{rule}");
        assert_eq!(deny.unsupported.len(), 1, "{rule}");
        assert_eq!(deny.unsupported, allow.unsupported);
    }
}

#[test]
fn only_the_rules_concerned_are_dropped() {
    let rules = "{to: [{operation: {methods: [GET]}}]}, {from: [{source: {namespaces: [a]}}]}";
    let lowered = lowered(rules, Action::Allow);
    assert_eq!(text(&lowered), "ns=a");
    assert_eq!(lowered.unsupported, ["rules[0].to[0].operation.methods"]);
}
