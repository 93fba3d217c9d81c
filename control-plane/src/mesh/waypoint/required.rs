//! Workloads that take connections from their waypoints only.
//!
//! A node proxy cannot know that a connection should have passed a waypoint: what is sent to a pod's
//! address has none. A policy says so, which denies everybody but the waypoint; node proxies know it
//! by its name and say what is the matter.

use std::{collections::BTreeSet, sync::Arc};

use mesh_api::{
    identity::DEFAULT_TRUST_DOMAIN,
    policy::WAYPOINT_DEMAND_PREFIX,
    proto::security::{
        Action, Authorization, Clause, Match, Rule, Scope, StringMatch, string_match::MatchType,
    },
    proto::workload::Workload,
};

use super::{Traffic, admits, is_of_gateway, is_waypoint, made, named, serves};
use crate::{
    mesh::{context::Context, names, store::account_name},
    object::{Gateway, Labels, Metadata, Object, ObjectName, Pod},
    resource::Resource,
};

/// Returns the policy of a waypoint that has to be passed.
pub(in crate::mesh) fn policy_of(context: &Context<'_>, gateway: &Gateway) -> Option<Resource> {
    let name = &gateway.metadata.name;
    is_demanding(context, gateway).then(|| policy(context, &policy_key(name), [name]))
}

/// Has a pod, as which `workload` is known so far, refuse what comes past its waypoints, or those of
/// its services, as far as these have to be passed.
pub(in crate::mesh) fn require(context: &mut Context<'_>, workload: &mut Workload, pod: &Pod) {
    let metadata = &pod.metadata;
    if is_of_gateway(context, metadata) {
        return;
    }
    let (namespace, account) = (metadata.namespace(), account_name(pod));
    let of_pod = demanded(context, namespace, &metadata.labels, Some(&account), Traffic::Workload);
    let mut waypoints: BTreeSet<_> = of_pod.into_iter().collect();
    for service in services(context, workload) {
        let (namespace, labels) = (service.namespace(), &service.labels);
        waypoints.extend(demanded(context, namespace, labels, None, Traffic::Service));
    }
    let waypoints: Vec<_> = waypoints.iter().collect();
    let key = match waypoints[..] {
        [] => return,
        [waypoint] => policy_key(waypoint),
        // Two policies would let neither of the waypoints pass: the pod has one that names them all.
        [..] => {
            let name = workload.uid.replace('/', "_");
            let key = policy_key(&ObjectName::new(namespace.clone(), name));
            let own = policy(context, &key, waypoints);
            context.further.push(own);
            key
        }
    };
    workload.authorization_policies.push(key.to_string());
}

/// Returns a policy that denies everybody but waypoints.
fn policy<'a>(
    context: &Context<'_>,
    key: &ObjectName,
    waypoints: impl IntoIterator<Item = &'a ObjectName>,
) -> Resource {
    let trust_domain = match context.settings.trust_domain.as_str() {
        "" => DEFAULT_TRUST_DOMAIN,
        other => other,
    };
    let principal = |waypoint: &ObjectName| {
        let ObjectName { namespace, name: account } = runs_as(context, waypoint);
        let principal = format!("{trust_domain}/ns/{namespace}/sa/{account}");
        StringMatch { match_type: Some(MatchType::Exact(principal)) }
    };
    let not_principals = waypoints.into_iter().map(principal).collect();
    let others = Match { not_principals, ..Match::default() };
    Resource::authorization(&Authorization {
        name: key.name.to_string(),
        namespace: key.namespace.to_string(),
        scope: Scope::WorkloadSelector.into(),
        action: Action::Deny.into(),
        rules: vec![Rule { clauses: vec![Clause { matches: vec![others] }] }],
        ..Authorization::default()
    })
}

/// Returns the service account of a waypoint, as its gateway declares it. What its pods run as does
/// not count: whoever may create pods may give one the labels of a waypoint.
pub(in crate::mesh) fn runs_as(context: &Context<'_>, waypoint: &ObjectName) -> ObjectName {
    let ObjectName { namespace, name } = waypoint;
    let gateway = context.store.gateway(waypoint);
    let annotation = |name: &str| gateway.and_then(|gateway| gateway.metadata.annotation(name));
    ObjectName::new(namespace.clone(), made::account_name(name, annotation))
}

/// Returns the waypoint of an object if it has to be passed.
fn demanded(
    context: &mut Context<'_>,
    namespace: &Arc<str>,
    labels: &Labels,
    account: Option<&ObjectName>,
    traffic: Traffic,
) -> Option<ObjectName> {
    let reference = named(context, namespace, labels, account)?;
    context.depends_on.gateways.insert(reference.name.clone());
    let gateway = context.store.gateway(&reference.name)?;
    let binds = is_demanding(context, gateway)
        && serves(gateway, traffic, reference.by_gateway)
        && admits(context, gateway, namespace);
    binds.then_some(reference.name)
}

/// Returns whether what is for a waypoint has to pass it.
pub(in crate::mesh) fn is_demanding(context: &Context<'_>, gateway: &Gateway) -> bool {
    let demand = match gateway.metadata.annotation(names::REQUIRE_WAYPOINT) {
        Some("true") => true,
        Some("false") => false,
        Some(_) | None => context.options.require_waypoints,
    };
    is_waypoint(gateway) && demand
}

/// Returns the services that a workload is an endpoint of.
fn services<'a>(context: &Context<'a>, workload: &Workload) -> Vec<&'a Metadata> {
    let store = context.store;
    let keys = workload.services.keys().filter_map(|key| key.split_once('/'));
    let declared = keys.flat_map(|(namespace, host)| {
        store.hosts.get(host).filter(move |key| *key.name.namespace == *namespace)
    });
    declared.filter_map(|key| store.get(key)).map(Object::metadata).collect()
}

fn policy_key(of: &ObjectName) -> ObjectName {
    let name = format!("{WAYPOINT_DEMAND_PREFIX}{}", of.name);
    ObjectName::new(of.namespace.clone(), name)
}

#[cfg(test)]
mod tests;
