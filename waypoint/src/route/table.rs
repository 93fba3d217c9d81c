//! Finds the route of a request: the first in order that matches, without asking all of them.

mod index;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use mesh_api::workload::ServiceKey;
use rpds::HashTrieMapSync;

use self::index::PathIndex;
use super::{
    HttpRoute, RequestHead, Route, TcpRoute, Traffic,
    clients::{Client, Clients},
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
    http: Box<[Entry<HttpRoute>]>,
    /// In order.
    tcp: Box<[Entry<TcpRoute>]>,
    /// Whether a route is for clients with some labels.
    depends_on_labels: bool,
    paths: PathIndex,
    /// Of routes that ignore the case of paths.
    paths_in_lower_case: PathIndex,
}

/// A route in its place.
#[derive(Clone, Debug)]
struct Entry<T> {
    clients: Clients,
    route: Arc<T>,
}

/// What is known of a request's route.
#[derive(Clone, Copy, Debug)]
pub enum Found<'a> {
    /// The first that matches.
    Route(&'a Arc<HttpRoute>),
    /// None of those that there are for its client: the request is refused.
    NoMatch,
    /// There are none for its client: the request goes where it is addressed to.
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

    /// Returns the services that they lead to.
    pub fn destinations(&self) -> impl Iterator<Item = &ServiceKey> {
        self.routes.values().flat_map(Route::destinations)
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
        let depends_on_labels = routes.iter().any(|route| route.clients.depend_on_labels());
        let (mut http, mut tcp) = (Vec::new(), Vec::new());
        for Route { clients, traffic, .. } in routes {
            let clients = clients.clone();
            match traffic {
                Traffic::Http(route) => http.push(Entry { clients, route: route.clone() }),
                Traffic::Tcp(route) => tcp.push(Entry { clients, route: route.clone() }),
            }
        }
        let indexed = |ignore_case: bool| {
            let buckets = http.iter().map(|entry| entry.route.bucket()).enumerate();
            PathIndex::new(buckets.filter(|(_, bucket)| bucket.ignore_case == ignore_case))
        };
        let (paths, paths_in_lower_case) = (indexed(false), indexed(true));
        let (http, tcp) = (http.into(), tcp.into());
        Self { http, tcp, depends_on_labels, paths, paths_in_lower_case }
    }

    /// Returns whether the labels of a client make a difference.
    pub fn depends_on_labels(&self) -> bool {
        self.depends_on_labels
    }

    /// Returns the route of a request of a client.
    pub fn find(&self, request: &RequestHead<'_>, client: Client<'_>) -> Found<'_> {
        if self.http.is_empty() {
            return Found::NoRoutes;
        }
        let matches = |entry: &Entry<HttpRoute>| {
            entry.clients.include(client) && entry.route.matches(request)
        };
        let mut first: Option<usize> = None;
        let mut consider = |candidates: &[usize]| {
            for candidate in candidates {
                if first.is_some_and(|first| first < *candidate) {
                    break;
                }
                if self.http.get(*candidate).is_some_and(matches) {
                    first = Some(*candidate);
                    break;
                }
            }
        };
        self.paths.visit(request.path, &mut consider);
        if !self.paths_in_lower_case.is_empty() {
            self.paths_in_lower_case.visit(&lower_case(request.path), &mut consider);
        }
        match first.and_then(|first| self.http.get(first)) {
            Some(entry) => Found::Route(&entry.route),
            None if self.http.iter().any(|entry| entry.clients.include(client)) => Found::NoMatch,
            None => Found::NoRoutes,
        }
    }

    /// Returns the route of a client's connection whose protocol is not looked at.
    pub fn tcp(&self, client: Client<'_>) -> Option<&Arc<TcpRoute>> {
        self.tcp.iter().find(|entry| entry.clients.include(client)).map(|entry| &entry.route)
    }
}

#[cfg(test)]
mod tests;
