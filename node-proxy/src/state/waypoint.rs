//! Waypoints: where they are, and for whom they stand in.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use mesh_api::{
    identity::Namespace,
    workload::{Service, Waypoint, WaypointDestination, Workload},
};

use super::{
    endpoints::Candidate,
    menu::Purpose,
    outbound::{Hop, Transport},
    snapshot::{MeshState, ServiceEntry},
    standing::Moment,
};

/// What a reference to a waypoint leads to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Instances<'a> {
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
        now: Moment,
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
                let candidates = entry.candidates(source, at, Purpose::StandIn, now, pick);
                let hop = |candidate| Hop::through(candidate, target);
                candidates.into_iter().map(hop).collect()
            }
            Some(Instances::One(workload)) => vec![Hop::through_only(workload, at, target)],
            None => Vec::new(),
        }
    }

    /// Returns whether `workload` is an instance of `waypoint`.
    pub(super) fn is_instance(&self, workload: &Workload, waypoint: &Waypoint) -> bool {
        match self.instances(waypoint, workload.namespace()) {
            Some(Instances::Of(entry)) => workload.services.contains_key(&entry.service.key),
            Some(Instances::One(instance)) => {
                let shared = |address| instance.addresses.contains(address);
                instance.identity == workload.identity && workload.addresses.iter().any(shared)
            }
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

    /// Returns what the reference leads to.
    pub(super) fn instances(
        &self,
        waypoint: &Waypoint,
        client: &Namespace,
    ) -> Option<Instances<'_>> {
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
    fn through(Candidate { choice, address }: Candidate, target: SocketAddr) -> Self {
        let transport = Transport::Waypoint { address, expected: choice.expected };
        let (workload, standing) = (Some(choice.workload), Some(choice.standing));
        Self { address: target, workload, transport, standing }
    }

    fn through_only(waypoint: &Arc<Workload>, address: SocketAddr, target: SocketAddr) -> Self {
        let expected = [waypoint.identity.clone()].into();
        let transport = Transport::Waypoint { address, expected };
        Self { address: target, workload: Some(waypoint.clone()), transport, standing: None }
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
