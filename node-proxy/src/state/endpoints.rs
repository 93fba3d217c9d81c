//! Choice of a service's endpoint.
//!
//! Endpoints are kept by where they run: a connection ranks places, of which there are few, and then
//! looks at the endpoints of the best ones.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use mesh_api::workload::{Health, IpFamilies, Service, Workload};

use super::{
    proximity::{Preference, is_same_place},
    snapshot::ServiceEntry,
};

/// A workload that belongs to a service.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    workload: Arc<Workload>,
    ports: Arc<BTreeMap<u16, u16>>,
}

/// Endpoints of a service that run in the same place; never empty.
#[derive(Clone, Debug)]
pub(super) struct Place(Arc<Vec<Endpoint>>);

/// The endpoints of a service. A copy shares what a change of it does not touch.
#[derive(Clone, Debug)]
pub(super) struct Endpoints(Arc<Vec<Place>>);

/// An endpoint and where it takes the connection.
type Candidate<'a> = (&'a Arc<Workload>, SocketAddr);

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

// === impl Place ===

impl Place {
    fn holds(&self, workload: &Workload) -> bool {
        self.0.first().is_some_and(|first| is_same_place(&first.workload, workload))
    }

    fn rank(&self, preference: Preference<'_>, client: &Workload) -> Option<usize> {
        self.0.first().map(|first| preference.rank(client, &first.workload))
    }
}

// === impl Endpoints ===

impl Endpoints {
    pub(super) fn places(&self) -> &[Place] {
        &self.0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn insert(&mut self, endpoint: Endpoint) {
        let places = Arc::make_mut(&mut self.0);
        match places.iter_mut().find(|place| place.holds(&endpoint.workload)) {
            Some(place) => Arc::make_mut(&mut place.0).push(endpoint),
            None => places.push(Place(Arc::new(vec![endpoint]))),
        }
    }

    pub(super) fn remove(&mut self, workload: &Arc<Workload>) {
        let places = Arc::make_mut(&mut self.0);
        let Some(index) = places.iter().position(|place| place.holds(workload)) else { return };
        let endpoints = Arc::make_mut(&mut places[index].0);
        endpoints.retain(|endpoint| !Arc::ptr_eq(&endpoint.workload, workload));
        if endpoints.is_empty() {
            places.remove(index);
        }
    }
}

impl From<Endpoint> for Endpoints {
    fn from(endpoint: Endpoint) -> Self {
        Self(Arc::new(vec![Place(Arc::new(vec![endpoint]))]))
    }
}

// === impl ServiceEntry ===

impl<'a> ServiceEntry<'a> {
    /// Returns the endpoints that can take a connection of `client` to `target`, in the order to try
    /// them: those that the service prefers for the client before others, and of equals a random
    /// one by capacity first, as `pick` says, which returns a number below its argument.
    pub fn candidates(
        self,
        client: &'a Workload,
        target: SocketAddr,
        pick: impl Fn(u64) -> u64,
    ) -> impl Iterator<Item = (&'a Arc<Workload>, SocketAddr)> {
        let preference = Preference::new(&self.service.balancing);
        preference.ranks().rev().flat_map(move |rank| {
            let places = self.places.iter();
            let places = places.filter(move |p| p.rank(preference, client) == Some(rank));
            let usable = places.flat_map(|place| &*place.0).filter_map(move |endpoint| {
                let address = endpoint.address_for(self.service, target)?;
                Some((&endpoint.workload, address))
            });
            let first = first(usable.clone(), &pick);
            usable.clone().skip(first).chain(usable.take(first))
        })
    }

    /// Returns the workloads that belong to the service, healthy or not.
    pub fn workloads(self) -> impl Iterator<Item = &'a Arc<Workload>> {
        self.places.iter().flat_map(|place| &*place.0).map(|endpoint| &endpoint.workload)
    }
}

/// Returns which of the candidates is the first to try.
fn first<'a>(
    candidates: impl Iterator<Item = Candidate<'a>> + Clone,
    pick: impl FnOnce(u64) -> u64,
) -> usize {
    let capacities = candidates.map(|(workload, _)| u64::from(workload.capacity));
    let total = capacities.clone().sum();
    if total == 0 {
        return 0;
    }
    let mut left = pick(total);
    let is_passed = |capacity: &u64| match left.checked_sub(*capacity) {
        Some(rest) => {
            left = rest;
            true
        }
        None => false,
    };
    capacities.take_while(is_passed).count()
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
