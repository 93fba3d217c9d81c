//! Where a pod's connection goes.

use std::{net::SocketAddr, sync::Arc};

use mesh_api::{
    identity::Identity,
    workload::{Service, TunnelProtocol, Workload},
};

use super::snapshot::{MeshState, ServiceEntry};
use crate::telemetry::reason::CloseReason;

/// Endpoints that are tried before a connection is given up.
const MAX_ATTEMPTS: usize = 3;

/// How bytes travel to the next hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// As they are.
    Plaintext,
    /// Through an HBONE tunnel to a peer with one of these identities.
    Hbone {
        /// Identities of which the peer must present one.
        expected: Arc<[Identity]>,
    },
}

/// One way to reach the destination.
#[derive(Clone, Debug)]
pub struct Hop {
    /// Address of the application.
    pub address: SocketAddr,
    /// Workload that owns the address, if the mesh knows it.
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
        pick: impl FnOnce(u64) -> u64,
    ) -> Result<Route, CloseReason> {
        if let Some(service) = self.service_at(target.ip(), source.namespace()) {
            return service_route(service, target, pick);
        }
        let hop = match self.workload_at(target.ip()) {
            Some(workload) => Hop::to_workload(workload, target, &[]),
            None => Hop::unknown(target),
        };
        Ok(Route { hops: vec![hop], service: None })
    }
}

// === impl Hop ===

impl Hop {
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

fn service_route(
    entry: &ServiceEntry,
    target: SocketAddr,
    pick: impl FnOnce(u64) -> u64,
) -> Result<Route, CloseReason> {
    let service = &entry.service;
    if service.passthrough {
        let service = Some(service.clone());
        return Ok(Route { hops: vec![Hop::unknown(target)], service });
    }
    let hops: Vec<_> = entry
        .candidates(target, pick)
        .take(MAX_ATTEMPTS)
        .map(|(workload, address)| Hop::to_workload(workload, address, &service.subject_alt_names))
        .collect();
    if hops.is_empty() {
        return Err(CloseReason::NoHealthyEndpoint);
    }
    Ok(Route { hops, service: Some(service.clone()) })
}
