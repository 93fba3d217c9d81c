//! Authorization policies that are attached to waypoints, or to services behind them.

use std::{collections::BTreeSet, sync::Arc};

use mesh_api::{
    crd::{
        AuthorizationAction, AuthorizationRule, Condition as WrittenCondition,
        Operation as WrittenOperation, Source as WrittenSource, TargetReference,
    },
    proto::l7::{
        Action, Authorization, Condition, Operation, PathPattern, Rule, ServiceRef, Source,
        StringMatch, Target, path_pattern, resource::Kind as Wire, string_match::Kind, target,
    },
    xds_client::EVERY_WAYPOINT,
};

use super::enforcement;
use crate::{
    mesh::{context::Context, names, waypoint::WAYPOINT_CLASS},
    object::{AuthorizationPolicy, ObjectName},
    resource::Resource,
};

/// Returns a policy as waypoints are told of it, unless it is attached to nothing of theirs.
pub(in crate::mesh) fn of_policy(
    context: &mut Context<'_>,
    policy: &AuthorizationPolicy,
) -> Option<Resource> {
    enforcement::note(context, policy);
    let namespace = policy.metadata.namespace();
    let targets: Vec<_> =
        policy.spec.targets().flat_map(|target| targets(context, namespace, target)).collect();
    if targets.is_empty() {
        return None;
    }
    let aliases = aliases(&targets);
    let action = match policy.spec.action {
        AuthorizationAction::Allow => Action::Allow,
        AuthorizationAction::Deny => Action::Deny,
        AuthorizationAction::Custom => Action::Custom,
        AuthorizationAction::Audit => Action::Audit,
    };
    let wire = Authorization {
        namespace: namespace.to_string(),
        name: policy.metadata.name.name.to_string(),
        action: action.into(),
        targets,
        rules: policy.spec.rules.iter().map(|rule| lower(rule, namespace)).collect(),
        dry_run: policy.metadata.annotation(names::DRY_RUN) == Some("true"),
        provider: policy.spec.provider.as_ref().map(|p| p.name.clone()).unwrap_or_default(),
    };
    let name = format!("authorization/{}", policy.metadata.name);
    Some(Resource::l7(name, Wire::Authorization(wire), aliases))
}

/// Returns what is meant by a reference, which is of the policy's own namespace.
fn targets(
    context: &Context<'_>,
    namespace: &Arc<str>,
    reference: &TargetReference,
) -> Vec<Target> {
    let name = ObjectName::new(namespace.clone(), reference.name.as_str());
    let service = |hostname: String| {
        let namespace = namespace.to_string();
        target::Kind::Service(ServiceRef { namespace, hostname })
    };
    let kinds = match (reference.group.as_str(), reference.kind.as_str()) {
        ("gateway.networking.k8s.io", "Gateway") => vec![target::Kind::Gateway(name.to_string())],
        ("gateway.networking.k8s.io", "GatewayClass")
            if reference.name == WAYPOINT_CLASS
                && *namespace == context.settings.root_namespace =>
        {
            vec![target::Kind::All(true)]
        }
        ("" | "core", "Service") => vec![service(context.store.host_of(&name))],
        ("networking.istio.io", "ServiceEntry") => {
            let entry = context.store.service_entry(&name);
            let hosts = entry.iter().flat_map(|entry| &entry.spec.hosts);
            hosts.cloned().map(service).collect()
        }
        _ => Vec::new(),
    };
    kinds.into_iter().map(|kind| Target { kind: Some(kind) }).collect()
}

/// Returns the names by which waypoints ask for a policy.
fn aliases(targets: &[Target]) -> Box<[Box<str>]> {
    let names = targets.iter().map(|target| match &target.kind {
        Some(target::Kind::Gateway(name)) => name.as_str(),
        // A waypoint may be sent a service's requests as soon as the service is bound to it, and
        // before it is told anything more: it has to have the policies by then.
        Some(target::Kind::Service(_) | target::Kind::All(_)) | None => EVERY_WAYPOINT,
    });
    let names: BTreeSet<_> = names.collect();
    names.into_iter().map(Box::from).collect()
}

fn lower(rule: &AuthorizationRule, namespace: &Arc<str>) -> Rule {
    let sources = rule.from.iter().filter_map(|from| from.source.as_ref());
    let operations = rule.to.iter().filter_map(|to| to.operation.as_ref());
    Rule {
        from: sources.map(|source| lower_source(source, namespace)).collect(),
        to: operations.map(lower_operation).collect(),
        when: rule.when.iter().map(|when| lower_condition(when, namespace)).collect(),
    }
}

fn lower_source(written: &WrittenSource, namespace: &Arc<str>) -> Source {
    let principals = |principals: &[String], accounts: &[String]| {
        let accounts = accounts.iter().map(|account| of_account(account, namespace));
        principals.iter().map(|text| principal(text)).chain(accounts).collect()
    };
    Source {
        principals: principals(&written.principals, &written.service_accounts),
        not_principals: principals(&written.not_principals, &written.not_service_accounts),
        request_principals: strings(&written.request_principals),
        not_request_principals: strings(&written.not_request_principals),
        namespaces: strings(&written.namespaces),
        not_namespaces: strings(&written.not_namespaces),
        ip_blocks: written.ip_blocks.clone(),
        not_ip_blocks: written.not_ip_blocks.clone(),
        remote_ip_blocks: written.remote_ip_blocks.clone(),
        not_remote_ip_blocks: written.not_remote_ip_blocks.clone(),
        trust_domains: strings(&written.trust_domains),
        not_trust_domains: strings(&written.not_trust_domains),
    }
}

/// Returns a condition on a principal, which is meant alike with and without the scheme.
fn principal(text: &str) -> StringMatch {
    string(text.strip_prefix(names::SPIFFE_SCHEME).unwrap_or(text))
}

/// Returns a condition on principals: the account of a namespace, of whichever trust domain.
fn of_account(account: &str, namespace: &Arc<str>) -> StringMatch {
    let (namespace, account) = account.split_once('/').unwrap_or((namespace, account));
    StringMatch { kind: Some(Kind::Suffix(format!("/ns/{namespace}/sa/{account}"))) }
}

fn lower_operation(written: &WrittenOperation) -> Operation {
    Operation {
        hosts: strings(&written.hosts),
        not_hosts: strings(&written.not_hosts),
        ports: ports(&written.ports),
        not_ports: ports(&written.not_ports),
        methods: strings(&written.methods),
        not_methods: strings(&written.not_methods),
        paths: paths(&written.paths),
        not_paths: paths(&written.not_paths),
    }
}

fn lower_condition(written: &WrittenCondition, namespace: &Arc<str>) -> Condition {
    let values = |values: &[String]| {
        let qualified = |value: &String| match written.key.as_str() {
            "source.serviceAccount" if !value.contains('/') => {
                string(&format!("{namespace}/{value}"))
            }
            "source.principal" => principal(value),
            _ => string(value),
        };
        values.iter().map(qualified).collect()
    };
    Condition {
        key: written.key.clone(),
        values: values(&written.values),
        not_values: values(&written.not_values),
    }
}

fn ports(written: &[String]) -> Vec<u32> {
    written.iter().filter_map(|port| port.parse().ok()).collect()
}

fn paths(written: &[String]) -> Vec<PathPattern> {
    let pattern = |text: &String| {
        if text.contains(['{', '}']) {
            path_pattern::Kind::Template(text.clone())
        } else {
            path_pattern::Kind::Value(string(text))
        }
    };
    written.iter().map(|text| PathPattern { kind: Some(pattern(text)) }).collect()
}

fn strings(written: &[String]) -> Vec<StringMatch> {
    written.iter().map(|text| string(text)).collect()
}

/// Returns a condition on a text that may have a `*` at one end, or be it.
fn string(text: &str) -> StringMatch {
    let inner = |text: &str| text.contains('*');
    let kind = match (text.strip_prefix('*'), text.strip_suffix('*')) {
        (Some(""), _) => Kind::Present(true),
        (Some(suffix), None) if !inner(suffix) => Kind::Suffix(suffix.to_owned()),
        (None, Some(prefix)) if !inner(prefix) => Kind::Prefix(prefix.to_owned()),
        (None, None) if !inner(text) => Kind::Exact(text.to_owned()),
        _ => {
            let parts: Vec<_> = text.split('*').map(regex_syntax::escape).collect();
            Kind::Regex(parts.join(".*"))
        }
    };
    StringMatch { kind: Some(kind) }
}
