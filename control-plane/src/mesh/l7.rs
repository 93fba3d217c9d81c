//! What only waypoints are told: how traffic is routed, who may send it, and how it is spread.
//!
//! A route belongs to the service that traffic is addressed to, and is computed with it. How a
//! service is used is computed for each namespace with waypoints that send it traffic, whether they
//! are its own or a route of another service names it. A service without routes is none that
//! refuses: its waypoint forwards everything to it, with the usual retries. What secrets have is told
//! where a use of a service names them, to waypoints of their own namespace only.

mod authorization;
mod credential;
mod destination;
mod enforcement;
mod gateway_api;
mod labels;
mod lowered;
mod matching;
mod order;
mod settings;
mod virtual_service;
mod visibility;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use mesh_api::{
    proto::{
        l7::{
            HttpRoute, Route, ServiceRef, http_route::Action, resource::Kind as Wire,
            route::Traffic,
        },
        workload::{self, AppProtocol},
    },
    xds_client::EVERY_WAYPOINT,
};

use self::lowered::Summary;
pub(super) use self::{
    authorization::of_policy,
    credential::credential,
    destination::{destination, note_ignored},
    gateway_api::judge,
    labels::labels,
    lowered::{LoweredRoutes, resources as lowered_resources},
    settings::settings,
    virtual_service::{is_for_mesh, note_without_effect},
};
use super::{context::Context, dependency::Use, hosts, warning::Warning};
use crate::{
    object::{ObjectKey, ObjectName},
    resource::Resource,
};

/// What the names of policies begin with.
const POLICY_PREFIX: &str = "authorization/";

/// What the names of routes begin with.
const ROUTE_PREFIX: &str = "route/";

/// What the names of what says how services are used begin with.
const DESTINATION_PREFIX: &str = "destination/";

/// A service that routes are computed for.
#[derive(Clone, Debug, PartialEq)]
struct Scope {
    /// The service.
    service: ServiceRef,
    /// Its ports.
    ports: Vec<u32>,
    /// Its addresses.
    addresses: Vec<std::net::IpAddr>,
    /// Namespace of its waypoint.
    consumer: Arc<str>,
}

/// A service that is bound to waypoints.
struct Bound<'a> {
    /// What declares it.
    key: &'a ObjectKey,
    /// The service as proxies are told of it.
    service: &'a workload::Service,
    scope: Arc<Scope>,
    waypoints: &'a Arc<[ObjectName]>,
}

/// A service that a host name stands for.
#[derive(Clone, Debug)]
struct Target {
    service: ServiceRef,
    ports: Vec<u32>,
}

/// Returns the routes of a service that is declared by `key`, unless no waypoint is for it. Those of the
/// Gateway API are noted by the objects that declare them.
pub(super) fn routes(
    context: &mut Context<'_>,
    key: &ObjectKey,
    service: &workload::Service,
) -> Vec<Resource> {
    let waypoints: Arc<[ObjectName]> = context.waypoints.as_slice().into();
    let Some(primary) = waypoints.first() else { return Vec::new() };
    let scope = Arc::new(Scope {
        service: ServiceRef {
            namespace: service.namespace.clone(),
            hostname: service.hostname.clone(),
        },
        ports: service.ports.iter().map(|port| port.service_port).collect(),
        addresses: service.addresses.iter().filter_map(super::wire::address).collect(),
        consumer: primary.namespace.clone(),
    });
    let bound = Bound { key, service, scope, waypoints: &waypoints };
    let scope = &bound.scope;
    let mut summary = Summary::default();
    for name in gateway_api::attached_to(context, key) {
        lowered::lower(context, &bound, name, &mut summary);
    }
    let mut routes = virtual_service::routes(context, scope);
    note_unspoken(context, service, &routes);
    summary.add(&Summary::of(&routes));
    if !summary.has_one_for_all && context.settings.default_retries.is_some() {
        // It names the service itself.
        routes.push(virtual_service::default_route(context, scope));
    }
    note_uses(context, &waypoints, scope, summary.targets);
    context.depends_on.client_labels |= summary.looks_at_labels;
    encode(scope, &waypoints, routes).collect()
}

/// Returns what the waypoints of a service are told of its routes.
fn encode(
    scope: &Scope,
    waypoints: &[ObjectName],
    routes: Vec<Route>,
) -> impl Iterator<Item = Resource> {
    let aliases = aliases(waypoints);
    routes.into_iter().map(move |route| {
        let ServiceRef { namespace, hostname } = &scope.service;
        let name = format!("{ROUTE_PREFIX}{namespace}/{hostname}/{}", route.id);
        Resource::l7(name, Wire::Route(route), aliases.clone())
    })
}

/// Returns whether a resource is a policy, or says how one is applied: traffic must not be ahead.
pub(super) fn is_policy(resource: &Resource) -> bool {
    let name = resource.name.as_str();
    name.starts_with(POLICY_PREFIX) || name == settings::NAME
}

/// Returns whether a resource says how requests are routed.
pub(super) fn is_traffic(resource: &Resource) -> bool {
    let name = resource.name.as_str();
    [ROUTE_PREFIX, DESTINATION_PREFIX].iter().any(|prefix| name.starts_with(prefix))
}

/// Returns the names by which waypoints ask for what is theirs.
fn aliases<'a>(waypoints: impl IntoIterator<Item = &'a ObjectName>) -> Box<[Box<str>]> {
    waypoints.into_iter().map(|name| name.to_string().into()).collect()
}

/// Returns the name by which every waypoint asks.
fn every_waypoint() -> Box<[Box<str>]> {
    Box::new([EVERY_WAYPOINT.into()])
}

/// Notes which services the waypoints of a service send its traffic to, beside itself: `targets` are their
/// namespaces and host names.
fn note_uses(
    context: &mut Context<'_>,
    waypoints: &[ObjectName],
    scope: &Scope,
    mut targets: BTreeSet<(String, String)>,
) {
    let ServiceRef { namespace, hostname } = &scope.service;
    targets.insert((namespace.clone(), hostname.clone()));
    let mut missing = BTreeSet::new();
    for (namespace, hostname) in targets {
        let (namespace, hostname): (Arc<str>, Arc<str>) = (namespace.into(), hostname.into());
        if hosts::owner(context, &namespace, &hostname).is_none() {
            missing.insert(hostname);
            continue;
        }
        for waypoint in waypoints {
            let used = Use {
                consumer: waypoint.namespace.clone(),
                namespace: namespace.clone(),
                hostname: hostname.clone(),
            };
            context.depends_on.uses.insert((used, waypoint.clone()));
        }
    }
    for host in missing {
        context.warn(Warning::DestinationMissing(host.to_string()));
    }
}

/// Warns of what has routes of HTTP, all of them for ports that are declared to carry something else.
fn note_unspoken(context: &mut Context<'_>, service: &workload::Service, routes: &[Route]) {
    if service.ports.is_empty() {
        return;
    }
    let is_spoken = |route: &Route| {
        let is_meant = |number| route.ports.is_empty() || route.ports.contains(&number);
        let mut ports = service.ports.iter().filter(|port| is_meant(port.service_port));
        ports.any(|port| may_be_http(port.app_protocol()))
    };
    let mut by_object = BTreeMap::new();
    for route in routes.iter().filter(|route| matches!(route.traffic, Some(Traffic::Http(_)))) {
        // What a route is named after, without its place there.
        let object = route.id.splitn(4, '/').take(3).collect::<Vec<_>>().join(" ");
        *by_object.entry(object).or_insert(false) |= is_spoken(route);
    }
    for (name, _) in by_object.into_iter().filter(|(_, is_spoken)| !is_spoken) {
        context.warn(Warning::NotHttp(name));
    }
}

/// Returns whether requests of HTTP are looked for on a port.
fn may_be_http(protocol: AppProtocol) -> bool {
    match protocol {
        AppProtocol::Unknown | AppProtocol::Http11 | AppProtocol::Http2 | AppProtocol::Grpc => true,
        AppProtocol::Tcp | AppProtocol::Tls => false,
    }
}

/// Returns the services that a route names.
fn targets(route: &Route) -> Vec<&ServiceRef> {
    let (destinations, mirrors) = match &route.traffic {
        Some(Traffic::Http(HttpRoute { action: Some(Action::Forward(forward)), .. })) => {
            (forward.destinations.as_slice(), forward.mirrors.as_slice())
        }
        Some(Traffic::Tcp(tcp)) => (tcp.destinations.as_slice(), [].as_slice()),
        Some(Traffic::Http(_)) | None => ([].as_slice(), [].as_slice()),
    };
    let destinations = destinations.iter().filter_map(|destination| destination.service.as_ref());
    destinations.chain(mirrors.iter().filter_map(|mirror| mirror.service.as_ref())).collect()
}

/// Returns the service of a host as it is seen from a namespace: its own one first, otherwise the one
/// for the whole mesh.
fn target(context: &mut Context<'_>, consumer: &Arc<str>, host: &Arc<str>) -> Option<Target> {
    context.depends_on.hosts.insert(host.clone());
    let mut claimants = context.store.hosts.get(host);
    let key = hosts::owner(context, consumer, host)
        .or_else(|| claimants.find(|key| hosts::is_canonical(context, key, host)))?;
    let declaration = super::service::Declaration::of(context.store.get(key)?)?;
    let ports = declaration.ports().into_iter().map(|(number, _)| number).collect();
    let service =
        ServiceRef { namespace: key.name.namespace.to_string(), hostname: host.to_string() };
    Some(Target { service, ports })
}

/// Returns a target that is not there, as a rule of a namespace names it.
fn nowhere(namespace: &Arc<str>, host: &str) -> Target {
    let service = ServiceRef { namespace: namespace.to_string(), hostname: host.to_owned() };
    Target { service, ports: Vec::new() }
}

#[cfg(test)]
mod tests;
