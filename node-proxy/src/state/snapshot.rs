//! The snapshot and its indexes.
//!
//! Its maps share their parts with those of the snapshots before and after it: a copy costs next to
//! nothing, and a change only what it touches.

mod hosts;

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use arc_swap::ArcSwapOption;
use ipnet::IpNet;
use mesh_api::{
    config::MeshConfig,
    identity::{Identity, Namespace},
    policy::{Policy, PolicyIndex, WorkloadPolicies},
    workload::{
        Network, NetworkMode, PolicyKey, Service, ServiceKey, TunnelProtocol, Workload, WorkloadUid,
    },
};
use rpds::HashTrieMapSync;

use self::hosts::key_of;
use super::{
    endpoints::{Endpoint, Endpoints, Members},
    standing::Standing,
};

/// A workload and what follows from the rest of the configuration.
#[derive(Debug)]
pub(super) struct WorkloadEntry {
    pub(super) workload: Arc<Workload>,
    /// Compiled when first asked for: only workloads of this node ever are.
    policies: ArcSwapOption<Evaluator>,
}

/// The policies of a workload as of one state of all policies.
#[derive(Debug)]
struct Evaluator {
    generation: u64,
    policies: Arc<WorkloadPolicies>,
}

/// Workloads of the same name or address, of which the first counts.
type Namesakes = Vec<Arc<WorkloadEntry>>;

/// How a workload has been doing in each of its services.
type Standings = BTreeMap<ServiceKey, Arc<Standing>>;

/// A service and its endpoints.
#[derive(Clone, Copy, Debug)]
pub struct ServiceEntry<'a> {
    /// The service.
    pub service: &'a Arc<Service>,
    /// Its endpoints.
    pub(super) members: &'a Members,
    /// What they are part of.
    pub(super) state: &'a MeshState,
}

/// A workload of this node with the policies that guard it.
#[derive(Clone, Debug)]
pub struct LocalWorkload {
    /// The workload.
    pub workload: Arc<Workload>,
    /// Its policies, compiled.
    pub policies: Arc<WorkloadPolicies>,
}

/// One consistent view of the mesh.
#[derive(Clone, Debug, Default)]
pub struct MeshState {
    network: Network,
    workloads: HashTrieMapSync<WorkloadUid, Arc<WorkloadEntry>>,
    by_name: HashTrieMapSync<Namespace, HashTrieMapSync<Arc<str>, Namesakes>>,
    by_address: HashTrieMapSync<IpAddr, Namesakes>,
    /// Workloads that share the address of their node.
    by_host: HashTrieMapSync<IpAddr, Namesakes>,
    /// Workloads of other networks, such as the gateways that lead there.
    pub(super) by_remote_address: HashTrieMapSync<(Network, IpAddr), Namesakes>,
    /// Workloads that have a host name, by that in lower case.
    by_own_hostname: HashTrieMapSync<ServiceKey, Namesakes>,
    services: HashTrieMapSync<ServiceKey, Arc<Service>>,
    /// Also of services that are not known (yet): either may come first.
    endpoints: HashTrieMapSync<ServiceKey, Endpoints>,
    by_vip: HashTrieMapSync<IpAddr, Vec<ServiceKey>>,
    /// By host names in lower case, also those that begin with `*`.
    by_hostname: HashTrieMapSync<Arc<str>, Vec<ServiceKey>>,
    by_range: Arc<Vec<(IpNet, ServiceKey)>>,
    policies: Arc<PolicyIndex>,
    /// Counts the changes of `policies`.
    generation: u64,
}

// === impl MeshState ===

impl MeshState {
    /// Starts with nothing, as seen from `network`.
    pub fn empty(network: Network) -> Self {
        Self { network, ..Self::default() }
    }

    /// Indexes `config` as seen from `network`.
    pub fn new(config: MeshConfig, network: Network) -> Self {
        let policies = Arc::new(PolicyIndex::new(config.policies));
        let mut state = Self { policies, ..Self::empty(network) };
        for service in config.services {
            state.insert_service(service);
        }
        for workload in config.workloads {
            state.insert_workload(workload);
        }
        state
    }

    /// Returns the network that this is seen from.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Returns the workload that owns `address`. Host-network workloads own none.
    pub fn workload_at(&self, address: IpAddr) -> Option<&Arc<Workload>> {
        self.by_address.get(&address)?.first().map(|entry| &entry.workload)
    }

    /// Returns whether workloads of the host network have `address`, which is their node's.
    pub fn is_host(&self, address: IpAddr) -> bool {
        self.by_host.contains_key(&address)
    }

    /// Returns the workload with `uid`.
    pub fn workload(&self, uid: &WorkloadUid) -> Option<&Arc<Workload>> {
        self.workloads.get(uid).map(|entry| &entry.workload)
    }

    /// Returns the workload of an enrolled pod, if what is known of it agrees with `identity`.
    pub fn local_workload(&self, name: &str, identity: &Identity) -> Option<LocalWorkload> {
        let namesakes = self.by_name.get(&identity.namespace)?.get(name)?;
        let entry = namesakes.iter().find(|e| e.workload.identity == *identity)?;
        let policies = entry.policies(&self.policies, self.generation);
        Some(LocalWorkload { workload: entry.workload.clone(), policies })
    }

    /// Returns the service that a client in `namespace` means by `address`: the one of its own
    /// namespace, else the canonical one, else the first; an exact address before a range, and a
    /// narrow range before a wide one.
    pub fn service_at(&self, address: IpAddr, namespace: &Namespace) -> Option<ServiceEntry<'_>> {
        let exact = self.by_vip.get(&address).into_iter().flatten();
        let rank = |service: &Service| (service.key.namespace == *namespace, service.canonical);
        let exact = first_max(self.visible(exact, namespace), |service| rank(service));
        let service = exact.or_else(|| {
            let ranges = self.by_range.iter().filter(|(range, _)| range.contains(&address));
            let ranked = ranges.filter_map(|(range, key)| {
                let service = self.visible([key], namespace).next()?;
                Some((range.prefix_len(), service))
            });
            first_max(ranked, |(length, service)| (rank(service).0, *length, rank(service).1))
                .map(|(_, service)| service)
        });
        service.map(|service| self.with_endpoints(service))
    }

    /// Returns the service with `key`.
    pub fn service(&self, key: &ServiceKey) -> Option<ServiceEntry<'_>> {
        self.services.get(key).map(|service| self.with_endpoints(service))
    }

    /// Returns the service that a connection to `port` of `workload` was most likely made for; used
    /// in telemetry only.
    pub fn service_for(
        &self,
        workload: &Workload,
        port: u16,
        hostname: Option<&str>,
    ) -> Option<&Arc<Service>> {
        let named = workload.services.keys().find(|key| Some(&*key.hostname) == hostname);
        let by_port = || {
            workload.services.iter().find(|(key, ports)| {
                ports.values().any(|target| *target == port)
                    || self.services.get(key).is_some_and(|service| targets(service, port))
            })
        };
        let key = named.or_else(|| by_port().map(|(key, _)| key))?;
        self.services.get(key)
    }

    /// Returns the service with this host name that `local` is an endpoint of, if there is one, and
    /// where `local` takes connections to `port` of it. One of its own namespace comes first.
    pub fn service_named(
        &self,
        local: &Workload,
        hostname: &str,
        port: u16,
    ) -> Option<(&Arc<Service>, u16)> {
        let named = |key: &ServiceKey| key.hostname.eq_ignore_ascii_case(hostname);
        let services = local.services.iter().filter(|(key, _)| named(key));
        let known = services.filter_map(|(key, ports)| Some((self.services.get(key)?, ports)));
        let own = |(service, _): &(&Arc<Service>, _)| service.key.namespace == *local.namespace();
        let (service, ports) = first_max(known, own)?;
        let declared = service.ports.iter().find(|declared| declared.service_port == port)?;
        Some((service, ports.get(&port).copied().or(declared.target_port)?))
    }

    /// Returns an address of `service` in the network of this node, IPv4 if there is one.
    pub fn first_address(&self, service: &Service) -> Option<IpAddr> {
        let own = service.addresses.iter().filter(|vip| vip.network == self.network);
        own.map(|vip| vip.address.addr()).min_by_key(IpAddr::is_ipv6)
    }

    /// Returns the numbers of workloads, services and policies.
    pub fn counts(&self) -> (usize, usize, usize) {
        (self.workloads.size(), self.services.size(), self.policies.len())
    }

    /// Returns all workloads.
    pub fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.workloads.values().map(|entry| &entry.workload)
    }

    /// Returns all services.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values()
    }

    /// Returns all policies, by key.
    pub fn policies(&self) -> impl Iterator<Item = &Policy> {
        self.policies.iter()
    }

    /// Adds a service, in place of the one with its key. Its endpoints stay.
    pub fn insert_service(&mut self, service: Service) {
        let service = Arc::new(service);
        let before = self.services.get(&service.key).cloned();
        self.services.insert_mut(service.key.clone(), service.clone());
        if before.is_none() {
            self.insert_host(&service.key);
        }
        if before.as_ref().is_some_and(|before| before.addresses == service.addresses) {
            return;
        }
        if let Some(before) = before {
            self.remove_addresses(&before);
        }
        for vip in service.addresses.iter().filter(|vip| vip.network == self.network) {
            let key = service.key.clone();
            if vip.address.prefix_len() < vip.address.max_prefix_len() {
                Arc::make_mut(&mut self.by_range).push((vip.address, key));
            } else if let Some(keys) = self.by_vip.get_mut(&vip.address.addr()) {
                keys.push(key);
            } else {
                self.by_vip.insert_mut(vip.address.addr(), vec![key]);
            }
        }
    }

    /// Removes the service with `key`, if there is one.
    pub fn remove_service(&mut self, key: &ServiceKey) {
        if let Some(service) = self.services.get(key).cloned() {
            self.services.remove_mut(key);
            self.remove_host(key);
            self.remove_addresses(&service);
        }
    }

    /// Adds a workload, in place of the one with its uid. How that has been doing is remembered while
    /// it is reached in the same way.
    pub fn insert_workload(&mut self, workload: Workload) {
        let before = self.take_workload(&workload.uid);
        let mut standings = before.filter(|(before, _)| {
            before.addresses == workload.addresses
                && before.hostname == workload.hostname
                && before.network_gateway == workload.network_gateway
        });
        let mut standing = |key| {
            let known = standings.as_mut().and_then(|(_, standings)| standings.remove(key));
            known.unwrap_or_default()
        };
        let workload = Arc::new(workload);
        let policies = ArcSwapOption::empty();
        let entry = Arc::new(WorkloadEntry { workload: workload.clone(), policies });
        self.workloads.insert_mut(workload.uid.clone(), entry.clone());
        let namespace = workload.namespace();
        if !self.by_name.contains_key(namespace) {
            self.by_name.insert_mut(namespace.clone(), HashTrieMapSync::default());
        }
        if let Some(names) = self.by_name.get_mut(namespace) {
            enlist(names, workload.name.clone(), &entry, &self.network);
        }
        if let Some(hostname) = &workload.hostname {
            let key = key_of(namespace, hostname);
            enlist(&mut self.by_own_hostname, key, &entry, &self.network);
        }
        for address in &workload.addresses {
            if workload.network != self.network {
                let key = (workload.network.clone(), *address);
                enlist(&mut self.by_remote_address, key, &entry, &self.network);
                continue;
            }
            let by_address = match workload.network_mode {
                NetworkMode::Standard => &mut self.by_address,
                NetworkMode::HostNetwork => &mut self.by_host,
            };
            enlist(by_address, *address, &entry, &self.network);
        }
        for (key, ports) in &workload.services {
            let endpoint = Endpoint::new(workload.clone(), ports.clone(), standing(key));
            if let Some(endpoints) = self.endpoints.get_mut(key) {
                endpoints.insert(endpoint);
            } else {
                self.endpoints.insert_mut(key.clone(), Endpoints::from(endpoint));
            }
        }
    }

    /// Removes the workload with `uid`, if there is one, and with it its endpoints.
    pub fn remove_workload(&mut self, uid: &WorkloadUid) {
        self.take_workload(uid);
    }

    /// Removes a workload; returns it and how it has been doing in each service.
    fn take_workload(&mut self, uid: &WorkloadUid) -> Option<(Arc<Workload>, Standings)> {
        let entry = self.workloads.get(uid).cloned()?;
        self.workloads.remove_mut(uid);
        let workload = &entry.workload;
        if let Some(names) = self.by_name.get_mut(workload.namespace()) {
            delist(names, &workload.name, &entry);
            if names.is_empty() {
                self.by_name.remove_mut(workload.namespace());
            }
        }
        if let Some(hostname) = &workload.hostname {
            let key = key_of(workload.namespace(), hostname);
            delist(&mut self.by_own_hostname, &key, &entry);
        }
        for address in &workload.addresses {
            delist(&mut self.by_address, address, &entry);
            delist(&mut self.by_host, address, &entry);
            delist(&mut self.by_remote_address, &(workload.network.clone(), *address), &entry);
        }
        let mut standings = Standings::new();
        for key in workload.services.keys() {
            let Some(endpoints) = self.endpoints.get_mut(key) else { continue };
            if let Some(standing) = endpoints.remove(workload) {
                standings.insert(key.clone(), standing);
            }
            if endpoints.is_empty() {
                self.endpoints.remove_mut(key);
            }
        }
        Some((workload.clone(), standings))
    }

    /// Adds a policy, in place of the one with its key.
    pub fn insert_policy(&mut self, policy: Policy) {
        Arc::make_mut(&mut self.policies).insert(policy);
        self.generation += 1;
    }

    /// Removes the policy with `key`, if there is one.
    pub fn remove_policy(&mut self, key: &PolicyKey) {
        Arc::make_mut(&mut self.policies).remove(key);
        self.generation += 1;
    }

    /// Returns the policies that guard `workload`, which must be of this mesh.
    pub fn policies_of(&self, workload: &Workload) -> Option<Arc<WorkloadPolicies>> {
        let entry = self.workloads.get(&workload.uid)?;
        Some(entry.policies(&self.policies, self.generation))
    }

    pub(super) fn with_endpoints<'a>(&'a self, service: &'a Arc<Service>) -> ServiceEntry<'a> {
        let members = match self.endpoints.get(&service.key) {
            Some(endpoints) => endpoints.members(),
            None => Members::none(),
        };
        ServiceEntry { service, members, state: self }
    }

    pub(super) fn visible<'a>(
        &'a self,
        keys: impl IntoIterator<Item = &'a ServiceKey>,
        namespace: &Namespace,
    ) -> impl Iterator<Item = &'a Arc<Service>> {
        keys.into_iter()
            .filter_map(|key| self.services.get(key))
            .filter(move |service| !service.namespace_local || service.key.namespace == *namespace)
    }

    fn remove_addresses(&mut self, service: &Service) {
        for vip in service.addresses.iter().filter(|vip| vip.network == self.network) {
            let address = vip.address.addr();
            if vip.address.prefix_len() < vip.address.max_prefix_len() {
                let ranges = Arc::make_mut(&mut self.by_range);
                ranges.retain(|(range, key)| (range, key) != (&vip.address, &service.key));
            } else if let Some(keys) = self.by_vip.get_mut(&address) {
                keys.retain(|key| *key != service.key);
                if keys.is_empty() {
                    self.by_vip.remove_mut(&address);
                }
            }
        }
    }
}

// === impl WorkloadEntry ===

impl WorkloadEntry {
    /// Returns the policies of the workload, of `generation`.
    fn policies(&self, all: &PolicyIndex, generation: u64) -> Arc<WorkloadPolicies> {
        if let Some(known) = &*self.policies.load()
            && known.generation == generation
        {
            return known.policies.clone();
        }
        let policies = Arc::new(WorkloadPolicies::compile(&self.workload, all));
        let evaluator = Evaluator { generation, policies: policies.clone() };
        self.policies.store(Some(Arc::new(evaluator)));
        policies
    }

    /// Of workloads with the same name or address, the greatest counts.
    fn rank(&self, network: &Network) -> (bool, bool, bool) {
        let Workload { uid, network: own, tunnel_protocol, .. } = &*self.workload;
        let is_pod = uid.0.split('/').nth(2) == Some("Pod");
        (own == network, is_pod, *tunnel_protocol == TunnelProtocol::Hbone)
    }
}

/// Adds a workload to those of its name or address; of equals the latest counts.
fn enlist<K: Clone + Eq + std::hash::Hash>(
    index: &mut HashTrieMapSync<K, Namesakes>,
    key: K,
    entry: &Arc<WorkloadEntry>,
    network: &Network,
) {
    let Some(namesakes) = index.get_mut(&key) else {
        index.insert_mut(key, vec![entry.clone()]);
        return;
    };
    let rank = entry.rank(network);
    let place = namesakes.partition_point(|other| other.rank(network) > rank);
    namesakes.insert(place, entry.clone());
}

fn delist<K: Clone + Eq + std::hash::Hash>(
    index: &mut HashTrieMapSync<K, Namesakes>,
    key: &K,
    entry: &Arc<WorkloadEntry>,
) {
    let Some(namesakes) = index.get_mut(key) else { return };
    namesakes.retain(|other| !Arc::ptr_eq(other, entry));
    if namesakes.is_empty() {
        index.remove_mut(key);
    }
}

fn targets(service: &Service, port: u16) -> bool {
    service.ports.iter().any(|p| p.target_port == Some(port))
}

/// Returns the first of the items whose key is greatest.
pub(super) fn first_max<T, K: Ord>(
    items: impl Iterator<Item = T>,
    key: impl Fn(&T) -> K,
) -> Option<T> {
    items.reduce(|best, item| if key(&item) > key(&best) { item } else { best })
}
