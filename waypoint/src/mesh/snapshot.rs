//! The indexes by which requests find what concerns them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use mesh_api::{
    proto::l7,
    workload::{Service, ServiceKey, Workload, WorkloadUid},
};
use rpds::{HashTrieMapSync, RedBlackTreeSetSync};
use serde_json::{Value, json};

use super::{
    preamble::Credentials,
    service::{Backend, ServiceView, route_to},
};
use crate::{
    balance::{Instance, Labels, Statistics},
    policy::{GatewayKey, PolicySet, ServicePolicies},
    route::{HttpRoute, Normalisation, ServiceRoutes},
};

/// The mesh at one moment. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// This waypoint. What is declared for other namespaces than its own does not hold here.
    pub(super) own: Instance,
    pub(super) workloads: HashTrieMapSync<WorkloadUid, Arc<Workload>>,
    pub(super) by_address: HashTrieMapSync<IpAddr, Arc<Workload>>,
    pub(super) labels: HashTrieMapSync<WorkloadUid, Arc<Labels>>,
    pub(super) services: HashTrieMapSync<ServiceKey, Arc<Service>>,
    pub(super) by_vip: HashTrieMapSync<IpAddr, ServiceKey>,
    pub(super) by_hostname: HashTrieMapSync<Arc<str>, ServiceKey>,
    pub(super) endpoints: HashTrieMapSync<ServiceKey, RedBlackTreeSetSync<WorkloadUid>>,
    /// Workloads that are known by a host name only.
    pub(super) named: HashTrieMapSync<Arc<str>, RedBlackTreeSetSync<WorkloadUid>>,
    /// What the host names stand for, as far as they were looked up.
    pub(super) found: HashTrieMapSync<Arc<str>, Arc<[IpAddr]>>,
    pub(super) routes: HashTrieMapSync<ServiceKey, Arc<ServiceRoutes>>,
    /// Services and ids of routes, by the names of their resources.
    pub(super) route_names: HashTrieMapSync<Arc<str>, (ServiceKey, Arc<str>)>,
    pub(super) destinations: HashTrieMapSync<ServiceKey, Arc<l7::Destination>>,
    pub(super) credentials: Credentials,
    /// Those that nothing names any more, as far as the control plane knows.
    pub(super) released: BTreeSet<Arc<str>>,
    pub(super) policies: PolicySet,
    /// Those of what is addressed to workloads themselves.
    pub(super) direct_policies: ServicePolicies,
    /// Whether policies have changed since they were put together.
    pub(super) policies_changed: bool,
    /// How paths are spelled before anything is decided by them.
    pub(super) normalisation: Normalisation,
    /// The gateway that declares this waypoint.
    pub(super) gateway: GatewayKey,
    pub(super) views: HashTrieMapSync<ServiceKey, Arc<ServiceView>>,
    /// Services to put together anew.
    pub(super) dirty: BTreeMap<ServiceKey, Extent>,
}

/// How much of a service is to put together anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Extent {
    /// Its routes; its endpoints are as before.
    Routes,
    /// Everything.
    Whole,
}

/// What traffic is addressed to.
#[derive(Clone, Debug)]
pub enum Target {
    /// A port of a service.
    Service(Arc<ServiceView>, u16),
    /// An address of a workload.
    Workload(Arc<Workload>, SocketAddr),
}

// === impl Target ===

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(view, port) => write!(f, "{}:{port}", view.service().key.hostname),
            Self::Workload(_, address) => address.fmt(f),
        }
    }
}

// === impl Snapshot ===

impl Snapshot {
    /// Returns what the waypoint `own`, declared by `gateway`, knows at its start.
    pub fn empty(own: Workload, gateway: GatewayKey) -> Self {
        Self {
            own: Instance { workload: Arc::new(own), labels: Arc::default() },
            workloads: HashTrieMapSync::default(),
            by_address: HashTrieMapSync::default(),
            labels: HashTrieMapSync::default(),
            services: HashTrieMapSync::default(),
            by_vip: HashTrieMapSync::default(),
            by_hostname: HashTrieMapSync::default(),
            endpoints: HashTrieMapSync::default(),
            named: HashTrieMapSync::default(),
            found: HashTrieMapSync::default(),
            routes: HashTrieMapSync::default(),
            route_names: HashTrieMapSync::default(),
            destinations: HashTrieMapSync::default(),
            credentials: Credentials::default(),
            released: BTreeSet::new(),
            policies: PolicySet::default(),
            direct_policies: ServicePolicies::default(),
            policies_changed: false,
            normalisation: Normalisation::default(),
            gateway,
            views: HashTrieMapSync::default(),
            dirty: BTreeMap::new(),
        }
    }

    /// Returns what an address stands for, a service before a workload; none if that is not bound to
    /// this waypoint, or has no such port.
    pub fn target_at(&self, address: SocketAddr) -> Option<Target> {
        if let Some(key) = self.by_vip.get(&address.ip()) {
            return self.port_of(key, address.port());
        }
        let workload = self.by_address.get(&address.ip())?;
        let is_bound = self.stands_in_for_workload(workload);
        is_bound.then(|| Target::Workload(workload.clone(), address))
    }

    /// Returns the port of the service of a host name, on the same terms.
    pub fn target_named(&self, hostname: &str, port: u16) -> Option<Target> {
        let hostname = hostname.to_ascii_lowercase();
        self.port_of(self.by_hostname.get(&*hostname)?, port)
    }

    fn port_of(&self, key: &ServiceKey, port: u16) -> Option<Target> {
        let view = self.service(key)?;
        let is_there = view.has_port(port) && self.stands_in_for_service(view.service());
        is_there.then(|| Target::Service(view.clone(), port))
    }

    /// Returns a service.
    pub fn service(&self, key: &ServiceKey) -> Option<&Arc<ServiceView>> {
        self.views.get(key)
    }

    /// Returns the workload at an address.
    pub fn workload_at(&self, address: IpAddr) -> Option<&Arc<Workload>> {
        self.by_address.get(&address)
    }

    /// Returns the labels of the workload at an address, as far as they are known.
    pub fn labels_at(&self, address: IpAddr) -> Option<&Arc<Labels>> {
        self.labels.get(&self.by_address.get(&address)?.uid)
    }

    /// Returns how paths are spelled before anything is decided by them.
    pub fn normalisation(&self) -> Normalisation {
        self.normalisation
    }

    /// Returns this waypoint.
    pub fn own(&self) -> &Workload {
        &self.own.workload
    }

    /// Returns the host names whose addresses are needed: of the endpoints of services that are bound to
    /// this waypoint, and of those that its routes lead to.
    pub fn names(&self) -> BTreeSet<Arc<str>> {
        if self.named.is_empty() {
            return BTreeSet::new();
        }
        let routed: BTreeSet<_> =
            self.routes.values().flat_map(|routes| routes.destinations()).collect();
        let is_used = |key: &ServiceKey| {
            let is_bound = self.views.get(key).is_some_and(|view| view.binding().is_some());
            is_bound || routed.contains(key)
        };
        let used = self.named.iter().filter(|(_, uids)| {
            let workloads = uids.iter().filter_map(|uid| self.workloads.get(uid));
            workloads.flat_map(|workload| workload.services.keys()).any(is_used)
        });
        // A name with a wildcard stands for many.
        used.map(|(name, _)| name.clone()).filter(|name| !name.starts_with('*')).collect()
    }

    /// Returns the endpoints of a service, with their labels: one of each address that a host name
    /// stands for.
    pub(super) fn instances_of(&self, key: &ServiceKey) -> impl Iterator<Item = Instance> {
        let uids = self.endpoints.get(key).into_iter().flat_map(RedBlackTreeSetSync::iter);
        uids.filter_map(|uid| self.workloads.get(uid)).flat_map(|workload| {
            let labels = self.labels.get(&workload.uid).cloned().unwrap_or_default();
            let instance = move |workload| Instance { workload, labels: labels.clone() };
            self.located(workload).into_iter().map(instance)
        })
    }

    /// Returns a workload, or one with each address that its host name stands for.
    fn located(&self, workload: &Arc<Workload>) -> Vec<Arc<Workload>> {
        let Some(name) = named(workload) else { return vec![workload.clone()] };
        let found = self.found.get(name).map_or(&[][..], |found| &**found);
        let own = &self.own.workload.addresses;
        let is_spoken = |address: &&IpAddr| {
            own.is_empty() || own.iter().any(|own| own.is_ipv4() == address.is_ipv4())
        };
        let at = |address: &IpAddr| {
            Arc::new(Workload { addresses: vec![*address], ..Workload::clone(workload) })
        };
        found.iter().filter(is_spoken).map(at).collect()
    }

    /// Returns what operators are shown.
    pub fn dump(&self) -> Value {
        let services = self.services.iter().map(|(key, service)| {
            let ports: Vec<_> = service.ports.iter().map(|port| port.service_port).collect();
            let endpoints = self.endpoints.get(key).map_or(0, RedBlackTreeSetSync::size);
            json!({
                "service": key.to_string(),
                "ports": ports,
                "endpoints": endpoints,
                "routes": self.routes.get(key).map_or(0, |routes| routes.len()),
                "destination": self.destinations.contains_key(key),
            })
        });
        services.collect()
    }

    /// Returns what operators are shown of secrets: what they have, not what that is.
    pub fn dump_credentials(&self) -> Value {
        self.credentials.values().map(|credential| credential.dump()).collect()
    }

    /// Returns a workload as what stands behind one of its own addresses, and the route there.
    pub fn direct(
        &self,
        workload: &Arc<Workload>,
        to: SocketAddr,
    ) -> (Arc<Backend>, Arc<HttpRoute>) {
        let labels = self.labels.get(&workload.uid).cloned().unwrap_or_default();
        let instance = Instance { workload: workload.clone(), labels };
        let backend = Backend::of_workload(self.own.clone(), instance, to);
        let namespace = workload.identity.namespace.clone();
        let itself = ServiceKey { namespace, hostname: workload.name.clone() };
        (Arc::new(backend), Arc::new(route_to(&itself)))
    }

    /// Has endpoints that were set aside used again once their time is over.
    pub fn tick(&self, now: Instant) {
        for view in self.views.values() {
            view.tick(now);
        }
    }

    /// Returns what is counted for each port and subset of a service that is in use, by name.
    pub fn statistics(&self) -> impl Iterator<Item = (Arc<str>, Statistics)> {
        self.views.values().flat_map(|view| view.statistics())
    }

    /// Returns the policies of what is addressed to workloads themselves.
    pub fn direct_policies(&self) -> &ServicePolicies {
        &self.direct_policies
    }

    /// Returns how many workloads, services and routes are known.
    pub fn counts(&self) -> (usize, usize, usize) {
        (self.workloads.size(), self.services.size(), self.route_names.size())
    }
}

/// Returns the host name by which alone a workload is found, if it is.
pub(super) fn named(workload: &Workload) -> Option<&Arc<str>> {
    workload.hostname.as_ref().filter(|_| workload.addresses.is_empty())
}
