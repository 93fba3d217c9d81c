//! Routes of virtual services.

mod action;
mod delegate;
mod tcp;
pub(super) mod traffic;
mod without_effect;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use mesh_api::{
    crd::{VirtualMatch, VirtualRoute},
    proto::l7::{
        Forward, HttpRoute, Route, WeightedDestination, http_route::Action, route::Traffic,
    },
};

pub(in crate::mesh) use self::without_effect::note_without_effect;
use super::{
    Scope, matching,
    order::Order,
    visibility::{self, Visibility},
};
use crate::{
    mesh::{context::Context, store::covering},
    object::{ObjectName, VirtualService},
};

/// Gateway that stands for all proxies that are none.
const MESH: &str = "mesh";
/// Name of the route of a service that has no other.
const DEFAULT_ROUTE: &str = "default";
/// Where routes of virtual services are in the order: behind those of the Gateway API.
const CLASS: usize = 2;
/// Where the route is that a service has for want of another: behind those for some clients.
const DEFAULT_CLASS: usize = 3;

/// A virtual service that counts, and how it is seen.
struct Applicable<'a> {
    service: &'a VirtualService,
    seen: Visibility,
}

/// What is the same for all routes of a virtual service.
struct Source<'a> {
    scope: &'a Scope,
    service: &'a VirtualService,
    seen: Visibility,
    /// `http`, `tls` or `tcp`.
    list: &'static str,
}

/// Conditions on where traffic comes from and arrives.
#[derive(Clone, Copy)]
struct Placement<'a> {
    gateways: &'a [String],
    port: u32,
    source_labels: &'a BTreeMap<String, String>,
    source_namespace: &'a str,
}

/// Whose traffic a route is for, and where it arrives.
#[derive(Debug, Default)]
struct Reach {
    /// Empty for all ports.
    ports: Vec<u32>,
    /// Empty for all clients.
    client_labels: BTreeMap<String, String>,
    /// The same.
    source_namespace: String,
}

/// Ports that an earlier route takes all traffic of.
#[derive(Debug, Default)]
struct Taken(BTreeSet<u32>);

// === impl Source ===

impl Source<'_> {
    /// Returns a route; `position` is its own among those of the list.
    fn route(
        &self,
        position: [usize; 2],
        is_last: bool,
        reach: Reach,
        name: String,
        traffic: Traffic,
    ) -> Route {
        let metadata = &self.service.metadata;
        let [rule, matched] = position;
        let order = Order::default()
            .number(CLASS)
            .first(self.list == "tls")
            // What takes everything is moved behind what others want to have.
            .first(!is_last)
            .number(self.seen as usize)
            .object(metadata)
            .number(rule)
            .number(matched);
        let ObjectName { namespace, name: object } = &metadata.name;
        Route {
            id: format!("virtualservice/{namespace}/{object}/{}/{rule}/{matched}", self.list),
            service: Some(self.scope.service.clone()),
            ports: reach.ports,
            order: order.into_bytes(),
            name,
            traffic: Some(traffic),
            client_namespace: String::new(),
            client_labels: reach.client_labels,
            source_namespace: reach.source_namespace,
        }
    }
}

// === impl Placement ===

impl<'a> Placement<'a> {
    fn of(matched: &'a VirtualMatch) -> Self {
        Self {
            gateways: &matched.gateways,
            port: matched.port,
            source_labels: &matched.source_labels,
            source_namespace: &matched.source_namespace,
        }
    }

    /// Returns whether the conditions can hold at the waypoint of a service.
    fn holds(self, scope: &Scope) -> bool {
        let port = self.port == 0 || scope.ports.contains(&self.port);
        port && is_for_mesh(self.gateways)
    }

    /// Returns whether all clients are meant. Gateways decide alone: beside them, it does not count
    /// what else is said of clients.
    fn is_for_all(self) -> bool {
        let is_for_some = !self.source_labels.is_empty() || !self.source_namespace.is_empty();
        !self.gateways.is_empty() || !is_for_some
    }

    /// Returns the reach of a route that is left these ports.
    fn reach(self, ports: Vec<u32>) -> Reach {
        if self.is_for_all() {
            return Reach { ports, ..Reach::default() };
        }
        let client_labels = self.source_labels.clone();
        Reach { ports, client_labels, source_namespace: self.source_namespace.to_owned() }
    }
}

// === impl Taken ===

impl Taken {
    /// Returns the ports that are left to a route that is for `port`, or for all if that is 0; empty
    /// stands for all. None if no port is left.
    fn left(&self, scope: &Scope, port: u32) -> Option<Vec<u32>> {
        let of_service = || scope.ports.iter().copied();
        let left: Vec<_> = match port {
            0 if self.0.is_empty() => return Some(Vec::new()),
            0 => of_service().filter(|port| !self.0.contains(port)).collect(),
            port => Some(port).into_iter().filter(|port| !self.0.contains(port)).collect(),
        };
        (!left.is_empty()).then_some(left)
    }

    /// Takes a port, or all if that is 0.
    fn take(&mut self, scope: &Scope, port: u32) {
        match port {
            0 => self.0.extend(scope.ports.iter().copied()),
            port => drop(self.0.insert(port)),
        }
    }
}

/// Returns the routes of a service, in no order.
pub(super) fn routes(context: &mut Context<'_>, scope: &Scope) -> Vec<Route> {
    let mut routes = Vec::new();
    for Applicable { service, seen } in applicable(context, scope) {
        let source = Source { scope, service, seen, list: "http" };
        http(context, &source, &mut routes);
        tcp::routes(context, &source, &mut routes);
    }
    routes
}

/// Returns the route of a service that has no other, for the case that retries are not as usual.
pub(super) fn default_route(context: &Context<'_>, scope: &Scope) -> Route {
    let destination = WeightedDestination {
        service: Some(scope.service.clone()),
        weight: 1,
        ..WeightedDestination::default()
    };
    let forward = Forward {
        destinations: vec![destination],
        retry: traffic::retry(context, None),
        ..Forward::default()
    };
    let http = HttpRoute { action: Some(Action::Forward(forward)), ..HttpRoute::default() };
    Route {
        id: DEFAULT_ROUTE.to_owned(),
        service: Some(scope.service.clone()),
        order: Order::default().number(DEFAULT_CLASS).into_bytes(),
        name: DEFAULT_ROUTE.to_owned(),
        traffic: Some(Traffic::Http(http)),
        ..Route::default()
    }
}

/// Returns the virtual services for a host of the mesh that the waypoint heeds: those of the
/// service's namespace and of its own that it sees.
fn applicable<'a>(context: &Context<'a>, scope: &Scope) -> Vec<Applicable<'a>> {
    let namespace: Arc<str> = scope.service.namespace.as_str().into();
    let hostname = scope.service.hostname.to_ascii_lowercase();
    let namespaces = BTreeSet::from([namespace, scope.consumer.clone()]);
    let places = namespaces
        .iter()
        .flat_map(|namespace| covering(&hostname).map(move |host| (namespace.clone(), host)));
    let store = context.store;
    let names: BTreeSet<_> =
        places.flat_map(|place| store.virtual_services.get(&place).collect::<Vec<_>>()).collect();
    let services = names.into_iter().filter_map(|name| store.virtual_service(name));
    services
        .filter(|service| is_for_mesh(&service.spec.gateways))
        .filter_map(|service| {
            let own = service.metadata.namespace();
            let seen = seen(context, service, own, &scope.consumer)?;
            Some(Applicable { service, seen })
        })
        .collect()
}

/// Returns the virtual services with routes of HTTP for a service, in no order.
pub(super) fn of_http<'a>(context: &Context<'a>, scope: &Scope) -> Vec<&'a ObjectName> {
    let applicable = applicable(context, scope).into_iter().map(|applicable| applicable.service);
    let of_http = applicable.filter(|service| !service.spec.http.is_empty());
    of_http.map(|service| &service.metadata.name).collect()
}

fn seen(
    context: &Context<'_>,
    service: &VirtualService,
    own: &str,
    from: &str,
) -> Option<Visibility> {
    visibility::of(&service.spec.export_to, &context.settings.default_route_export, own, from)
}

/// Returns whether a rule with these gateways applies within the mesh.
pub(in crate::mesh) fn is_for_mesh(gateways: &[String]) -> bool {
    gateways.is_empty() || gateways.iter().any(|name| name == MESH)
}

fn http(context: &mut Context<'_>, source: &Source<'_>, routes: &mut Vec<Route>) {
    let scope = source.scope;
    let mut taken = Taken::default();
    let everything = [VirtualMatch::default()];
    for (i, route) in delegate::resolved(context, source.service).iter().enumerate() {
        let matches = if route.matches.is_empty() { &everything } else { &*route.matches };
        for (j, matched) in matches.iter().enumerate() {
            let placement = Placement::of(matched);
            if !placement.holds(scope) {
                continue;
            }
            let Some(ports) = taken.left(scope, matched.port) else { continue };
            let conditions = matching::lower(matched);
            let is_last = placement.is_for_all() && matching::is_catch_all(matched);
            let traffic = Traffic::Http(action::lower(context, source, route, conditions));
            let reach = placement.reach(ports);
            routes.push(source.route([i, j], is_last, reach, name(route, matched), traffic));
            if is_last {
                taken.take(scope, matched.port);
            }
        }
    }
}

/// Returns what access logs call a route.
fn name(route: &VirtualRoute, matched: &VirtualMatch) -> String {
    match matched.name.as_str() {
        "" => route.name.clone(),
        name => format!("{}.{name}", route.name),
    }
}
