//! Where a pod's connection goes.

use std::{net::SocketAddr, sync::Arc};

use fairlead_ebpf::HBONE_PORT;
use mesh_api::{
    identity::Identity,
    workload::{Balancing, Service, TunnelProtocol, Waypoint, Workload},
};

use super::{
    snapshot::{MeshState, ServiceEntry},
    waypoint,
};
use crate::telemetry::reason::CloseReason;

/// Endpoints that are tried before a connection is given up.
pub(super) const MAX_ATTEMPTS: usize = 3;

/// What becomes of a connection whose waypoint is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WithoutWaypoint {
    /// It is refused: nobody would apply the policies that are the waypoint's.
    #[default]
    Refuse,
    /// It goes to its destination without them.
    GoDirectly,
}

/// How bytes travel to the next hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// As they are.
    Plaintext,
    /// Through an HBONE tunnel to the destination's own proxy.
    Hbone {
        /// Identities of which the peer must present one.
        expected: Arc<[Identity]>,
    },
    /// Through an HBONE tunnel to a waypoint, which goes on from there.
    Waypoint {
        /// Where the waypoint takes tunnels.
        address: SocketAddr,
        /// Identities of which the waypoint must present one.
        expected: Arc<[Identity]>,
    },
}

/// One way to reach the destination.
#[derive(Clone, Debug)]
pub struct Hop {
    /// Address of the application, or what the waypoint is asked for.
    pub address: SocketAddr,
    /// Workload at the other end of the hop, if the mesh knows it.
    pub workload: Option<Arc<Workload>>,
    /// How to get there.
    pub transport: Transport,
}

/// The ways to reach the destination, best first, and the service it was reached by.
#[derive(Clone, Debug)]
pub struct Route {
    /// Never empty.
    pub hops: Vec<Hop>,
    /// Service whose address the client used.
    pub service: Option<Arc<Service>>,
}

// === impl MeshState ===

impl MeshState {
    /// Decides where a connection of `source` to `target` goes. `pick` returns a random number
    /// below its argument.
    pub fn route(
        &self,
        source: &Workload,
        target: SocketAddr,
        without: WithoutWaypoint,
        pick: impl Fn(u64) -> u64,
    ) -> Result<Route, CloseReason> {
        let entry = self.service_at(target.ip(), source.namespace());
        let direct = || match entry {
            Some(entry) => service_hops(entry, source, target, &pick),
            None => vec![self.address_hop(target)],
        };
        let bound = match entry {
            Some(entry) => waypoint::choose(entry.service, &pick),
            None => self.waypoint_of_address(source, target),
        };
        let hops = match bound {
            Some(waypoint) => {
                let mut hops = self.hops_through(waypoint, source, target, &pick);
                match without {
                    WithoutWaypoint::GoDirectly => hops.extend(direct()),
                    WithoutWaypoint::Refuse if hops.is_empty() => {
                        return Err(CloseReason::WaypointUnavailable);
                    }
                    WithoutWaypoint::Refuse => {}
                }
                hops
            }
            None => direct(),
        };
        if hops.is_empty() {
            return Err(CloseReason::NoHealthyEndpoint);
        }
        Ok(Route { hops, service: entry.map(|entry| entry.service.clone()) })
    }

    /// Returns the waypoint of the workload at `target`. What comes from that waypoint has passed it.
    fn waypoint_of_address(&self, source: &Workload, target: SocketAddr) -> Option<&Waypoint> {
        let waypoint = self.workload_at(target.ip())?.waypoint.as_ref()?;
        (!self.is_instance(source, waypoint)).then_some(waypoint)
    }

    fn address_hop(&self, target: SocketAddr) -> Hop {
        match self.workload_at(target.ip()) {
            Some(workload) => Hop::to_workload(workload, target, &[]),
            None => Hop::unknown(target),
        }
    }
}

// === impl Hop ===

impl Hop {
    /// Returns where the bytes of this hop are sent.
    pub fn peer_address(&self) -> SocketAddr {
        match &self.transport {
            Transport::Plaintext => self.address,
            Transport::Hbone { .. } => SocketAddr::new(self.address.ip(), HBONE_PORT),
            Transport::Waypoint { address, .. } => *address,
        }
    }

    /// Returns whether both ends prove who they are.
    pub fn is_mutual(&self) -> bool {
        match &self.transport {
            Transport::Plaintext => false,
            Transport::Hbone { .. } | Transport::Waypoint { .. } => true,
        }
    }

    fn unknown(address: SocketAddr) -> Self {
        Self { address, workload: None, transport: Transport::Plaintext }
    }

    fn to_workload(workload: &Arc<Workload>, address: SocketAddr, also: &[Identity]) -> Self {
        let transport = match workload.tunnel_protocol {
            TunnelProtocol::None => Transport::Plaintext,
            TunnelProtocol::Hbone => {
                let own = std::iter::once(&workload.identity);
                Transport::Hbone { expected: own.chain(also).cloned().collect() }
            }
        };
        Self { address, workload: Some(workload.clone()), transport }
    }
}

fn service_hops(
    entry: ServiceEntry<'_>,
    source: &Workload,
    target: SocketAddr,
    pick: impl Fn(u64) -> u64,
) -> Vec<Hop> {
    let service = entry.service;
    if service.balancing == Balancing::Passthrough {
        return vec![Hop::unknown(target)];
    }
    let hop = |(workload, address)| Hop::to_workload(workload, address, &service.subject_alt_names);
    entry.candidates(source, target, pick).take(MAX_ATTEMPTS).map(hop).collect()
}
