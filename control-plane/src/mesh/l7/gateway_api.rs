//! Routes of the Gateway API that are attached to services.
//!
//! Those of the namespace of the service, or of its waypoint, are for all clients. Those of another
//! namespace are for the clients there, who have them in place of the others, and reach with them
//! only what is theirs, what the clients asked for, and what a `ReferenceGrant` lets them reach.

mod backend;
mod filter;
mod matching;
mod status;

use std::collections::{BTreeMap, BTreeSet};

use mesh_api::{
    crd::{
        BackendReference, GrpcRule, HttpRouteMatch, HttpRule, ParentReference, RouteFilter,
        RouteRetry, RouteTimeouts, StreamRule,
    },
    proto::l7::{
        DirectResponse, Forward, HttpMatch, HttpRoute, Retry, Route, TcpRoute, http_route::Action,
        path_match, redirect, rewrite, route::Traffic,
    },
};

pub(in crate::mesh) use self::status::judge;
use super::{Scope, matching::never, order::Order, virtual_service::traffic};
use crate::{
    mesh::{
        context::Context,
        service::Declaration,
        store::{parent_key, parents_of},
    },
    object::{Metadata, Object, ObjectKey, ObjectKind},
};

/// Where routes for gRPC are in the order: before those for HTTP, and those before virtual services.
const GRPC_CLASS: usize = 0;
/// Where routes for HTTP are in the order.
const HTTP_CLASS: usize = 1;
/// Where routes for TLS are in the order of those for connections; before virtual services, too.
const TLS_CLASS: usize = 0;
/// Where routes for TCP are in the order.
const TCP_CLASS: usize = 1;
/// Status of requests that cannot be forwarded as it is written.
const UNUSABLE: u32 = 500;
/// Retries where nobody says how many.
const DEFAULT_ATTEMPTS: u32 = 2;

/// What is the same for all rules of a route.
struct Source<'a> {
    scope: &'a Scope,
    metadata: &'a Metadata,
    kind: ObjectKind,
    /// Ports of the service; empty for all.
    ports: Vec<u32>,
    /// Whether it is for the clients of its own namespace only.
    is_of_consumer: bool,
}

/// Which ports of a service a reference to it is about.
enum Attached {
    ToAll,
    To(u32),
    ToNone,
}

/// What rules of both kinds have.
struct Rule<'a> {
    name: &'a str,
    filters: &'a [RouteFilter],
    backends: &'a [BackendReference],
    timeouts: Option<RouteTimeouts>,
    retry: Option<&'a RouteRetry>,
}

/// Returns the objects that are attached to a service that is declared by `key`.
pub(super) fn attached_to<'a>(context: &Context<'a>, key: &ObjectKey) -> BTreeSet<&'a ObjectKey> {
    let store = context.store;
    store.routes_of.get(key).collect()
}

/// Returns the routes of an object for a service that is declared by `key`, in no order.
pub(super) fn routes(
    context: &mut Context<'_>,
    key: &ObjectKey,
    scope: &Scope,
    object: &Object,
) -> Vec<Route> {
    let mut routes = Vec::new();
    let metadata = object.metadata();
    let Some(ports) = ports(context, metadata, parents_of(object), key) else { return routes };
    let (kind, is_of_consumer) = (object.kind(), is_of_consumer(metadata.namespace(), scope));
    let source = Source { scope, metadata, kind, ports, is_of_consumer };
    match Some(object) {
        Some(Object::HttpRoute(route)) => http(context, &source, &route.spec.rules, &mut routes),
        Some(Object::GrpcRoute(route)) => grpc(context, &source, &route.spec.rules, &mut routes),
        Some(Object::TlsRoute(route) | Object::TcpRoute(route)) => {
            streams(context, &source, &route.spec.rules, &mut routes);
        }
        _ => {}
    }
    routes
}

/// Returns whether routes of a namespace are for the clients there only: whoever owns neither the
/// service nor its waypoint does not decide for others.
fn is_of_consumer(namespace: &str, scope: &Scope) -> bool {
    namespace != scope.service.namespace && namespace != &*scope.consumer
}

/// Returns the ports of a service that a route is attached to, empty for all; none if it is attached
/// to none that the service has.
fn ports(
    context: &Context<'_>,
    metadata: &Metadata,
    parents: &[ParentReference],
    key: &ObjectKey,
) -> Option<Vec<u32>> {
    let own = parents.iter().filter(|parent| {
        parent_key(metadata.namespace(), parent).is_some_and(|parent| parent == *key)
    });
    let service = Declaration::of(context.store.get(key)?)?;
    let mut ports = BTreeSet::new();
    for parent in own {
        match attached(&service, parent) {
            Attached::ToAll => return Some(Vec::new()),
            Attached::To(port) => drop(ports.insert(port)),
            Attached::ToNone => {}
        }
    }
    (!ports.is_empty()).then(|| ports.into_iter().collect())
}

/// Returns which ports of a service a reference to it is about.
fn attached(service: &Declaration<'_>, parent: &ParentReference) -> Attached {
    let section = parent.section_name.as_str();
    if parent.port.is_none() && section.is_empty() {
        return Attached::ToAll;
    }
    let is_meant = |number: u32, name: &str| {
        parent.port.is_none_or(|port| port == number) && (section.is_empty() || section == name)
    };
    let port = match service {
        Declaration::Service(service) => {
            let mut ports = service.ports.iter().map(|port| (u32::from(port.port), &*port.name));
            ports.find(|(number, name)| is_meant(*number, name)).map(|(number, _)| number)
        }
        Declaration::Entry(entry) => {
            let mut ports = entry.spec.ports.iter();
            ports.find(|port| is_meant(port.number, &port.name)).map(|port| port.number)
        }
    };
    port.map_or(Attached::ToNone, Attached::To)
}

fn http(
    context: &mut Context<'_>,
    source: &Source<'_>,
    rules: &[HttpRule],
    routes: &mut Vec<Route>,
) {
    let everything = [HttpRouteMatch::default()];
    for (i, rule) in rules.iter().enumerate() {
        let common = Rule {
            name: &rule.name,
            filters: &rule.filters,
            backends: &rule.backend_refs,
            timeouts: rule.timeouts,
            retry: rule.retry.as_ref(),
        };
        let route = action(context, source, &common);
        let matches = if rule.matches.is_empty() { &everything } else { &*rule.matches };
        for (j, matched) in matches.iter().enumerate() {
            let order = matching::http_order(Order::default().number(HTTP_CLASS), matched);
            let conditions = matching::http(matched).unwrap_or_else(never);
            let traffic = Traffic::Http(with_match(&route, conditions));
            routes.push(source.route([i, j], order, common.name, traffic));
        }
    }
}

fn grpc(
    context: &mut Context<'_>,
    source: &Source<'_>,
    rules: &[GrpcRule],
    routes: &mut Vec<Route>,
) {
    let everything = [mesh_api::crd::GrpcRouteMatch::default()];
    for (i, rule) in rules.iter().enumerate() {
        let common = Rule {
            name: &rule.name,
            filters: &rule.filters,
            backends: &rule.backend_refs,
            timeouts: None,
            retry: None,
        };
        let route = action(context, source, &common);
        let matches = if rule.matches.is_empty() { &everything } else { &*rule.matches };
        for (j, matched) in matches.iter().enumerate() {
            let order = matching::grpc_order(Order::default().number(GRPC_CLASS), matched);
            let conditions = matching::grpc(matched).unwrap_or_else(never);
            let traffic = Traffic::Http(with_match(&route, conditions));
            routes.push(source.route([i, j], order, common.name, traffic));
        }
    }
}

fn streams(
    context: &mut Context<'_>,
    source: &Source<'_>,
    rules: &[StreamRule],
    routes: &mut Vec<Route>,
) {
    let class = if source.kind == ObjectKind::TlsRoute { TLS_CLASS } else { TCP_CLASS };
    for (i, rule) in rules.iter().enumerate() {
        let destinations = backend::destinations(context, source, &rule.backend_refs);
        let order = Order::default().number(class);
        let traffic = Traffic::Tcp(TcpRoute { destinations });
        routes.push(source.route([i, 0], order, &rule.name, traffic));
    }
}

/// Returns what is done with requests of which conditions hold.
fn with_match(route: &HttpRoute, conditions: HttpMatch) -> HttpRoute {
    let by_expression = conditions
        .path
        .as_ref()
        .is_some_and(|path| matches!(path.kind, Some(path_match::Kind::Regex(_))));
    let replaces_prefix = match &route.action {
        Some(Action::Forward(Forward { rewrite: Some(rewrite), .. })) => {
            matches!(rewrite.path, Some(rewrite::Path::Prefix(_)))
        }
        Some(Action::Redirect(redirect)) => {
            matches!(redirect.path, Some(redirect::Path::Prefix(_)))
        }
        Some(Action::Forward(_) | Action::DirectResponse(_)) | None => false,
    };
    // An expression matches no prefix that could be replaced.
    let route = if by_expression && replaces_prefix { unusable() } else { route.clone() };
    HttpRoute { r#match: Some(conditions), ..route }
}

/// Returns a route of which nothing can be forwarded as it is written.
fn unusable() -> HttpRoute {
    let response = DirectResponse { status: UNUSABLE, body: bytes::Bytes::new() };
    HttpRoute { action: Some(Action::DirectResponse(response)), ..HttpRoute::default() }
}

/// Returns what a rule does, with whatever matches.
fn action(context: &mut Context<'_>, source: &Source<'_>, rule: &Rule<'_>) -> HttpRoute {
    let Ok(filters) = filter::of_rule(context, source, rule.filters) else { return unusable() };
    let action = match filters.redirect {
        Some(redirect) => Action::Redirect(redirect),
        None => Action::Forward(Forward {
            destinations: backend::destinations(context, source, rule.backends),
            rewrite: filters.rewrite,
            mirrors: filters.mirrors,
            ..times(context, rule)
        }),
    };
    HttpRoute {
        action: Some(action),
        request_headers: filters.headers.request,
        response_headers: filters.headers.response,
        cors: filters.cors,
        ..HttpRoute::default()
    }
}

/// Returns how long requests may take, and when they are tried again.
fn times(context: &Context<'_>, rule: &Rule<'_>) -> Forward {
    let timeouts = rule.timeouts.unwrap_or_default();
    let (request, single) = (traffic::limit(timeouts.request), timeouts.backend_request);
    let single = traffic::limit(single);
    let Some(written) = rule.retry else {
        // One try is all there is, but for those that were never sent.
        let timeout = single.or(request);
        return Forward { timeout, retry: traffic::retry(context, None), ..Forward::default() };
    };
    let attempts = written.attempts.unwrap_or(DEFAULT_ATTEMPTS);
    let retry = Retry {
        attempts,
        per_try_timeout: single,
        on: traffic::DEFAULT_CONDITIONS.map(i32::from).to_vec(),
        statuses: written.codes.clone(),
        base_interval: traffic::limit(written.backoff),
        ..Retry::default()
    };
    Forward { timeout: request, retry: (attempts > 0).then_some(retry), ..Forward::default() }
}

// === impl Source ===

impl Source<'_> {
    fn route(&self, position: [usize; 2], order: Order, name: &str, traffic: Traffic) -> Route {
        let [rule, matched] = position;
        let object = &self.metadata.name;
        let order = order.object(self.metadata).number(rule).number(matched);
        let name = match name {
            "" => format!("{}.{}.{rule}", object.namespace, object.name),
            name => name.to_owned(),
        };
        Route {
            id: format!("{}/{object}/{rule}/{matched}", self.kind.name().to_ascii_lowercase()),
            service: Some(self.scope.service.clone()),
            ports: self.ports.clone(),
            order: order.into_bytes(),
            name,
            traffic: Some(traffic),
            client_namespace: if self.is_of_consumer {
                object.namespace.to_string()
            } else {
                String::new()
            },
            client_labels: BTreeMap::new(),
            source_namespace: String::new(),
        }
    }
}
