//! Waypoints that are provided where routes need one and nobody has declared one.
//!
//! Documents that were written for sidecars route the requests of a namespace's services and know of
//! no waypoint. Where a namespace opts in as it does for sidecars, one is provided while it has such
//! documents. Whoever declares a waypoint, or names one, decides by himself.

use std::sync::Arc;

use mesh_api::{
    enrolment::{EXCLUDED_NAMESPACES, INJECTION_LABEL},
    proto::workload::{GatewayAddress, NetworkAddress, gateway_address::Destination},
};

use super::{
    context::Context,
    l7::is_for_mesh,
    names::{GATEWAY_NAME, USE_WAYPOINT},
    store::{Store, covering, parent_key, parents_of},
    waypoint,
    wire::octets,
};
use crate::object::{Gateway, Labels, Object, ObjectKey, ObjectName, Pod};

/// Name of waypoints that are provided, in each namespace.
pub const PROVIDED: &str = "auto-waypoint";

/// Label of gateways that are provided, with the value `true`.
pub const PROVIDED_LABEL: &str = "fairlead.io/automatic";

/// What is to be done about waypoints that are provided, in a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Provision {
    /// Gateways that are needed and do not exist.
    pub missing: Vec<ObjectName>,
    /// Those that exist and are not needed.
    pub surplus: Vec<ObjectName>,
}

/// Returns the name of the waypoint that is provided for a namespace.
pub(super) fn name(namespace: &Arc<str>) -> ObjectName {
    ObjectName::new(namespace.clone(), PROVIDED)
}

/// Returns what is to be done about waypoints that are provided.
pub(super) fn provision(store: &Store) -> Provision {
    let needed = store.needing.iter().map(name);
    let provided = store.waypoints.keys().flat_map(|namespace| store.waypoints.get(namespace));
    let provided = provided.filter(|name| {
        store
            .gateway(name)
            .is_some_and(|gateway| is_provided(gateway) && !gateway.metadata.deleting)
    });
    let mut surplus: Vec<_> =
        provided.filter(|name| !store.needing.contains(&name.namespace)).cloned().collect();
    surplus.sort_unstable();
    Provision { missing: needed.filter(|name| store.gateway(name).is_none()).collect(), surplus }
}

/// Returns whether a namespace needs a waypoint that nobody has declared.
pub(super) fn is_needed(store: &Store, namespace: &Arc<str>) -> bool {
    let mut declared = store.waypoints.get(namespace).filter_map(|name| store.gateway(name));
    opts_in(store, namespace)
        && !declared.any(|gateway| waypoint::serves_services(gateway) && !is_provided(gateway))
        && store.routing.get(namespace).any(|key| is_felt(store, key))
}

/// Returns the waypoint that is provided for an object, which is a service; `key` of it.
pub(super) fn of_service(
    context: &mut Context<'_>,
    namespace: &Arc<str>,
    labels: &Labels,
) -> Option<GatewayAddress> {
    let is_own = labels.get(USE_WAYPOINT).is_some();
    if is_own || !context.options.automatic_waypoints || !opts_in(context.store, namespace) {
        return None;
    }
    let name = name(namespace);
    context.depends_on.gateways.insert(name.clone());
    let gateway = context.store.gateway(&name).filter(|gateway| is_provided(gateway));
    // While its pods start traffic passes as it did before.
    let address = match gateway {
        Some(gateway) if gateway.metadata.deleting => return None,
        Some(gateway) => waypoint::address(context, gateway),
        None => Some(started_by_hand(context, &name)?),
    };
    context.waypoints.push(name.clone());
    if address.is_some() {
        context.bind(name);
    }
    address
}

/// Returns where the waypoint is that somebody has started where nothing is deployed.
fn started_by_hand(context: &Context<'_>, name: &ObjectName) -> Option<GatewayAddress> {
    if !context.is_declared() || !context.store.needing.contains(&name.namespace) {
        return None;
    }
    let labels: Labels = [(GATEWAY_NAME, PROVIDED)].into_iter().collect();
    let candidates = context.store.workloads.candidates(&name.namespace, &labels);
    let pods = candidates.filter_map(|key| context.store.pod(&key.name));
    let is_running = |pod: &&Arc<Pod>| {
        pod.metadata.labels.contains(&labels) && !pod.has_ended() && pod.ready != Some(false)
    };
    let pod = pods.filter(is_running).min_by_key(|pod| &pod.metadata.name)?;
    let address = octets(*pod.addresses.first()?);
    let network = context.options.network.to_string();
    let address = NetworkAddress { network, address, length: None };
    Some(waypoint::at(Destination::Address(address)))
}

fn is_provided(gateway: &Gateway) -> bool {
    gateway.metadata.label(PROVIDED_LABEL) == Some("true")
        && *gateway.metadata.name.name == *PROVIDED
}

/// Returns whether a namespace opts in, and names no waypoint.
fn opts_in(store: &Store, namespace: &Arc<str>) -> bool {
    store.namespace(namespace).is_some_and(|object| {
        object.metadata.label(INJECTION_LABEL) == Some("enabled")
            && object.metadata.label(USE_WAYPOINT).is_none()
            && !object.metadata.deleting
            && !EXCLUDED_NAMESPACES.contains(&&**namespace)
    })
}

/// Returns whether a service of its namespace is one that an object is about.
fn is_felt(store: &Store, key: &ObjectKey) -> bool {
    let namespace = &key.name.namespace;
    match store.get(key) {
        Some(Object::VirtualService(service)) => {
            let mut hosts = service.spec.hosts.iter();
            is_for_mesh(&service.spec.gateways)
                && hosts.any(|host| is_of_service(store, namespace, host))
        }
        Some(Object::DestinationRule(rule)) => is_of_service(store, namespace, &rule.spec.host),
        Some(
            route @ (Object::HttpRoute(_)
            | Object::GrpcRoute(_)
            | Object::TlsRoute(_)
            | Object::TcpRoute(_)),
        ) => parents_of(route)
            .iter()
            .filter_map(|parent| parent_key(namespace, parent))
            .any(|key| is_bound(store, namespace, &key)),
        Some(
            Object::MeshConfig(_)
            | Object::Namespace(_)
            | Object::Node(_)
            | Object::ServiceAccount(_)
            | Object::Secret(_)
            | Object::Gateway(_)
            | Object::Service(_)
            | Object::ServiceEntry(_)
            | Object::EndpointSlice(_)
            | Object::WorkloadEntry(_)
            | Object::AuthorizationPolicy(_)
            | Object::PeerAuthentication(_)
            | Object::ReferenceGrant(_)
            | Object::Pod(_),
        )
        | None => false,
    }
}

/// Returns whether a host, which may have a wildcard, stands for a service of a namespace.
fn is_of_service(store: &Store, namespace: &Arc<str>, host: &str) -> bool {
    let host = store.expanded(namespace, host);
    if !host.starts_with('*') {
        return store.hosts.get(&host).any(|key| is_bound(store, namespace, key));
    }
    let of_namespace = store.services.get(namespace).filter(|key| is_bound(store, namespace, key));
    let mut hosts = of_namespace.flat_map(|key| store.hosts_of(key));
    hosts.any(|other| *host == *"*" || covering(&other).any(|covering| covering == host))
}

/// Returns whether something is a service of a namespace that a provided waypoint is for.
fn is_bound(store: &Store, namespace: &Arc<str>, key: &ObjectKey) -> bool {
    let object = store.get(key).filter(|_| key.name.namespace == *namespace);
    object.is_some_and(|object| object.metadata().label(USE_WAYPOINT).is_none())
}

#[cfg(test)]
mod tests;
