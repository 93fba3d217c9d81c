//! Peer authentications: policies that refuse plaintext.
//!
//! The oldest object of a level is in force; narrower levels win over wider ones.

use std::sync::Arc;

use mesh_api::{
    policy::MtlsMode,
    proto::security::{
        Action, Authorization, Clause, Match, Rule, Scope, StringMatch, string_match::MatchType,
    },
};

use crate::{
    mesh::{context::Context, warning::Warning},
    object::{Labels, Object, ObjectKey, PeerAuthentication},
    resource::Resource,
};

const STRICT_POLICY: &str = "istio_converted_static_strict";
const CONVERTED_PREFIX: &str = "converted_peer_authentication_";

/// Returns the policy that refuses all plaintext, for workloads to name, if any object may need it.
pub(in crate::mesh) fn strict_policy(context: &Context<'_>) -> Option<Resource> {
    let exists = !context.store.peer_authentications.is_empty();
    let rule = Rule { clauses: vec![clause(unauthenticated())] };
    let namespace = &context.settings.root_namespace;
    exists.then(|| deny(namespace, STRICT_POLICY.to_owned(), vec![rule]))
}

/// Returns the policy for an object whose ports differ from the mode of the others.
pub(in crate::mesh) fn of_peer_authentication(
    context: &mut Context<'_>,
    object: &PeerAuthentication,
) -> Option<Resource> {
    let namespace = object.metadata.namespace();
    if !has_selector(object) {
        warn_of_older(context, object);
        return None;
    }
    if *namespace == context.settings.root_namespace {
        context.warn(Warning::SelectorInRootNamespace);
        return None;
    }
    let rules = rules(object, is_strict_by(context, object));
    (!rules.is_empty()).then(|| deny(namespace, converted_name(object), rules))
}

/// Returns the key of the policy that a workload has to name, if it refuses any plaintext.
pub(super) fn key_for(
    context: &Context<'_>,
    namespace: &Arc<str>,
    labels: &Labels,
) -> Option<String> {
    let strict_key = || format!("{}/{STRICT_POLICY}", context.settings.root_namespace);
    let Some(object) = in_force_for(context, namespace, labels) else {
        return is_strict(context, namespace).then(strict_key);
    };
    let strict = is_strict_by(context, object);
    if rules(object, strict).is_empty() {
        return strict.then(strict_key);
    }
    Some(format!("{namespace}/{}", converted_name(object)))
}

fn has_selector(object: &PeerAuthentication) -> bool {
    object.spec.selector.as_ref().is_some_and(|selector| !selector.match_labels.is_empty())
}

fn converted_name(object: &PeerAuthentication) -> String {
    format!("{CONVERTED_PREFIX}{}", object.metadata.name.name)
}

fn warn_of_older(context: &mut Context<'_>, object: &PeerAuthentication) {
    let in_force = in_force(context, object.metadata.namespace());
    let older = in_force.filter(|winner| winner.metadata.name != object.metadata.name);
    if let Some(older) = older {
        context.warn(Warning::OlderInForce(older.metadata.name.clone()));
    }
}

/// Returns the object in force for a namespace, or in the root namespace for the mesh.
fn in_force<'a>(context: &Context<'a>, namespace: &Arc<str>) -> Option<&'a PeerAuthentication> {
    let objects = context.store.peer_authentications.get(namespace);
    oldest(context, objects, |object| !has_selector(object))
}

/// Returns the object in force for a workload, of those that select it.
fn in_force_for<'a>(
    context: &Context<'a>,
    namespace: &Arc<str>,
    labels: &'a Labels,
) -> Option<&'a PeerAuthentication> {
    if *namespace == context.settings.root_namespace {
        return None;
    }
    oldest(context, context.store.policy_selectors.selecting(namespace, labels), |_| true)
}

fn oldest<'a>(
    context: &Context<'a>,
    keys: impl Iterator<Item = &'a ObjectKey>,
    counts: impl Fn(&PeerAuthentication) -> bool,
) -> Option<&'a PeerAuthentication> {
    let objects = keys.filter_map(|key| context.store.get(key)).filter_map(|object| {
        let Object::PeerAuthentication(object) = object else { return None };
        Some(&**object)
    });
    objects
        .filter(|object| counts(object))
        .min_by_key(|object| (object.metadata.created.as_deref(), &object.metadata.name))
}

/// Returns whether a mode refuses plaintext; none when the next wider level says.
fn refuses(mode: MtlsMode) -> Option<bool> {
    match mode {
        MtlsMode::Unset => None,
        MtlsMode::Disable | MtlsMode::Permissive => Some(false),
        MtlsMode::Strict => Some(true),
    }
}

/// Returns whether workloads of a namespace without an object of their own refuse plaintext.
fn is_strict(context: &Context<'_>, namespace: &Arc<str>) -> bool {
    let mode = |namespace| refuses(in_force(context, namespace)?.spec.mtls.mode);
    mode(namespace).or_else(|| mode(&context.settings.root_namespace)).unwrap_or(false)
}

/// Returns whether workloads that `object` selects refuse plaintext at ports that it does not list.
fn is_strict_by(context: &Context<'_>, object: &PeerAuthentication) -> bool {
    let own = refuses(object.spec.mtls.mode);
    own.unwrap_or_else(|| is_strict(context, object.metadata.namespace()))
}

/// Returns the rules for ports that differ from the others.
fn rules(object: &PeerAuthentication, strict: bool) -> Vec<Rule> {
    let ports = object.spec.port_level_mtls.iter();
    let differing: Vec<u32> = ports
        .filter(|(_, demand)| refuses(demand.mode).is_some_and(|port| port != strict))
        .map(|(port, _)| *port)
        .collect();
    if !strict {
        let at = |port| Match { destination_ports: vec![port], ..unauthenticated() };
        return differing
            .into_iter()
            .map(|port| Rule { clauses: vec![clause(at(port))] })
            .collect();
    }
    if differing.is_empty() {
        return Vec::new();
    }
    let not_at = |port| Match { not_destination_ports: vec![port], ..Match::default() };
    let exempt = differing.into_iter().map(|port| clause(not_at(port)));
    vec![Rule { clauses: std::iter::once(clause(unauthenticated())).chain(exempt).collect() }]
}

/// Matches peers without an identity.
fn unauthenticated() -> Match {
    let present = StringMatch { match_type: Some(MatchType::Presence(())) };
    Match { not_principals: vec![present], ..Match::default() }
}

fn clause(condition: Match) -> Clause {
    Clause { matches: vec![condition] }
}

fn deny(namespace: &str, name: String, rules: Vec<Rule>) -> Resource {
    Resource::authorization(&Authorization {
        name,
        namespace: namespace.to_owned(),
        scope: Scope::WorkloadSelector.into(),
        action: Action::Deny.into(),
        rules,
        ..Authorization::default()
    })
}
