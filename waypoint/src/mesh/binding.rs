//! What this waypoint stands in for: what is bound to it, and nothing else. A proxy to anywhere would
//! lend its own identity to whoever asks.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use mesh_api::workload::{GatewayAddress, GatewayDestination, Service, Workload};
use tokio::sync::Notify;

use super::snapshot::Snapshot;

/// That a service is bound to this waypoint, from when it begins to when it ends.
#[derive(Debug, Default)]
pub struct Binding {
    is_over: AtomicBool,
    ended: Notify,
}

// === impl Binding ===

impl Binding {
    /// Returns whether it has ended.
    pub fn is_over(&self) -> bool {
        self.is_over.load(Relaxed)
    }

    /// Waits for its end.
    pub async fn over(&self) {
        let ended = self.ended.notified();
        if !self.is_over() {
            ended.await;
        }
    }

    pub(super) fn end(&self) {
        self.is_over.store(true, Relaxed);
        self.ended.notify_waiters();
    }
}

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
