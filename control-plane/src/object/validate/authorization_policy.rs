//! Authorization policies.

use mesh_api::{
    crd::{
        AuthorizationAction, AuthorizationPolicy, AuthorizationRule, Condition, From, Operation,
        Source, TargetReference, To,
    },
    identity::{Namespace, ServiceAccount},
};

use super::{InvalidObject, Problem, at_most, each, match_labels, not_empty, port_texts, ranges};

/// Most rules of a policy, and most sources, operations and conditions of a rule; the API limits the
/// rules and sources to as many.
const MAX_ENTRIES: usize = 512;
/// Most objects that a policy is attached to, as the API limits them.
const MAX_TARGETS: usize = 16;

const KNOWN_TARGETS: &str = "Gateway, GatewayClass, Service and ServiceEntry";
const KNOWN_KEYS: &str = "request.headers[NAME], source.ip, remote.ip, source.namespace, \
     source.principal, source.serviceAccount, source.trustDomain, request.auth.principal, \
     request.auth.audiences, request.auth.presenter, request.auth.claims[NAME], destination.ip, \
     destination.port, connection.sni and experimental.NAME";
const PLAIN_KEYS: [&str; 12] = [
    "source.ip",
    "remote.ip",
    "source.namespace",
    "source.principal",
    "source.serviceAccount",
    "source.trustDomain",
    "request.auth.principal",
    "request.auth.audiences",
    "request.auth.presenter",
    "destination.ip",
    "destination.port",
    "connection.sni",
];
const KEY_PREFIXES: [&str; 3] = ["request.headers[", "request.auth.claims[", "experimental."];

/// Checks the specification of a policy.
pub(super) fn check(spec: &AuthorizationPolicy) -> Result<(), InvalidObject> {
    if let Some(selector) = &spec.selector {
        match_labels("selector.matchLabels", &selector.match_labels)?;
        if spec.targets().next().is_some() {
            return Err(Problem::Conflict("targetRefs").at("selector"));
        }
    }
    if let Some(target) = &spec.target_ref {
        check_target(target).map_err(|error| error.within("targetRef"))?;
    }
    at_most("targetRefs", spec.target_refs.len(), MAX_TARGETS)?;
    each("targetRefs", &spec.target_refs, check_target)?;
    check_action(spec)?;
    at_most("rules", spec.rules.len(), MAX_ENTRIES)?;
    each("rules", &spec.rules, |rule| check_rule(rule, spec.action))
}

fn check_target(target: &TargetReference) -> Result<(), InvalidObject> {
    let known = matches!(
        (target.group.as_str(), target.kind.as_str()),
        ("gateway.networking.k8s.io", "Gateway" | "GatewayClass")
            | ("" | "core", "Service")
            | ("networking.istio.io", "ServiceEntry")
    );
    if !known {
        let value = format!("{}/{}", target.group, target.kind);
        return Err(Problem::Unknown { value, known: KNOWN_TARGETS }.at("kind"));
    }
    if target.name.is_empty() {
        return Err(Problem::Missing("name the object").at("name"));
    }
    if target.namespace.is_empty() {
        return Ok(());
    }
    Err(Problem::Conflict("the policy's own namespace, which is the only one possible")
        .at("namespace"))
}

fn check_action(spec: &AuthorizationPolicy) -> Result<(), InvalidObject> {
    let named = spec.provider.as_ref().is_some_and(|provider| !provider.name.is_empty());
    match spec.action {
        AuthorizationAction::Custom if !named => {
            Err(Problem::Needs("the name of a provider").at("action"))
        }
        AuthorizationAction::Custom | AuthorizationAction::Deny if spec.rules.is_empty() => {
            Err(Problem::Missing("list what it applies to; `- {}` stands for everything")
                .at("rules"))
        }
        AuthorizationAction::Allow | AuthorizationAction::Deny | AuthorizationAction::Audit
            if spec.provider.is_some() =>
        {
            Err(Problem::Needs("the action CUSTOM").at("provider"))
        }
        AuthorizationAction::Allow
        | AuthorizationAction::Deny
        | AuthorizationAction::Audit
        | AuthorizationAction::Custom => Ok(()),
    }
}

fn check_rule(rule: &AuthorizationRule, action: AuthorizationAction) -> Result<(), InvalidObject> {
    at_most("from", rule.from.len(), MAX_ENTRIES)?;
    at_most("to", rule.to.len(), MAX_ENTRIES)?;
    each("from", &rule.from, |From { source }| {
        let source = source.as_ref().ok_or_else(|| {
            Problem::Missing("describe a source, or remove the entry").at("source")
        })?;
        check_source(source, action).map_err(|error| error.within("source"))
    })?;
    each("to", &rule.to, |To { operation }| {
        let operation = operation.as_ref().ok_or_else(|| {
            Problem::Missing("describe an operation, or remove the entry").at("operation")
        })?;
        check_operation(operation).map_err(|error| error.within("operation"))
    })?;
    at_most("when", rule.when.len(), MAX_ENTRIES)?;
    each("when", &rule.when, check_condition)
}

fn check_source(source: &Source, action: AuthorizationAction) -> Result<(), InvalidObject> {
    if *source == Source::default() {
        return Err(Problem::Missing("set one of its fields, or remove the entry").at(""));
    }
    for (field, values) in texts_of_source(source) {
        not_empty(field, values)?;
    }
    ranges("ipBlocks", &source.ip_blocks)?;
    ranges("notIpBlocks", &source.not_ip_blocks)?;
    ranges("remoteIpBlocks", &source.remote_ip_blocks)?;
    ranges("notRemoteIpBlocks", &source.not_remote_ip_blocks)?;
    each("serviceAccounts", &source.service_accounts, |text| check_account(text))?;
    each("notServiceAccounts", &source.not_service_accounts, |text| check_account(text))?;
    let accounts = [&source.service_accounts, &source.not_service_accounts];
    let others =
        [&source.principals, &source.not_principals, &source.namespaces, &source.not_namespaces];
    let given = |lists: &[&Vec<String>]| lists.iter().any(|list| !list.is_empty());
    if given(&accounts) && given(&others) {
        return Err(Problem::Conflict("principals and namespaces").at("serviceAccounts"));
    }
    let identity = given(&accounts) || given(&others);
    if action == AuthorizationAction::Custom && identity {
        return Err(Problem::Conflict("the action CUSTOM, which knows no identities").at(""));
    }
    Ok(())
}

fn texts_of_source(source: &Source) -> [(&'static str, &[String]); 10] {
    [
        ("principals", &source.principals),
        ("notPrincipals", &source.not_principals),
        ("requestPrincipals", &source.request_principals),
        ("notRequestPrincipals", &source.not_request_principals),
        ("namespaces", &source.namespaces),
        ("notNamespaces", &source.not_namespaces),
        ("trustDomains", &source.trust_domains),
        ("notTrustDomains", &source.not_trust_domains),
        ("serviceAccounts", &source.service_accounts),
        ("notServiceAccounts", &source.not_service_accounts),
    ]
}

fn check_account(text: &str) -> Result<(), InvalidObject> {
    let (namespace, name) = text.split_once('/').unwrap_or(("any", text));
    if namespace.parse::<Namespace>().is_ok() && name.parse::<ServiceAccount>().is_ok() {
        return Ok(());
    }
    let form = "name or namespace/name, without wildcards";
    Err(Problem::Form { value: text.escape_debug().to_string(), form }.at(""))
}

fn check_operation(operation: &Operation) -> Result<(), InvalidObject> {
    if *operation == Operation::default() {
        return Err(Problem::Missing("set one of its fields, or remove the entry").at(""));
    }
    for (field, values) in [
        ("hosts", &operation.hosts),
        ("notHosts", &operation.not_hosts),
        ("methods", &operation.methods),
        ("notMethods", &operation.not_methods),
        ("paths", &operation.paths),
        ("notPaths", &operation.not_paths),
    ] {
        not_empty(field, values)?;
    }
    port_texts("ports", &operation.ports)?;
    port_texts("notPorts", &operation.not_ports)
}

fn check_condition(condition: &Condition) -> Result<(), InvalidObject> {
    let Condition { key, values, not_values } = condition;
    let known = PLAIN_KEYS.contains(&key.as_str())
        || KEY_PREFIXES.iter().any(|prefix| key.starts_with(prefix));
    if !known {
        let value = key.escape_debug().to_string();
        return Err(Problem::Unknown { value, known: KNOWN_KEYS }.at("key"));
    }
    if values.is_empty() && not_values.is_empty() {
        return Err(Problem::Missing("list at least one value, here or as notValues").at("values"));
    }
    for (field, values) in [("values", values), ("notValues", not_values)] {
        not_empty(field, values)?;
        match key.as_str() {
            "source.ip" | "destination.ip" | "remote.ip" => ranges(field, values)?,
            "destination.port" => port_texts(field, values)?,
            "source.serviceAccount" => each(field, values, |text| check_account(text))?,
            _ => {}
        }
    }
    Ok(())
}
