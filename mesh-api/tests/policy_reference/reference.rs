//! The evaluator written as the rules read: slow, over the wire types, sharing no code with the
//! compiled one.

use std::net::IpAddr;

use mesh_api::proto::security::{
    Action, Address, Authorization, Clause, Match, Rule, Scope, ServiceAccountMatch, StringMatch,
    string_match::MatchType,
};

use super::generate::{Case, Connection, WORKLOAD_NAMESPACE};

/// The decision, with the keys of all policies that may be named for it.
#[derive(Debug)]
pub(crate) enum Outcome {
    AllowedByDefault,
    AllowedBy(Vec<String>),
    DeniedBy(Vec<String>),
    Unknown(Vec<String>),
    NotAllowed(Vec<String>),
}

/// What dry-run policies report.
#[derive(Debug)]
pub(crate) struct DryRunOutcome {
    pub(crate) denying: Vec<String>,
    pub(crate) allowing: Vec<String>,
    pub(crate) would_deny: bool,
}

/// Evaluation order.
pub(crate) fn decide(case: &Case, connection: &Connection) -> Outcome {
    let selected = select(case);
    let denying = matching(&selected, Action::Deny, false, connection);
    if !denying.is_empty() {
        return Outcome::DeniedBy(denying);
    }
    let unknown = unknown_keys(case);
    if !unknown.is_empty() {
        return Outcome::Unknown(unknown);
    }
    let allow_policies = of_kind(&selected, Action::Allow, false);
    if allow_policies.is_empty() {
        return Outcome::AllowedByDefault;
    }
    let allowing = matching(&selected, Action::Allow, false, connection);
    if allowing.is_empty() {
        return Outcome::NotAllowed(allow_policies.into_iter().map(key).collect());
    }
    Outcome::AllowedBy(allowing)
}

/// Dry-run reports: DENY policies always, ALLOW policies when nothing enforced denies before.
pub(crate) fn dry_run(case: &Case, connection: &Connection) -> DryRunOutcome {
    let selected = select(case);
    let denying = matching(&selected, Action::Deny, true, connection);
    let denied = matches!(decide(case, connection), Outcome::DeniedBy(_) | Outcome::Unknown(_));
    if denied {
        return DryRunOutcome { denying, allowing: Vec::new(), would_deny: false };
    }
    let allowing = matching(&selected, Action::Allow, true, connection);
    let would_deny = of_kind(&selected, Action::Allow, false).is_empty()
        && !of_kind(&selected, Action::Allow, true).is_empty()
        && allowing.is_empty();
    DryRunOutcome { denying, allowing, would_deny }
}

/// Selection: the namespace's policies, the mesh's, and those the workload names.
fn select(case: &Case) -> Vec<&Authorization> {
    let applies = |policy: &&Authorization| match policy.scope() {
        Scope::Global => true,
        Scope::Namespace if policy.namespace == WORKLOAD_NAMESPACE => true,
        Scope::Namespace | Scope::WorkloadSelector => case.keys.contains(&key(policy)),
    };
    case.policies.iter().filter(applies).collect()
}

fn unknown_keys(case: &Case) -> Vec<String> {
    let known: Vec<String> = case.policies.iter().map(key).collect();
    case.keys.iter().filter(|key| !known.contains(key)).cloned().collect()
}

fn key(policy: &Authorization) -> String {
    format!("{}/{}", policy.namespace, policy.name)
}

fn of_kind<'a>(
    policies: &[&'a Authorization],
    action: Action,
    dry_run: bool,
) -> Vec<&'a Authorization> {
    let is_of_kind =
        |policy: &&&Authorization| policy.action() == action && policy.dry_run == dry_run;
    policies.iter().filter(is_of_kind).copied().collect()
}

fn matching(
    policies: &[&Authorization],
    action: Action,
    dry_run: bool,
    connection: &Connection,
) -> Vec<String> {
    let policies = of_kind(policies, action, dry_run);
    policies.into_iter().filter(|policy| policy_matches(policy, connection)).map(key).collect()
}

/// OR over rules; no rules: never.
fn policy_matches(policy: &Authorization, connection: &Connection) -> bool {
    let mut matched = false;
    for rule in &policy.rules {
        matched = matched || rule_matches(rule, connection);
    }
    matched
}

/// AND over clauses; no clauses: always.
fn rule_matches(rule: &Rule, connection: &Connection) -> bool {
    let mut matched = true;
    for clause in &rule.clauses {
        matched = matched && clause_matches(clause, connection);
    }
    matched
}

/// OR over matches; no matches: true; empty matches contribute nothing.
fn clause_matches(clause: &Clause, connection: &Connection) -> bool {
    if clause.matches.is_empty() {
        return true;
    }
    let mut matched = false;
    for m in &clause.matches {
        if *m != Match::default() {
            matched = matched || match_holds(m, connection);
        }
    }
    matched
}

/// AND over the six pairs.
fn match_holds(m: &Match, connection: &Connection) -> bool {
    let peer = connection.peer.as_ref();
    let namespace = peer.map_or(String::new(), |peer| peer.namespace.to_string());
    let principal = peer.map(|peer| peer.to_string().strip_prefix("spiffe://").unwrap().to_owned());
    let account = |m: &ServiceAccountMatch| {
        peer.is_some_and(|peer| {
            peer.namespace.as_str() == m.namespace
                && peer.service_account.as_str() == m.service_account
        })
    };
    let (from, to) = (connection.source, connection.destination.ip());
    let to_port = u32::from(connection.destination.port());
    pair(&m.namespaces, &m.not_namespaces, |m| string_hits(m, &namespace))
        && pair(&m.principals, &m.not_principals, |m| {
            principal.as_ref().is_some_and(|principal| string_hits(m, principal))
        })
        && pair(&m.service_accounts, &m.not_service_accounts, account)
        && pair(&m.source_ips, &m.not_source_ips, |range| covers(range, from))
        && pair(&m.destination_ips, &m.not_destination_ips, |range| covers(range, to))
        && pair(&m.destination_ports, &m.not_destination_ports, |port| *port == to_port)
}

/// (positive empty OR any positive hits) AND (no negative hits).
fn pair<T>(positive: &[T], negative: &[T], hits: impl Fn(&T) -> bool) -> bool {
    let positive_holds = positive.is_empty() || positive.iter().any(&hits);
    let negative_holds = !negative.iter().any(&hits);
    positive_holds && negative_holds
}

fn string_hits(m: &StringMatch, text: &str) -> bool {
    match m.match_type.as_ref().unwrap() {
        MatchType::Exact(value) => text == value,
        MatchType::Prefix(value) => text.starts_with(value),
        MatchType::Suffix(value) => text.ends_with(value),
        MatchType::Presence(()) => !text.is_empty(),
    }
}

/// Compares bit by bit; IPv4-mapped addresses and ranges of only such are IPv4.
fn covers(range: &Address, address: IpAddr) -> bool {
    let mut network = bits(&range.address);
    let mut length = usize::try_from(range.length).unwrap();
    let mut address = match address {
        IpAddr::V4(address) => bits(&address.octets()),
        IpAddr::V6(address) => bits(&address.octets()),
    };
    let mapped = bits(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
    if length >= mapped.len() && network.starts_with(&mapped) {
        network.drain(..mapped.len());
        length -= mapped.len();
    }
    if address.len() > 32 && address.starts_with(&mapped) {
        address.drain(..mapped.len());
    }
    network.len() == address.len() && network[..length] == address[..length]
}

fn bits(octets: &[u8]) -> Vec<bool> {
    octets.iter().flat_map(|octet| (0..8).rev().map(move |bit| octet >> bit & 1 == 1)).collect()
}
