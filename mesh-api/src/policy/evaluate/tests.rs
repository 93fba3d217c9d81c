use super::*;
use crate::{
    identity::Identity,
    policy::Policy,
    proto::{security, workload},
};

const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";

const ALL: &str = "rules: [{}]";
const NONE: &str = "rules: []";
const CART_ONLY: &str =
    "rules: [{clauses: [{matches: [{principals: [{suffix: /ns/shop/sa/cart}]}]}]}]";

fn policy(yaml: &str) -> Policy {
    let wire: security::Authorization =
        serde_saphyr::from_str(&format!("{{namespace: shop, scope: NAMESPACE, {yaml}}}")).unwrap();
    wire.try_into().unwrap()
}

fn workload(namespace: &str, policies: &[&str]) -> Workload {
    workload::Workload {
        uid: "w".into(),
        namespace: namespace.into(),
        addresses: vec![vec![10, 0, 0, 7].into()],
        authorization_policies: policies.iter().map(|key| (*key).to_owned()).collect(),
        ..workload::Workload::default()
    }
    .try_into()
    .unwrap()
}

fn compile(policies: &[String], named: &[&str]) -> WorkloadPolicies {
    let index = PolicyIndex::new(policies.iter().map(|yaml| policy(yaml)));
    WorkloadPolicies::compile(&workload("shop", named), &index)
}

fn flow(identity: Option<&Identity>) -> Flow<'_> {
    Flow {
        source: "10.0.0.1".parse().unwrap(),
        identity,
        destination: "10.0.0.7:80".parse().unwrap(),
    }
}

fn describe(verdict: Verdict) -> String {
    match verdict {
        Verdict::Allow(None) => "allow".into(),
        Verdict::Allow(Some(key)) => format!("allow by {key}"),
        Verdict::Deny(reason) => reason.to_string(),
    }
}

/// Each line: enforced and dry-run policies, keys the workload names, and the verdict about a
/// connection of the shop's cart.
fn check(table: &[(&[&str], &[&str], &str)]) {
    let cart: Identity = CART.parse().unwrap();
    for (policies, named, expected) in table {
        let owned: Vec<_> = policies.iter().map(|&yaml| yaml.to_owned()).collect();
        let verdict = compile(&owned, named).decide(&flow(Some(&cart)));
        assert_eq!(describe(verdict), *expected, "{policies:?}, named {named:?}");
    }
}

#[test]
fn a_matching_deny_wins_then_any_allow_must_match_if_there_are_some() {
    let allow_all = format!("name: aa, action: ALLOW, {ALL}");
    let allow_none = format!("name: an, action: ALLOW, {NONE}");
    let allow_cart = format!("name: ac, action: ALLOW, {CART_ONLY}");
    let deny_all = format!("name: da, action: DENY, {ALL}");
    let deny_none = format!("name: dn, action: DENY, {NONE}");
    check(&[
        (&[], &[], "allow"),
        (&[&deny_none], &[], "allow"),
        (&[&deny_all], &[], "denied by policy shop/da"),
        (&[&allow_all], &[], "allow by shop/aa"),
        (&[&allow_cart], &[], "allow by shop/ac"),
        (&[&allow_none], &[], "no ALLOW policy matches, such as shop/an"),
        (&[&allow_none, &allow_cart], &[], "allow by shop/ac"),
        (&[&allow_all, &deny_all], &[], "denied by policy shop/da"),
        (&[&allow_none, &deny_all], &[], "denied by policy shop/da"),
        (&[&allow_all, &deny_none], &[], "allow by shop/aa"),
    ]);
}

#[test]
fn dry_run_policies_do_not_decide() {
    let deny = format!("name: d, action: DENY, dry_run: true, {ALL}");
    let allow = format!("name: a, action: ALLOW, dry_run: true, {NONE}");
    check(&[(&[&deny], &[], "allow"), (&[&allow], &[], "allow"), (&[&allow, &deny], &[], "allow")]);
}

#[test]
fn an_unknown_policy_denies_unless_a_known_one_does_so_by_name() {
    let allow_all = format!("name: aa, action: ALLOW, {ALL}");
    let deny_all = format!("name: da, action: DENY, {ALL}");
    let unknown = "policy shop/gone is named by the workload but not known";
    check(&[
        (&[], &["shop/gone"], unknown),
        (&[], &["shop/gone", "shop/gone-too"], unknown),
        (&[&allow_all], &["shop/gone"], unknown),
        (&[&allow_all], &["shop/aa", "shop/gone"], unknown),
        (&[&deny_all], &["shop/gone"], "denied by policy shop/da"),
    ]);
}

#[test]
fn a_policy_applies_by_its_scope_or_when_it_is_named() {
    use crate::policy::Scope::{Global, Namespace, WorkloadSelector};

    let deny = |scope, namespace| {
        let mut policy = policy(&format!("name: d, action: DENY, {ALL}"));
        policy.scope = scope;
        policy.key.namespace = namespace;
        policy
    };
    for (scope, namespace, named, applies) in [
        (Global, "istio-system", &[][..], true),
        (Global, "other", &[], true),
        (Namespace, "shop", &[], true),
        (Namespace, "shop", &["shop/d"], true),
        (Namespace, "other", &[], false),
        (Namespace, "other", &["other/d"], true),
        (WorkloadSelector, "shop", &[], false),
        (WorkloadSelector, "shop", &["shop/d"], true),
        (WorkloadSelector, "other", &["other/d", "other/d"], true),
    ] {
        let index = PolicyIndex::new([deny(scope, namespace.parse().unwrap())]);
        let policies = WorkloadPolicies::compile(&workload("shop", named), &index);
        let denied = policies.decide(&flow(None)) != Verdict::Allow(None);
        assert_eq!(denied, applies, "{scope:?} {namespace} {named:?}");
    }
}

#[test]
fn the_last_of_several_policies_with_one_key_counts() {
    let first = policy(&format!("name: p, action: DENY, {ALL}"));
    let last = policy(&format!("name: p, action: ALLOW, {ALL}"));
    let index = PolicyIndex::new([first, last]);
    let policies = WorkloadPolicies::compile(&workload("shop", &[]), &index);
    assert_eq!(describe(policies.decide(&flow(None))), "allow by shop/p");
    assert_eq!(index.len(), 1);
}

/// Each line: the rules of a policy, and whether they match.
#[test]
fn rules_clauses_and_matches_combine_as_or_and_or() {
    let hit = "{destination_ports: [80]}";
    let miss = "{destination_ports: [81]}";
    for (rules, expected) in [
        ("[]".to_owned(), false),
        ("[{}]".to_owned(), true),
        ("[{clauses: []}]".to_owned(), true),
        ("[{clauses: [{}]}]".to_owned(), true),
        ("[{clauses: [{matches: []}]}]".to_owned(), true),
        ("[{clauses: [{matches: [{}]}]}]".to_owned(), false),
        ("[{clauses: [{matches: [{}, {}]}]}]".to_owned(), false),
        (format!("[{{clauses: [{{matches: [{{}}, {hit}]}}]}}]"), true),
        (format!("[{{clauses: [{{matches: [{{}}, {miss}]}}]}}]"), false),
        (format!("[{{clauses: [{{matches: [{{}}]}}, {{matches: [{hit}]}}]}}]"), false),
        (format!("[{{clauses: [{{}}, {{matches: [{hit}]}}]}}]"), true),
        (format!("[{{clauses: [{{}}, {{matches: [{miss}]}}]}}]"), false),
        (format!("[{{clauses: [{{matches: [{hit}]}}, {{matches: [{hit}]}}]}}]"), true),
        (format!("[{{clauses: [{{matches: [{hit}]}}, {{matches: [{miss}]}}]}}]"), false),
        (format!("[{{clauses: [{{matches: [{miss}, {hit}]}}]}}]"), true),
        (format!("[{{clauses: [{{matches: [{miss}]}}]}}, {{}}]"), true),
        (
            format!("[{{clauses: [{{matches: [{miss}]}}]}}, {{clauses: [{{matches: [{hit}]}}]}}]"),
            true,
        ),
        ("[{clauses: [{matches: [{}]}]}, {}]".to_owned(), true),
    ] {
        let policies = compile(&[format!("name: d, action: DENY, rules: {rules}")], &[]);
        let denied = policies.decide(&flow(None)) != Verdict::Allow(None);
        assert_eq!(denied, expected, "{rules}");
    }
}

#[test]
fn mapped_addresses_are_decided_as_ipv4() {
    let rules = "rules: [{clauses: [{matches: [{source_ips: [10.0.0.1], destination_ips: [10.0.0.0/8]}]}]}]";
    let policies = compile(&[format!("name: d, action: DENY, {rules}")], &[]);
    let mapped = Flow {
        source: "::ffff:10.0.0.1".parse().unwrap(),
        identity: None,
        destination: "[::ffff:10.0.0.7]:80".parse().unwrap(),
    };
    assert_eq!(describe(policies.decide(&mapped)), "denied by policy shop/d");
}

/// Each line: policies, and what the dry-run ones report about a connection of the shop's cart.
#[test]
fn dry_run_policies_report_what_they_would_have_done() {
    let deny_all = format!("name: da, action: DENY, dry_run: true, {ALL}");
    let allow_none = format!("name: an, action: ALLOW, dry_run: true, {NONE}");
    let allow_cart = format!("name: ac, action: ALLOW, dry_run: true, {CART_ONLY}");
    let enforced_allow = format!("name: ea, action: ALLOW, {ALL}");
    let enforced_deny = format!("name: ed, action: DENY, {ALL}");
    let cart: Identity = CART.parse().unwrap();
    let key = |name: &str| PolicyKey { namespace: "shop".parse().unwrap(), name: name.into() };
    let matched = |name| DryRunAllow::Matched(key(name));
    let table: [(&[&String], Option<&str>, DryRunAllow); 9] = [
        (&[], None, DryRunAllow::NoEffect),
        (&[&deny_all], Some("da"), DryRunAllow::NoEffect),
        (&[&allow_none], None, DryRunAllow::WouldDeny),
        (&[&allow_cart], None, matched("ac")),
        (&[&allow_none, &allow_cart], None, matched("ac")),
        (&[&allow_none, &enforced_allow], None, DryRunAllow::NoEffect),
        (&[&allow_cart, &enforced_allow], None, matched("ac")),
        (&[&allow_none, &enforced_deny], None, DryRunAllow::NoEffect),
        (&[&allow_none, &deny_all], Some("da"), DryRunAllow::WouldDeny),
    ];
    for (policies, denied_by, allow) in table {
        let owned: Vec<_> = policies.iter().map(|&yaml| yaml.clone()).collect();
        let compiled = compile(&owned, &[]);
        let expected = DryRun { denied_by: denied_by.map(key), allow };
        assert_eq!(compiled.dry_run(&flow(Some(&cart))), expected, "{policies:?}");
    }
}
