//! Lowers the rules of authorization policies to what a node proxy can check.
//!
//! A node proxy sees connections, not requests. What it cannot check makes a policy stricter, never
//! weaker: a rule that allows is dropped as a whole, and a rule that denies does so regardless of
//! the condition. So a rule that denies by HTTP conditions alone denies every connection.

use mesh_api::{
    crd::{AuthorizationRule, Condition, Operation, Source},
    proto::security::{
        Action, Address, Clause, Match, Rule, ServiceAccountMatch, StringMatch,
        string_match::MatchType,
    },
};

use crate::{
    mesh::{names::SPIFFE_SCHEME, wire::octets},
    object::range,
};

/// Rules that a node proxy can check.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Lowered {
    pub(super) rules: Vec<Rule>,
    /// Paths of the fields that it cannot.
    pub(super) unsupported: Vec<String>,
}

/// Conditions that a node proxy can check, and the names of those that it cannot.
#[derive(Default)]
struct Checkable {
    conditions: Match,
    unsupported: Vec<&'static str>,
}

/// Lowers the rules of a policy of `namespace`.
pub(super) fn lower(rules: &[AuthorizationRule], action: Action, namespace: &str) -> Lowered {
    let mut lowered = Lowered::default();
    for (i, rule) in rules.iter().enumerate() {
        let before = lowered.unsupported.len();
        let prefix = format!("rules[{i}]");
        let clauses = clauses(rule, namespace, &prefix, &mut lowered.unsupported);
        let complete = lowered.unsupported.len() == before;
        if complete || action == Action::Deny {
            lowered.rules.push(Rule { clauses });
        }
    }
    lowered
}

/// Returns the clauses of a rule; one that is met by anything is left out.
fn clauses(
    rule: &AuthorizationRule,
    namespace: &str,
    prefix: &str,
    unsupported: &mut Vec<String>,
) -> Vec<Clause> {
    let sources = rule.from.iter().flat_map(|from| &from.source);
    let sources = sources.map(|source| checkable_source(source, namespace)).collect();
    let operations = rule.to.iter().flat_map(|to| &to.operation);
    let operations = operations.map(checkable_operation).collect();
    let mut clauses = Vec::new();
    clauses.extend(any_of(sources, unsupported, |i| format!("{prefix}.from[{i}].source")));
    clauses.extend(any_of(operations, unsupported, |i| format!("{prefix}.to[{i}].operation")));
    for (i, condition) in rule.when.iter().enumerate() {
        let checkable = vec![checkable_condition(condition, namespace)];
        clauses.extend(any_of(checkable, unsupported, |_| format!("{prefix}.when[{i}]")));
    }
    clauses
}

/// Returns a clause that one of several entries meets; none if anything does.
fn any_of(
    entries: Vec<Checkable>,
    unsupported: &mut Vec<String>,
    path: impl Fn(usize) -> String,
) -> Option<Clause> {
    for (i, entry) in entries.iter().enumerate() {
        unsupported.extend(entry.unsupported.iter().map(|field| format!("{}.{field}", path(i))));
    }
    let open = entries.iter().any(|entry| entry.conditions == Match::default());
    let matches: Vec<_> = entries.into_iter().map(|entry| entry.conditions).collect();
    (!open && !matches.is_empty()).then_some(Clause { matches })
}

fn checkable_source(source: &Source, namespace: &str) -> Checkable {
    let mut checkable = Checkable::default();
    let Checkable { conditions, unsupported } = &mut checkable;
    let mut take = |field, list: Option<()>| {
        if list.is_none() {
            unsupported.push(field);
        }
    };
    take("principals", set(&mut conditions.principals, principals(&source.principals)));
    take("notPrincipals", set(&mut conditions.not_principals, principals(&source.not_principals)));
    take("namespaces", set(&mut conditions.namespaces, texts(&source.namespaces)));
    take("notNamespaces", set(&mut conditions.not_namespaces, texts(&source.not_namespaces)));
    take("ipBlocks", set(&mut conditions.source_ips, ranges(&source.ip_blocks)));
    take("notIpBlocks", set(&mut conditions.not_source_ips, ranges(&source.not_ip_blocks)));
    conditions.service_accounts = accounts(&source.service_accounts, namespace);
    conditions.not_service_accounts = accounts(&source.not_service_accounts, namespace);
    for (field, values) in [
        ("requestPrincipals", &source.request_principals),
        ("notRequestPrincipals", &source.not_request_principals),
        ("remoteIpBlocks", &source.remote_ip_blocks),
        ("notRemoteIpBlocks", &source.not_remote_ip_blocks),
        ("trustDomains", &source.trust_domains),
        ("notTrustDomains", &source.not_trust_domains),
    ] {
        take(field, values.is_empty().then_some(()));
    }
    checkable
}

fn checkable_operation(operation: &Operation) -> Checkable {
    let mut checkable = Checkable::default();
    let Checkable { conditions, unsupported } = &mut checkable;
    let mut take = |field, list: Option<()>| {
        if list.is_none() {
            unsupported.push(field);
        }
    };
    take("ports", set(&mut conditions.destination_ports, ports(&operation.ports)));
    take("notPorts", set(&mut conditions.not_destination_ports, ports(&operation.not_ports)));
    for (field, values) in [
        ("hosts", &operation.hosts),
        ("notHosts", &operation.not_hosts),
        ("methods", &operation.methods),
        ("notMethods", &operation.not_methods),
        ("paths", &operation.paths),
        ("notPaths", &operation.not_paths),
    ] {
        take(field, values.is_empty().then_some(()));
    }
    checkable
}

fn checkable_condition(condition: &Condition, namespace: &str) -> Checkable {
    let Condition { key, values, not_values } = condition;
    let (values, not_values) = (values.as_slice(), not_values.as_slice());
    let mut checkable = Checkable::default();
    let to = &mut checkable.conditions;
    let complete = match key.as_str() {
        "source.ip" => {
            set_both(&mut to.source_ips, &mut to.not_source_ips, [values, not_values].map(ranges))
        }
        "source.namespace" => {
            set_both(&mut to.namespaces, &mut to.not_namespaces, [values, not_values].map(texts))
        }
        "source.principal" => set_both(
            &mut to.principals,
            &mut to.not_principals,
            [values, not_values].map(principals),
        ),
        "source.serviceAccount" => {
            to.service_accounts = accounts(values, namespace);
            to.not_service_accounts = accounts(not_values, namespace);
            Some(())
        }
        "destination.ip" => set_both(
            &mut to.destination_ips,
            &mut to.not_destination_ips,
            [values, not_values].map(ranges),
        ),
        "destination.port" => set_both(
            &mut to.destination_ports,
            &mut to.not_destination_ports,
            [values, not_values].map(ports),
        ),
        _ => None,
    };
    if complete.is_none() {
        checkable.unsupported.push("key");
    }
    checkable
}

/// Puts a list in place; leaves it empty if one of its values cannot be checked.
fn set<T>(field: &mut Vec<T>, values: Option<Vec<T>>) -> Option<()> {
    *field = values?;
    Some(())
}

/// Puts the values of a condition in place, and those that it excludes.
fn set_both<T>(
    any_of: &mut Vec<T>,
    none_of: &mut Vec<T>,
    [values, not_values]: [Option<Vec<T>>; 2],
) -> Option<()> {
    let positive = set(any_of, values);
    let negative = set(none_of, not_values);
    positive.and(negative)
}

fn principals(values: &[String]) -> Option<Vec<StringMatch>> {
    values.iter().map(|v| text(v.strip_prefix(SPIFFE_SCHEME).unwrap_or(v))).collect()
}

fn texts(values: &[String]) -> Option<Vec<StringMatch>> {
    values.iter().map(|value| text(value)).collect()
}

/// Returns how a text is compared; none for a wildcard elsewhere than at one end.
fn text(value: &str) -> Option<StringMatch> {
    let (inner, kind) = match (value.strip_prefix('*'), value.strip_suffix('*')) {
        (Some(""), _) => ("", MatchType::Presence(())),
        (Some(suffix), _) => (suffix, MatchType::Suffix(suffix.to_owned())),
        (None, Some(prefix)) => (prefix, MatchType::Prefix(prefix.to_owned())),
        (None, None) => (value, MatchType::Exact(value.to_owned())),
    };
    (!inner.contains('*')).then_some(StringMatch { match_type: Some(kind) })
}

fn ranges(values: &[String]) -> Option<Vec<Address>> {
    let convert = |text: &String| {
        let net = range(text)?;
        Some(Address { address: octets(net.addr()), length: net.prefix_len().into() })
    };
    values.iter().map(convert).collect()
}

fn ports(values: &[String]) -> Option<Vec<u32>> {
    values.iter().map(|text| text.parse::<u16>().ok().map(Into::into)).collect()
}

/// Returns service accounts, which are of `namespace` unless they say.
fn accounts(values: &[String], namespace: &str) -> Vec<ServiceAccountMatch> {
    let convert = |text: &String| {
        let (namespace, account) = text.split_once('/').unwrap_or((namespace, text));
        ServiceAccountMatch { namespace: namespace.to_owned(), service_account: account.to_owned() }
    };
    values.iter().map(convert).collect()
}

#[cfg(test)]
mod tests;
