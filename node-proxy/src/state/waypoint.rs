//! Waypoints: where they are, and for whom they stand in.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use mesh_api::{
    identity::{Identity, Namespace},
    workload::{Service, Waypoint, WaypointDestination, Workload},
};

use super::{
    outbound::{Hop, MAX_ATTEMPTS, Transport},
    snapshot::{MeshState, ServiceEntry},
};

/// What a reference to a waypoint leads to.
#[derive(Clone, Copy)]
enum Instances<'a> {
    /// The endpoints of a service.
    Of(ServiceEntry<'a>),
    /// One workload.
    One(&'a Arc<Workload>),
}

// === impl MeshState ===

impl MeshState {
    /// Returns the ways of `source` to `target` through `waypoint`, best first; none if no instance
    /// of it is known and healthy.
    pub(super) fn hops_through(
        &self,
        waypoint: &Waypoint,
        source: &Workload,
        target: SocketAddr,
        pick: impl Fn(u64) -> u64,
    ) -> Vec<Hop> {
        let port = waypoint.hbone_port;
        // The family of the client where there is a choice.
        let at = match &waypoint.destination {
            WaypointDestination::Service(_) => SocketAddr::new(target.ip(), port),
            WaypointDestination::Address(_, address) => SocketAddr::new(*address, port),
        };
        match self.instances(waypoint, source.namespace()) {
            Some(Instances::Of(entry)) => {
                let also = &entry.service.subject_alt_names;
                let hop = |(workload, address)| Hop::through(workload, address, also, target);
                entry.candidates(source, at, pick).take(MAX_ATTEMPTS).map(hop).collect()
            }
            Some(Instances::One(workload)) => vec![Hop::through(workload, at, &[], target)],
            None => Vec::new(),
        }
    }

    /// Returns whether `workload` is an instance of `waypoint`.
    pub(super) fn is_instance(&self, workload: &Workload, waypoint: &Waypoint) -> bool {
        let same = |other: &Workload| {
            let shared = |address| other.addresses.contains(address);
            other.identity == workload.identity && workload.addresses.iter().any(shared)
        };
        match self.instances(waypoint, workload.namespace()) {
            Some(Instances::Of(entry)) => entry.workloads().any(|w| same(w)),
            Some(Instances::One(instance)) => same(instance),
            None => false,
        }
    }

    /// Returns whether `local` is a waypoint that takes connections for `address`.
    pub fn stands_in_for(&self, local: &Workload, address: IpAddr) -> bool {
        let of_workload = self.workload_at(address).map(|workload| workload.waypoint.as_ref());
        let of_service = || {
            let entry = self.service_at(address, local.namespace())?;
            Some(entry.service.waypoint.as_ref())
        };
        let waypoint = of_workload.or_else(of_service).flatten();
        waypoint.is_some_and(|waypoint| self.is_instance(local, waypoint))
    }

    fn instances(&self, waypoint: &Waypoint, client: &Namespace) -> Option<Instances<'_>> {
        match &waypoint.destination {
            WaypointDestination::Service(key) => self.service(key).map(Instances::Of),
            WaypointDestination::Address(network, address) if network == self.network() => {
                let service = self.service_at(*address, client).map(Instances::Of);
                service.or_else(|| self.workload_at(*address).map(Instances::One))
            }
            WaypointDestination::Address(..) => None,
        }
    }
}

// === impl Hop ===

impl Hop {
    fn through(
        waypoint: &Arc<Workload>,
        address: SocketAddr,
        also: &[Identity],
        target: SocketAddr,
    ) -> Self {
        let own = std::iter::once(&waypoint.identity);
        let expected = own.chain(also).cloned().collect();
        let transport = Transport::Waypoint { address, expected };
        Self { address: target, workload: Some(waypoint.clone()), transport }
    }
}

/// Returns the waypoint that a connection to `service` passes: one by weight, as `pick` says, or
/// else the only one.
pub(super) fn choose(service: &Service, pick: impl FnOnce(u64) -> u64) -> Option<&Waypoint> {
    let weighted = &service.weighted_waypoints;
    let total: u64 = weighted.iter().map(|w| u64::from(w.weight)).sum();
    if total == 0 {
        return service.waypoint.as_ref();
    }
    let mut left = pick(total);
    for candidate in weighted {
        let weight = u64::from(candidate.weight);
        if left < weight {
            return Some(&candidate.waypoint);
        }
        left -= weight;
    }
    service.waypoint.as_ref()
}
