//! Who enforces a policy that is attached to something, and what of it cannot be as it is written.

use http::HeaderName;
use mesh_api::crd::{AuthorizationAction, AuthorizationRule, Condition, Source, TargetReference};

use crate::{
    mesh::{
        context::{Context, Enforcer},
        warning::{Flaw, Warning},
        waypoint::{self, WAYPOINT_CLASS},
    },
    object::{AuthorizationPolicy, Metadata, ObjectName},
};

/// Conditions on the token of a request, of which waypoints verify none.
const TOKEN_KEYS: &str = "request.auth.";
/// Condition on the name that a client asks for in TLS, which waypoints pass on unread.
const SERVER_NAME_KEY: &str = "connection.sni";

/// Notes who enforces a policy, and what is wrong with it there.
pub(super) fn note(context: &mut Context<'_>, policy: &AuthorizationPolicy) {
    let mut targets = policy.spec.targets().peekable();
    if targets.peek().is_none() {
        return;
    }
    for target in targets {
        note_target(context, &policy.metadata, target);
    }
    if let (AuthorizationAction::Custom, Some(provider)) =
        (policy.spec.action, &policy.spec.provider)
    {
        context.warn(Warning::Attached(Flaw::NoProvider(provider.name.clone())));
    }
    let fields = |of_rule: fn(&AuthorizationRule) -> Vec<String>| -> Vec<String> {
        let rules = policy.spec.rules.iter().enumerate();
        rules
            .flat_map(|(i, rule)| of_rule(rule).into_iter().map(move |f| format!("rules[{i}].{f}")))
            .collect()
    };
    for (fields, flaw) in [
        (fields(unreadable), Flaw::Unreadable as fn(_) -> _),
        (fields(never_known), Flaw::NeverKnown),
    ] {
        if !fields.is_empty() {
            context.warn(Warning::Attached(flaw(fields)));
        }
    }
}

fn note_target(context: &mut Context<'_>, policy: &Metadata, target: &TargetReference) {
    let name = ObjectName::new(policy.namespace().clone(), target.name.as_str());
    let shown = format!("{} {name}", target.kind);
    match target.kind.as_str() {
        "GatewayClass" if target.name == WAYPOINT_CLASS => {
            let root = &context.settings.root_namespace;
            if policy.namespace() == root {
                let is_required = context.options.require_waypoints;
                let name = "every waypoint".to_owned();
                context.enforced_at.push(Enforcer { name, is_required });
            } else {
                let class = format!("GatewayClass {} outside of namespace {root}", target.name);
                context.warn(Warning::Attached(Flaw::TargetMissing(class)));
            }
        }
        "Gateway" => {
            context.depends_on.gateways.insert(name.clone());
            match context.store.gateway(&name) {
                None => context.warn(Warning::Attached(Flaw::TargetMissing(shown))),
                Some(gateway) if waypoint::is_waypoint(gateway) => {
                    let is_required = waypoint::is_demanding(context, gateway);
                    let name = format!("waypoint {name}");
                    context.enforced_at.push(Enforcer { name, is_required });
                }
                // Whoever serves it enforces it.
                Some(_) => {}
            }
        }
        "Service" => {
            context.depends_on.hosts.insert(context.store.host_of(&name).into());
            let service = context.store.service(&name).map(|service| &service.metadata);
            note_service(context, service, shown);
        }
        "ServiceEntry" => {
            let entry = context.store.service_entry(&name);
            let hosts = entry.iter().flat_map(|entry| &entry.spec.hosts);
            context.depends_on.hosts.extend(hosts.map(|host| host.as_str().into()));
            note_service(context, entry.map(|entry| &entry.metadata), shown);
        }
        // Another class is for others, and other kinds are refused when they are read.
        _ => {}
    }
}

fn note_service(context: &mut Context<'_>, service: Option<&Metadata>, shown: String) {
    let Some(service) = service else {
        return context.warn(Warning::Attached(Flaw::TargetMissing(shown)));
    };
    match waypoint::name_for(context, service) {
        Some(waypoint) => {
            let gateway = context.store.gateway(&waypoint);
            let is_required =
                gateway.is_some_and(|gateway| waypoint::is_demanding(context, gateway));
            let name = format!("waypoint {waypoint} for {shown}");
            context.enforced_at.push(Enforcer { name, is_required });
        }
        None => context.warn(Warning::Attached(Flaw::TargetUnbound(shown))),
    }
}

/// Returns the fields that are about what waypoints never know of a request.
fn never_known(rule: &AuthorizationRule) -> Vec<String> {
    let sources = rule.from.iter().enumerate();
    let of_sources = sources.flat_map(|(i, from)| {
        let fields = from.source.as_ref().map_or_else(Vec::new, token_fields);
        fields.into_iter().map(move |field| format!("from[{i}].source.{field}"))
    });
    let is_never_known = |condition: &Condition| {
        condition.key.starts_with(TOKEN_KEYS) || condition.key == SERVER_NAME_KEY
    };
    of_sources.chain(conditions(rule, is_never_known)).collect()
}

fn token_fields(source: &Source) -> Vec<&'static str> {
    let fields = [
        ("requestPrincipals", &source.request_principals),
        ("notRequestPrincipals", &source.not_request_principals),
    ];
    fields.into_iter().filter(|(_, values)| !values.is_empty()).map(|(field, _)| field).collect()
}

/// Returns the fields that waypoints cannot read.
fn unreadable(rule: &AuthorizationRule) -> Vec<String> {
    let operations = rule.to.iter().enumerate();
    let of_operations = operations.flat_map(|(i, to)| {
        let operation = to.operation.iter();
        let lists = operation.flat_map(|operation| {
            [("paths", &operation.paths), ("notPaths", &operation.not_paths)]
        });
        lists.flat_map(move |(field, paths)| {
            let broken = paths.iter().enumerate().filter(|(_, path)| !is_path(path));
            broken.map(move |(j, _)| format!("to[{i}].operation.{field}[{j}]"))
        })
    });
    of_operations.chain(conditions(rule, |condition| !is_key(&condition.key))).collect()
}

fn conditions(
    rule: &AuthorizationRule,
    mut is_meant: impl FnMut(&Condition) -> bool,
) -> Vec<String> {
    let meant = rule.when.iter().enumerate().filter(|(_, condition)| is_meant(condition));
    meant.map(|(i, condition)| format!("when[{i}].key ({})", condition.key)).collect()
}

/// Returns whether a path is a text, or a template: `{*}` stands for a path element, and `{**}`, after
/// which nothing varies, for any number of them.
fn is_path(path: &str) -> bool {
    if !path.contains(['{', '}']) {
        return true;
    }
    let Some(elements) = path.strip_prefix('/') else { return false };
    let mut ended = false;
    elements.split('/').all(|element| match element {
        "{*}" => !ended,
        "{**}" => !std::mem::replace(&mut ended, true),
        literal => !literal.contains(['*', '{', '}']),
    })
}

/// Returns whether the key of a condition, which begins as known ones do, is complete.
fn is_key(key: &str) -> bool {
    let in_brackets = |base| {
        let inner = key.strip_prefix(base)?.strip_prefix('[')?.strip_suffix(']')?;
        let names: Vec<&str> = inner.split("][").collect();
        let plain = |name: &&str| !name.is_empty() && !name.contains(['[', ']']);
        names.iter().all(plain).then_some(names)
    };
    if key.starts_with("request.headers") {
        return match in_brackets("request.headers").as_deref() {
            Some([":authority" | ":method"]) => true,
            Some([name]) => name.parse::<HeaderName>().is_ok(),
            Some(_) | None => false,
        };
    }
    if key.starts_with("request.auth.claims") {
        return in_brackets("request.auth.claims").is_some();
    }
    !key.starts_with("experimental.")
}
