//! What this waypoint stands in for: what is bound to it, and nothing else. A proxy to anywhere would
//! lend its own identity to whoever asks.

use mesh_api::workload::{GatewayAddress, GatewayDestination, Service, Workload};

use super::snapshot::Snapshot;

// === impl Snapshot ===

impl Snapshot {
    /// Returns whether connections to a service are to pass this waypoint, all or some of them.
    pub(super) fn stands_in_for_service(&self, service: &Service) -> bool {
        let weighted = service.weighted_waypoints.iter().map(|weighted| &weighted.waypoint);
        service.waypoint.iter().chain(weighted).any(|waypoint| self.is_instance_of(waypoint))
    }

    /// Returns whether connections to a workload's own addresses are to pass this waypoint.
    pub(super) fn stands_in_for_workload(&self, workload: &Workload) -> bool {
        workload.waypoint.as_ref().is_some_and(|waypoint| self.is_instance_of(waypoint))
    }

    /// Returns whether a reference to a waypoint leads to this one: to a service that it is behind, or
    /// to itself.
    fn is_instance_of(&self, waypoint: &GatewayAddress) -> bool {
        let own = self.own();
        match &waypoint.destination {
            GatewayDestination::Hostname(key) => {
                let is_own_name = own.hostname.as_ref() == Some(&key.hostname)
                    && own.identity.namespace == key.namespace;
                is_own_name || own.services.contains_key(key)
            }
            GatewayDestination::Address(network, address) if *network == own.network => {
                let service = self.by_vip.get(address);
                own.addresses.contains(address)
                    || service.is_some_and(|key| own.services.contains_key(key))
            }
            GatewayDestination::Address(..) => false,
        }
    }
}
