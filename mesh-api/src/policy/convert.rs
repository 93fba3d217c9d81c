//! Policies from their wire form.
//!
//! A value that cannot be understood makes the whole policy invalid: dropping it would widen an
//! ALLOW policy or empty a DENY policy.

use super::{
    Action, Clause, Condition, Match, Policy, Rule, Scope, ServiceAccountMatch, StringMatch,
};
use crate::{
    convert::{InvalidField, Problem, enumeration, list, name, port, range, required, unsupported},
    proto::security as proto,
    workload::PolicyKey,
};

// === impl Policy ===

impl TryFrom<proto::Authorization> for Policy {
    type Error = InvalidField;

    fn try_from(wire: proto::Authorization) -> Result<Self, InvalidField> {
        unsupported("extensions", !wire.extensions.is_empty())?;
        let key = PolicyKey {
            namespace: name("namespace", &wire.namespace)?,
            name: required("name", wire.name)?.into(),
        };
        Ok(Self {
            key,
            scope: enumeration::<proto::Scope>("scope", wire.scope)?.into(),
            action: enumeration::<proto::Action>("action", wire.action)?.into(),
            dry_run: wire.dry_run,
            rules: list("rules", wire.rules, Rule::try_from)?,
        })
    }
}

// === impl Scope ===

impl From<proto::Scope> for Scope {
    fn from(wire: proto::Scope) -> Self {
        match wire {
            proto::Scope::Global => Self::Global,
            proto::Scope::Namespace => Self::Namespace,
            proto::Scope::WorkloadSelector => Self::WorkloadSelector,
        }
    }
}

// === impl Action ===

impl From<proto::Action> for Action {
    fn from(wire: proto::Action) -> Self {
        match wire {
            proto::Action::Allow => Self::Allow,
            proto::Action::Deny => Self::Deny,
        }
    }
}

// === impl Rule ===

impl TryFrom<proto::Rule> for Rule {
    type Error = InvalidField;

    fn try_from(wire: proto::Rule) -> Result<Self, InvalidField> {
        Ok(Self { clauses: list("clauses", wire.clauses, Clause::try_from)? })
    }
}

// === impl Clause ===

impl TryFrom<proto::Clause> for Clause {
    type Error = InvalidField;

    fn try_from(wire: proto::Clause) -> Result<Self, InvalidField> {
        Ok(Self { matches: list("matches", wire.matches, Match::try_from)? })
    }
}

// === impl Match ===

impl TryFrom<proto::Match> for Match {
    type Error = InvalidField;

    fn try_from(wire: proto::Match) -> Result<Self, InvalidField> {
        let proto::Match {
            namespaces,
            not_namespaces,
            principals,
            not_principals,
            source_ips,
            not_source_ips,
            destination_ips,
            not_destination_ips,
            destination_ports,
            not_destination_ports,
            service_accounts,
            not_service_accounts,
            extensions,
        } = wire;
        unsupported("extensions", !extensions.is_empty())?;
        let ip = |address: proto::Address| {
            range(&address.address, address.length).map_err(|problem| problem.at(""))
        };
        let tcp_port = |number| port(number).map_err(|problem| problem.at(""));
        Ok(Self {
            namespaces: condition("namespaces", namespaces, not_namespaces, string_match)?,
            principals: condition("principals", principals, not_principals, string_match)?,
            service_accounts: condition(
                "service_accounts",
                service_accounts,
                not_service_accounts,
                ServiceAccountMatch::try_from,
            )?,
            source_ips: condition("source_ips", source_ips, not_source_ips, ip)?,
            destination_ips: condition(
                "destination_ips",
                destination_ips,
                not_destination_ips,
                ip,
            )?,
            destination_ports: condition(
                "destination_ports",
                destination_ports,
                not_destination_ports,
                tcp_port,
            )?,
        })
    }
}

// === impl ServiceAccountMatch ===

impl TryFrom<proto::ServiceAccountMatch> for ServiceAccountMatch {
    type Error = InvalidField;

    fn try_from(wire: proto::ServiceAccountMatch) -> Result<Self, InvalidField> {
        Ok(Self {
            namespace: name("namespace", &wire.namespace)?,
            service_account: name("service_account", &wire.service_account)?,
        })
    }
}

fn condition<T, U>(
    field: &str,
    any_of: Vec<T>,
    none_of: Vec<T>,
    convert: impl Fn(T) -> Result<U, InvalidField>,
) -> Result<Condition<U>, InvalidField> {
    Ok(Condition {
        any_of: list(field, any_of, &convert)?,
        none_of: list(&format!("not_{field}"), none_of, &convert)?,
    })
}

fn string_match(wire: proto::StringMatch) -> Result<StringMatch, InvalidField> {
    use proto::string_match::MatchType;

    match wire.match_type {
        Some(MatchType::Exact(text)) => Ok(StringMatch::Exact(text.into())),
        Some(MatchType::Prefix(text)) => Ok(StringMatch::Prefix(text.into())),
        Some(MatchType::Suffix(text)) => Ok(StringMatch::Suffix(text.into())),
        Some(MatchType::Presence(())) => Ok(StringMatch::Presence),
        None => Err(Problem::EmptyStringMatch.at("")),
    }
}
