//! Finds the route of a request: the first in order that matches, without asking all of them.

mod index;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use rpds::HashTrieMapSync;

use self::index::PathIndex;
use super::{
    HttpRoute, RequestHead, Route, TcpRoute, Traffic,
    path::{Bucket, lower_case},
};

/// The routes of one service, from which the tables of its ports are made. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct ServiceRoutes {
    routes: HashTrieMapSync<Arc<str>, Route>,
}

/// The routes of a service and port, for all its clients.
#[derive(Clone, Debug, Default)]
pub struct RouteTables {
    all: RouteTable,
    /// By the namespaces that have routes of their own.
    of_clients: HashMap<Arc<str>, RouteTable>,
}

/// The routes of a service and port for some of its clients.
#[derive(Clone, Debug, Default)]
pub struct RouteTable {
    /// In order.
    http: Box<[Arc<HttpRoute>]>,
    tcp: Option<Arc<TcpRoute>>,
    paths: PathIndex,
    /// Of routes that ignore the case of paths.
    paths_in_lower_case: PathIndex,
}

/// What is known of a request's route.
#[derive(Clone, Copy, Debug)]
pub enum Found<'a> {
    /// The first that matches.
    Route(&'a Arc<HttpRoute>),
    /// None of those that there are: the request is refused.
    NoMatch,
    /// There are none: the request goes where it is addressed to.
    NoRoutes,
}

// === impl ServiceRoutes ===

impl ServiceRoutes {
    /// Adds a route, or replaces the one with its id.
    pub fn insert(&mut self, route: Route) {
        self.routes.insert_mut(route.id.clone(), route);
    }

    /// Removes a route.
    pub fn remove(&mut self, id: &str) {
        self.routes.remove_mut(id);
    }

    /// Returns how many routes there are.
    pub fn len(&self) -> usize {
        self.routes.size()
    }

    /// Returns whether no route is left.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// Makes the tables of a port; the routes themselves are shared with them.
    pub fn tables(&self, port: u16) -> RouteTables {
        let routes: Vec<_> = self.routes.values().filter(|route| route.is_for(port)).collect();
        let own: BTreeSet<_> = routes
            .iter()
            .filter_map(|route| Some((route.client_namespace.as_ref()?, route.is_http())))
            .collect();
        let table = |namespace: &Arc<str>| {
            // Routes for all are none of a namespace with its own of that kind.
            let holds = |route: &&&Route| match &route.client_namespace {
                Some(own) => own == namespace,
                None => !own.contains(&(namespace, route.is_http())),
            };
            RouteTable::new(routes.iter().filter(holds).copied())
        };
        let is_for_all = |route: &&&Route| route.client_namespace.is_none();
        RouteTables {
            all: RouteTable::new(routes.iter().filter(is_for_all).copied()),
            of_clients: own.iter().map(|(name, _)| ((*name).clone(), table(name))).collect(),
        }
    }
}

// === impl RouteTables ===

impl RouteTables {
    /// Returns the routes for the clients of a namespace.
    pub fn of(&self, namespace: &str) -> &RouteTable {
        self.of_clients.get(namespace).unwrap_or(&self.all)
    }
}

// === impl RouteTable ===

impl RouteTable {
    fn new<'a>(routes: impl Iterator<Item = &'a Route>) -> Self {
        let mut routes: Vec<_> = routes.collect();
        // Ids too, so that the order does not depend on how routes arrived.
        routes.sort_unstable_by(|a, b| (&a.order, &a.id).cmp(&(&b.order, &b.id)));
        let mut http: Vec<Arc<HttpRoute>> = Vec::new();
        let mut tcp = None;
        for route in routes {
            match &route.traffic {
                Traffic::Http(route) => http.push(route.clone()),
                Traffic::Tcp(route) => tcp = tcp.or_else(|| Some(route.clone())),
            }
        }
        let indexed = |ignore_case: bool| {
            let buckets = http.iter().map(|route| route.bucket()).enumerate();
            PathIndex::new(buckets.filter(|(_, bucket)| bucket.ignore_case == ignore_case))
        };
        let (paths, paths_in_lower_case) = (indexed(false), indexed(true));
        Self { http: http.into(), tcp, paths, paths_in_lower_case }
    }

    /// Returns the route of a request.
    pub fn find(&self, request: &RequestHead<'_>) -> Found<'_> {
        if self.http.is_empty() {
            return Found::NoRoutes;
        }
        let mut first: Option<usize> = None;
        let mut consider = |candidates: &[usize]| {
            for candidate in candidates {
                if first.is_some_and(|first| first < *candidate) {
                    break;
                }
                if self.http.get(*candidate).is_some_and(|route| route.matches(request)) {
                    first = Some(*candidate);
                    break;
                }
            }
        };
        self.paths.visit(request.path, &mut consider);
        if !self.paths_in_lower_case.is_empty() {
            self.paths_in_lower_case.visit(&lower_case(request.path), &mut consider);
        }
        first.and_then(|first| self.http.get(first)).map_or(Found::NoMatch, Found::Route)
    }

    /// Returns the route of a connection whose protocol is not looked at.
    pub fn tcp(&self) -> Option<&Arc<TcpRoute>> {
        self.tcp.as_ref()
    }
}

#[cfg(test)]
mod tests;
