//! The snapshot and its indexes.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, OnceLock},
};

use ipnet::IpNet;
use mesh_api::{
    config::MeshConfig,
    identity::{Identity, Namespace},
    policy::{PolicyIndex, WorkloadPolicies},
    workload::{Health, Network, NetworkMode, Service, ServiceKey, Workload, WorkloadUid},
};

use super::endpoints::Endpoint;

/// A workload and what follows from the rest of the configuration.
#[derive(Debug)]
pub struct WorkloadEntry {
    /// The workload.
    pub workload: Arc<Workload>,
    /// Compiled when first asked for: only workloads of this node ever are.
    policies: OnceLock<Arc<WorkloadPolicies>>,
}

/// A service and its endpoints.
#[derive(Debug)]
pub struct ServiceEntry {
    /// The service.
    pub service: Arc<Service>,
    /// Workloads that take its connections.
    pub endpoints: Vec<Endpoint>,
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
#[derive(Debug, Default)]
pub struct MeshState {
    network: Network,
    workloads: HashMap<WorkloadUid, WorkloadEntry>,
    by_name: HashMap<Namespace, HashMap<Arc<str>, WorkloadUid>>,
    by_address: HashMap<IpAddr, WorkloadUid>,
    services: HashMap<ServiceKey, ServiceEntry>,
    by_vip: HashMap<IpAddr, Vec<ServiceKey>>,
    by_range: Vec<(IpNet, ServiceKey)>,
    policies: PolicyIndex,
}

// === impl MeshState ===

impl MeshState {
    /// Indexes `config` as seen from `network`.
    pub fn new(config: MeshConfig, network: Network) -> Self {
        let mut state =
            Self { network, policies: PolicyIndex::new(config.policies), ..Self::default() };
        for service in config.services {
            state.insert_service(service);
        }
        for workload in config.workloads {
            state.insert_workload(workload);
        }
        state
    }

    /// Returns the workload that owns `address`. Host-network workloads own none.
    pub fn workload_at(&self, address: IpAddr) -> Option<&Arc<Workload>> {
        let uid = self.by_address.get(&address)?;
        self.workloads.get(uid).map(|entry| &entry.workload)
    }

    /// Returns the workload of an enrolled pod, if what is known of it agrees with `identity`.
    pub fn local_workload(&self, name: &str, identity: &Identity) -> Option<LocalWorkload> {
        let uid = self.by_name.get(&identity.namespace)?.get(name)?;
        let entry = self.workloads.get(uid).filter(|e| e.workload.identity == *identity)?;
        let policies = entry
            .policies
            .get_or_init(|| Arc::new(WorkloadPolicies::compile(&entry.workload, &self.policies)));
        Some(LocalWorkload { workload: entry.workload.clone(), policies: policies.clone() })
    }

    /// Returns the service that a client in `namespace` means by `address`: the one of its own
    /// namespace, else the canonical one, else the first; an exact address before a range, and a
    /// narrow range before a wide one.
    pub fn service_at(&self, address: IpAddr, namespace: &Namespace) -> Option<&ServiceEntry> {
        let exact = self.by_vip.get(&address).into_iter().flatten();
        let rank = |entry: &&ServiceEntry| {
            (entry.service.key.namespace == *namespace, entry.service.canonical)
        };
        if let Some(best) = first_max(self.visible(exact, namespace), rank) {
            return Some(best);
        }
        let ranges = self.by_range.iter().filter(|(range, _)| range.contains(&address));
        let ranked = ranges.filter_map(|(range, key)| {
            let entry = self.visible([key], namespace).next()?;
            Some((range.prefix_len(), entry))
        });
        first_max(ranked, |(length, entry)| (rank(entry).0, *length, rank(entry).1))
            .map(|(_, entry)| entry)
    }

    /// Returns the service with `key`.
    pub fn service(&self, key: &ServiceKey) -> Option<&ServiceEntry> {
        self.services.get(key)
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
                    || self.services.get(key).is_some_and(|entry| entry.targets(port))
            })
        };
        let key = named.or_else(|| by_port().map(|(key, _)| key))?;
        self.services.get(key).map(|entry| &entry.service)
    }

    fn visible<'a>(
        &'a self,
        keys: impl IntoIterator<Item = &'a ServiceKey>,
        namespace: &Namespace,
    ) -> impl Iterator<Item = &'a ServiceEntry> {
        keys.into_iter().filter_map(|key| self.services.get(key)).filter(move |entry| {
            !entry.service.namespace_local || entry.service.key.namespace == *namespace
        })
    }

    fn insert_service(&mut self, service: Service) {
        for vip in service.addresses.iter().filter(|vip| vip.network == self.network) {
            if vip.address.prefix_len() == vip.address.max_prefix_len() {
                self.by_vip.entry(vip.address.addr()).or_default().push(service.key.clone());
            } else {
                self.by_range.push((vip.address, service.key.clone()));
            }
        }
        let entry = ServiceEntry { service: Arc::new(service), endpoints: Vec::new() };
        self.services.insert(entry.service.key.clone(), entry);
    }

    fn insert_workload(&mut self, workload: Workload) {
        let workload = Arc::new(workload);
        let uid = &workload.uid;
        for (key, ports) in &workload.services {
            let Some(entry) = self.services.get_mut(key) else { continue };
            if workload.health == Health::Healthy || entry.service.allow_unhealthy {
                entry.endpoints.push(Endpoint::new(workload.clone(), ports.clone()));
            }
        }
        if workload.network == self.network && workload.network_mode == NetworkMode::Standard {
            for address in &workload.addresses {
                self.by_address.insert(*address, uid.clone());
            }
        }
        let names = self.by_name.entry(workload.namespace().clone()).or_default();
        names.insert(workload.name.clone(), uid.clone());
        let entry = WorkloadEntry { workload: workload.clone(), policies: OnceLock::new() };
        self.workloads.insert(uid.clone(), entry);
    }
}

// === impl ServiceEntry ===

impl ServiceEntry {
    fn targets(&self, port: u16) -> bool {
        self.service.ports.iter().any(|p| p.target_port == Some(port))
    }
}

/// Returns the first of the items whose key is greatest.
fn first_max<T, K: Ord>(items: impl Iterator<Item = T>, key: impl Fn(&T) -> K) -> Option<T> {
    items.reduce(|best, item| if key(&item) > key(&best) { item } else { best })
}
