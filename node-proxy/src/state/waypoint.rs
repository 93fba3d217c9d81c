//! Waypoints: for whom they stand in, and the ways through them.

use std::{net::IpAddr, sync::Arc};

use mesh_api::workload::{GatewayAddress, Service, Workload};

use super::{
    gateway::{Instance, Instances},
    menu::{MAX_ATTEMPTS, Purpose},
    outbound::{Hop, Inquiry, Transport},
    snapshot::MeshState,
};

// === impl MeshState ===

impl MeshState {
    /// Returns the ways through `waypoint`, best first; none if no instance of it is known and
    /// healthy. One on another network is reached through the gateway there, for `service` only.
    pub(super) fn hops_through(
        &self,
        waypoint: &GatewayAddress,
        service: Option<&Arc<Service>>,
        inquiry: Inquiry<'_>,
    ) -> Vec<Hop> {
        let hops = |instance: Instance| {
            let Instance { workload, way, expected, standing } = instance;
            match (way.place(inquiry.target), service) {
                (Some((address, hostname)), _) => {
                    let transport = Transport::Waypoint { address, expected };
                    let (address, workload) = (inquiry.target, Some(workload));
                    vec![Hop { address, hostname, workload, transport, standing }]
                }
                (None, Some(service)) => {
                    self.hops_across(&workload, standing.as_ref(), service, inquiry)
                }
                // Pods are reached by their addresses in their own network only.
                (None, None) => Vec::new(),
            }
        };
        let instances = self.instances_for(waypoint, Purpose::StandIn, inquiry);
        instances.into_iter().flat_map(hops).take(MAX_ATTEMPTS).collect()
    }

    /// Returns whether `workload` is an instance of `waypoint`.
    pub(super) fn is_instance(&self, workload: &Workload, waypoint: &GatewayAddress) -> bool {
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
}

/// Returns the waypoint that a connection to `service` passes: one by weight, as `pick` says, or
/// else the only one.
pub(super) fn choose(service: &Service, pick: impl FnOnce(u64) -> u64) -> Option<&GatewayAddress> {
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
