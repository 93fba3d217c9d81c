//! Choice of a service's endpoint.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use mesh_api::workload::{Health, IpFamilies, Service, Workload};

use super::snapshot::ServiceEntry;

/// A workload that belongs to a service.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The workload.
    pub workload: Arc<Workload>,
    ports: Arc<BTreeMap<u16, u16>>,
}

// === impl Endpoint ===

impl Endpoint {
    pub(super) fn new(workload: Arc<Workload>, ports: BTreeMap<u16, u16>) -> Self {
        Self { workload, ports: Arc::new(ports) }
    }

    /// Returns where the endpoint takes connections to `target` of `service`, if it does.
    fn address_for(&self, service: &Service, target: SocketAddr) -> Option<SocketAddr> {
        let healthy = self.workload.health == Health::Healthy || service.allow_unhealthy;
        if !healthy || self.workload.capacity == 0 {
            return None;
        }
        let declared = service.ports.iter().find(|p| p.service_port == target.port())?;
        let port = self.ports.get(&target.port()).copied().or(declared.target_port)?;
        let address = choose_address(&self.workload.addresses, service.ip_families, target.ip())?;
        Some(SocketAddr::new(address, port))
    }
}

// === impl ServiceEntry ===

impl<'a> ServiceEntry<'a> {
    /// Returns the endpoints that can take a connection to `target`, in the order to try them:
    /// a random one by capacity first, as `pick` says, which returns a number below its argument.
    pub fn candidates(
        self,
        target: SocketAddr,
        pick: impl FnOnce(u64) -> u64,
    ) -> impl Iterator<Item = (&'a Arc<Workload>, SocketAddr)> {
        let first = self.first_candidate(target, pick);
        let around = self.endpoints[first..].iter().chain(&self.endpoints[..first]);
        around.filter_map(move |endpoint| {
            let address = endpoint.address_for(self.service, target)?;
            Some((&endpoint.workload, address))
        })
    }

    fn first_candidate(self, target: SocketAddr, pick: impl FnOnce(u64) -> u64) -> usize {
        let usable = |e: &&Endpoint| e.address_for(self.service, target).is_some();
        let capacity = |e: &Endpoint| u64::from(e.workload.capacity);
        let total: u64 = self.endpoints.iter().filter(usable).map(capacity).sum();
        if total == 0 {
            return 0;
        }
        let mut left = pick(total);
        for (index, endpoint) in self.endpoints.iter().enumerate() {
            if !usable(&endpoint) {
                continue;
            }
            if left < capacity(endpoint) {
                return index;
            }
            left -= capacity(endpoint);
        }
        0
    }
}

/// Prefers the target's own address, then its family, then any that the service allows.
fn choose_address(addresses: &[IpAddr], families: IpFamilies, target: IpAddr) -> Option<IpAddr> {
    if addresses.contains(&target) {
        return Some(target);
    }
    let allowed = |address: &&IpAddr| match families {
        IpFamilies::Automatic | IpFamilies::Dual => true,
        IpFamilies::V4Only => address.is_ipv4(),
        IpFamilies::V6Only => address.is_ipv6(),
    };
    let same_family = |address: &&IpAddr| address.is_ipv4() == target.is_ipv4();
    let mut usable = addresses.iter().filter(allowed);
    usable.clone().find(same_family).or_else(|| usable.next()).copied()
}
