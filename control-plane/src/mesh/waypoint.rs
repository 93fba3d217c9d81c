//! Binds services and workloads to waypoints.

pub(crate) mod made;
mod required;

use std::sync::Arc;

use mesh_api::{
    crd::RouteOrigin,
    proto::workload::{
        ApplicationTunnel, GatewayAddress, NamespacedHostname, NetworkAddress, WeightedWaypoint,
        application_tunnel::Protocol, gateway_address::Destination,
    },
};

pub(super) use self::required::{is_demanding, policy_of, require, runs_as};
use super::{
    automatic, context::Context, names, options::AbsentWaypoint, warning::Warning, wire::octets,
};
use crate::object::{Gateway, Labels, Metadata, ObjectName};

/// Class of gateways that are waypoints.
pub const WAYPOINT_CLASS: &str = "istio-waypoint";
/// Protocol of the listener that a waypoint is reached by.
const HBONE_PROTOCOL: &str = "HBONE";
/// Port of that listener.
const HBONE_PORT: u32 = 15008;
/// Value of a label that binds to nothing.
const NONE: &str = "none";
/// Values of the label of what controllers made for gateways that have no waypoint themselves.
const UNBOUND_CONTROLLERS: [&str; 2] = ["istio.io-mesh-controller", "istio.io-eastwest-controller"];
/// Domain in which no name is ever found (RFC 6761), for a waypoint that may not be used.
const FORBIDDEN_DOMAIN: &str = "forbidden.invalid";
/// Sum of the shares of a waypoint and of its canary.
const FULL_WEIGHT: u32 = 100;

/// What is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Traffic {
    /// Traffic to a service's address.
    Service,
    /// Traffic to a workload's address.
    Workload,
}

/// A waypoint as named by somebody.
struct Reference {
    name: ObjectName,
    /// Whether the object itself names it, rather than its namespace.
    own: bool,
    /// Whether the gateway itself names the object's service account.
    by_gateway: bool,
}

// === impl Traffic ===

impl Traffic {
    /// Notes why something is not bound as it asks for.
    fn refuse(self, context: &mut Context<'_>, warning: Warning) {
        match self {
            Self::Service => context.refuse(warning),
            Self::Workload => context.warn(warning),
        }
    }
}

/// Returns the waypoint of a service.
pub(super) fn of_service(context: &mut Context<'_>, metadata: &Metadata) -> Option<GatewayAddress> {
    if is_of_gateway(context, metadata) || is_of_waypoint(context, &metadata.name) {
        return None;
    }
    let namespace = metadata.namespace();
    match named(context, namespace, &metadata.labels, None) {
        Some(reference) => resolve(context, namespace, reference, Traffic::Service),
        None => automatic::of_service(context, namespace, &metadata.labels),
    }
}

/// Returns the waypoint of a service, be it ready or not, for another object: nothing is said of that
/// which is to be said of the service.
pub(super) fn name_for(context: &mut Context<'_>, metadata: &Metadata) -> Option<ObjectName> {
    let mut service = Context::new(context.store, context.options, context.settings);
    // What is asked for is the name, which it notes.
    let _address = of_service(&mut service, metadata);
    context.depends_on.gateways.extend(service.depends_on.gateways);
    service.waypoints.into_iter().next()
}

/// Returns whether a waypoint is there for services, be they named or not.
pub(super) fn serves_services(gateway: &Gateway) -> bool {
    let by_account = gateway.metadata.annotation(names::FOR_SERVICE_ACCOUNT).is_some();
    !gateway.metadata.deleting && serves(gateway, Traffic::Service, by_account)
}

/// Returns the address of a waypoint that is there.
pub(super) fn at(destination: Destination) -> GatewayAddress {
    GatewayAddress { destination: Some(destination), hbone_mtls_port: HBONE_PORT }
}

/// Returns the waypoint of a workload, which may run as `account`.
pub(super) fn of_workload(
    context: &mut Context<'_>,
    namespace: &Arc<str>,
    labels: &Labels,
    account: Option<&ObjectName>,
) -> Option<GatewayAddress> {
    let reference = named(context, namespace, labels, account)?;
    resolve(context, namespace, reference, Traffic::Workload)
}

/// Returns the waypoint of a pod; pods of gateways have none.
pub(super) fn of_pod(
    context: &mut Context<'_>,
    metadata: &Metadata,
    account: &ObjectName,
) -> Option<GatewayAddress> {
    if is_of_gateway(context, metadata) {
        return None;
    }
    of_workload(context, metadata.namespace(), &metadata.labels, Some(account))
}

/// Returns how a pod of a waypoint is handed connections, if its gateway says so.
pub(super) fn application_tunnel(
    context: &mut Context<'_>,
    metadata: &Metadata,
) -> Option<ApplicationTunnel> {
    let gateway = gateway_of(context, metadata)?;
    let (protocol, port) = match gateway.metadata.annotation(names::INBOUND_BINDING)? {
        binding if binding.contains('/') => binding.split_once('/')?,
        binding => (binding, "0"),
    };
    let protocol = match protocol {
        "PROXY" => Protocol::Proxy,
        "NONE" => Protocol::None,
        _ => return None,
    };
    Some(ApplicationTunnel { protocol: protocol.into(), port: port.parse::<u16>().ok()?.into() })
}

/// Returns whether ingress gateways pass the waypoint of a service, too.
pub(super) fn ingress_uses(context: &Context<'_>, metadata: &Metadata) -> bool {
    let own = metadata.label(names::INGRESS_USE_WAYPOINT);
    let inherited = || context.namespace_label(metadata.namespace(), names::INGRESS_USE_WAYPOINT);
    own.or_else(inherited) == Some("true")
}

/// Returns the shares of a service's waypoint and of its canary.
pub(super) fn weighted(
    context: &mut Context<'_>,
    metadata: &Metadata,
    primary: &GatewayAddress,
) -> Vec<WeightedWaypoint> {
    let Some(name) = metadata.label(names::USE_CANARY) else { return Vec::new() };
    let namespace = metadata.label(names::USE_CANARY_NAMESPACE);
    let namespace = namespace.unwrap_or(metadata.namespace());
    let weight = metadata.annotation(names::CANARY_WEIGHT).unwrap_or_default().parse();
    let Some(weight) = weight.ok().filter(|weight: &u32| *weight <= FULL_WEIGHT) else {
        context.refuse(Warning::InvalidCanaryWeight);
        return Vec::new();
    };
    let name = ObjectName::new(namespace, name);
    let reference = Reference { name, own: true, by_gateway: false };
    let canary = resolve(context, metadata.namespace(), reference, Traffic::Service);
    match canary {
        Some(canary) if canary == *primary => {
            context.refuse(Warning::CanaryIsWaypoint);
            Vec::new()
        }
        Some(canary) => [(primary.clone(), FULL_WEIGHT - weight), (canary, weight)]
            .map(|(waypoint, weight)| WeightedWaypoint { destination: Some(waypoint), weight })
            .into(),
        None => Vec::new(),
    }
}

/// Returns who is named: by the object, its service account, a gateway, or the namespace.
fn named(
    context: &mut Context<'_>,
    namespace: &Arc<str>,
    labels: &Labels,
    account: Option<&ObjectName>,
) -> Option<Reference> {
    if let Some(name) = labels.get(names::USE_WAYPOINT) {
        return reference(namespace, name, labels.get(names::USE_WAYPOINT_NAMESPACE), true);
    }
    if let Some(account) = account {
        let object = context.store.service_account(account).map(|object| &object.metadata);
        if let Some(name) = object.and_then(|metadata| metadata.label(names::USE_WAYPOINT)) {
            let other = object.and_then(|m| m.label(names::USE_WAYPOINT_NAMESPACE));
            return reference(namespace, name, other, true);
        }
        if let Some(name) = context.store.gateways_of_account.get(account).min().cloned() {
            return Some(Reference { name, own: true, by_gateway: true });
        }
    }
    let name = context.namespace_label(namespace, names::USE_WAYPOINT)?;
    let other = context.namespace_label(namespace, names::USE_WAYPOINT_NAMESPACE);
    reference(namespace, name, other, false)
}

fn reference(
    namespace: &Arc<str>,
    name: &str,
    other_namespace: Option<&str>,
    own: bool,
) -> Option<Reference> {
    let namespace = other_namespace.map_or_else(|| namespace.clone(), Into::into);
    let name = ObjectName::new(namespace, name);
    (*name.name != *NONE).then_some(Reference { name, own, by_gateway: false })
}

/// Returns the address of a waypoint that is named by an object of the namespace `user`.
fn resolve(
    context: &mut Context<'_>,
    user: &Arc<str>,
    reference: Reference,
    traffic: Traffic,
) -> Option<GatewayAddress> {
    let Reference { name, own, by_gateway } = reference;
    context.depends_on.gateways.insert(name.clone());
    let Some(gateway) = context.store.gateway(&name).filter(|gateway| is_waypoint(gateway)) else {
        // A waypoint is for services unless it says otherwise, and this one cannot.
        let binds = own || traffic == Traffic::Service;
        if binds {
            traffic.refuse(context, Warning::WaypointMissing(name.clone()));
        }
        return absent(context, &name).filter(|_| binds);
    };
    if !serves(gateway, traffic, by_gateway) {
        if own {
            traffic.refuse(context, Warning::WaypointUnsuited(name));
        }
        return None;
    }
    if !admits(context, gateway, user) {
        traffic.refuse(context, Warning::WaypointForbidden(name.clone()));
        return forbidden(context, &name);
    }
    if traffic == Traffic::Service && !context.waypoints.contains(&name) {
        context.waypoints.push(name.clone());
    }
    let address = address(context, gateway);
    if address.is_some() {
        if traffic == Traffic::Service {
            context.bind(name);
        }
        return address;
    }
    traffic.refuse(context, Warning::WaypointNotReady(name.clone()));
    absent(context, &name)
}

/// Returns the address under which a waypoint would be found once it is there.
fn absent(context: &Context<'_>, name: &ObjectName) -> Option<GatewayAddress> {
    match context.options.absent_waypoint {
        AbsentWaypoint::Bypass => None,
        AbsentWaypoint::Refuse => Some(by_host(name, host(context, name))),
    }
}

/// Returns the host name of the service of a waypoint, which may not be there.
fn host(context: &Context<'_>, name: &ObjectName) -> String {
    let gateway = context.store.gateway(name);
    context.store.host_of(&gateway.map_or_else(|| name.clone(), |gateway| service_of(gateway)))
}

/// Returns an address under which nothing is ever found.
fn forbidden(context: &Context<'_>, name: &ObjectName) -> Option<GatewayAddress> {
    let ObjectName { namespace, name: gateway } = name;
    let host = format!("{gateway}.{namespace}.{FORBIDDEN_DOMAIN}");
    match context.options.absent_waypoint {
        AbsentWaypoint::Bypass => None,
        AbsentWaypoint::Refuse => Some(by_host(name, host)),
    }
}

fn by_host(name: &ObjectName, hostname: String) -> GatewayAddress {
    let host = NamespacedHostname { namespace: name.namespace.to_string(), hostname };
    at(Destination::Hostname(host))
}

/// Returns whether a gateway is a waypoint.
pub(super) fn is_waypoint(gateway: &Gateway) -> bool {
    gateway.spec.gateway_class_name == WAYPOINT_CLASS
}

/// Returns whether a waypoint is for this traffic.
fn serves(gateway: &Gateway, traffic: Traffic, by_gateway: bool) -> bool {
    // One for a service account is for the workloads that run as it.
    let default = if by_gateway { "workload" } else { "service" };
    match gateway.metadata.label(names::WAYPOINT_FOR).unwrap_or(default) {
        "all" => true,
        "workload" => traffic == Traffic::Workload,
        NONE => false,
        _ => traffic == Traffic::Service,
    }
}

/// Returns whether objects of the namespace `user` may use a waypoint.
fn admits(context: &Context<'_>, gateway: &Gateway, user: &Arc<str>) -> bool {
    if gateway.metadata.namespace() == user {
        return true;
    }
    let listeners = gateway.spec.listeners.iter();
    listeners.filter(|listener| listener.protocol == HBONE_PROTOCOL).any(|listener| {
        let namespaces = &listener.allowed_routes.namespaces;
        match namespaces.from {
            RouteOrigin::All => true,
            RouteOrigin::Same | RouteOrigin::None => false,
            RouteOrigin::Selector => namespaces.selector.as_ref().is_some_and(|selector| {
                let labels = context.store.namespace(user).map(|n| &n.metadata.labels);
                selector.selects(|name| labels.and_then(|labels| labels.get(name)))
            }),
        }
    })
}

/// Returns where a waypoint is reached: by its host name, otherwise by its address.
pub(super) fn address(context: &Context<'_>, gateway: &Gateway) -> Option<GatewayAddress> {
    let name = &gateway.metadata.name;
    let addresses = &gateway.status.addresses;
    let is_host = |kind: &Option<String>| kind.as_deref() == Some("Hostname");
    if let Some(host) = addresses.iter().find(|address| is_host(&address.kind)) {
        return Some(by_host(name, host.value.clone()));
    }
    let mut ips = addresses.iter().filter_map(|address| address.value.parse().ok());
    if let Some(ip) = ips.next() {
        let network = context.options.network.to_string();
        let address = NetworkAddress { network, address: octets(ip), length: None };
        return Some(at(Destination::Address(address)));
    }
    let service = service_of(gateway);
    let declared = context.is_declared() && context.store.service(&service).is_some();
    declared.then(|| by_host(name, context.store.host_of(&service)))
}

/// Returns whether an object was made for a gateway that has no waypoint itself.
fn is_of_gateway(context: &mut Context<'_>, metadata: &Metadata) -> bool {
    let managed = metadata.label(names::GATEWAY_MANAGED);
    managed.is_some_and(|controller| UNBOUND_CONTROLLERS.contains(&controller))
        || gateway_of(context, metadata).is_some()
}

/// Returns the waypoint that an object was made for.
fn gateway_of<'a>(context: &mut Context<'a>, metadata: &Metadata) -> Option<&'a Gateway> {
    let name = metadata.label(names::GATEWAY_NAME)?;
    let name = ObjectName::new(metadata.namespace().clone(), name);
    let gateway = context.store.gateway(&name).filter(|gateway| is_waypoint(gateway));
    context.depends_on.gateways.insert(name);
    gateway.map(|gateway| &**gateway)
}

/// Returns whether a service is the one of a waypoint, by its name.
fn is_of_waypoint(context: &Context<'_>, service: &ObjectName) -> bool {
    context.store.waypoints_of_service.get(service).next().is_some()
}

/// Returns the name of the service of a waypoint.
pub(super) fn service_of(gateway: &Gateway) -> ObjectName {
    let metadata = &gateway.metadata;
    let name = made::service_name(&metadata.name.name, |name| metadata.annotation(name));
    ObjectName::new(metadata.namespace().clone(), name)
}

#[cfg(test)]
mod tests;
