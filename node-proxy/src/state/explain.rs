//! What the mesh says about a connection, in words; computed by what decides about it.

use std::net::SocketAddr;

use mesh_api::workload::{Balancing, GatewayAddress, GatewayDestination, Workload};

use super::{
    gateway::Instances,
    menu::{LeftOut, Purpose},
    outbound::Destination,
    snapshot::{MeshState, ServiceEntry},
    standing::Moment,
};
use crate::explain::{self, DestinationKind, Endpoint, Endpoints, MAX_ENDPOINTS_LISTED, name};

/// What the mesh says about a destination.
#[derive(Clone, Debug)]
pub struct Bearings {
    /// What the address stands for.
    pub destination: explain::Destination,
    /// The waypoint that connections pass.
    pub waypoint: Option<String>,
    /// What there is to choose from.
    pub endpoints: Option<Endpoints>,
}

// === impl MeshState ===

impl MeshState {
    /// Returns what a connection of `source` to `target` finds there. `pick` returns a random number
    /// below its argument.
    pub fn bearings(
        &self,
        source: &Workload,
        target: SocketAddr,
        now: Moment,
        pick: impl Fn(u64) -> u64,
    ) -> Bearings {
        let destination = self.destination(target, source.namespace());
        let waypoint = self.binding(destination, source, pick);
        let from = match waypoint {
            Some(waypoint) => match self.instances(waypoint, source.namespace()) {
                Some(Instances::Of(entry)) => Some((entry, waypoint.hbone_port, Purpose::StandIn)),
                Some(Instances::One(_)) | None => None,
            },
            None => match destination {
                Destination::Service(entry)
                    if entry.service.balancing != Balancing::Passthrough =>
                {
                    Some((entry, target.port(), Purpose::Serve))
                }
                Destination::Service(_)
                | Destination::Workload(_)
                | Destination::Host
                | Destination::Unknown => None,
            },
        };
        Bearings {
            destination: destination.describe(),
            waypoint: waypoint.map(describe),
            endpoints: from
                .map(|(entry, port, purpose)| entry.describe(source, port, purpose, now)),
        }
    }
}

// === impl Destination ===

impl Destination<'_> {
    fn describe(self) -> explain::Destination {
        let (kind, name) = match self {
            Self::Service(entry) => (DestinationKind::Service, Some(name(&entry.service.key))),
            Self::Workload(workload) => (DestinationKind::Workload, Some(workload_name(workload))),
            Self::Host => (DestinationKind::Node, None),
            Self::Unknown => (DestinationKind::Unknown, None),
        };
        explain::Destination { kind, name }
    }
}

// === impl ServiceEntry ===

impl ServiceEntry<'_> {
    fn describe(self, client: &Workload, port: u16, purpose: Purpose, now: Moment) -> Endpoints {
        let menu = self.menu(client, port, purpose);
        let tiers = menu.tiers().iter();
        let listed = tiers.clone().flat_map(|tier| {
            tier.choices.iter().map(|choice| Endpoint {
                workload: workload_name(&choice.workload),
                node: name(&choice.workload.node.0),
                rank: tier.rank,
                capacity: choice.workload.capacity,
                set_aside: choice.standing.is_set_aside(now),
            })
        });
        Endpoints {
            service: name(&self.service.key),
            usable: tiers.map(|tier| tier.choices.len()).sum(),
            listed: listed.take(MAX_ENDPOINTS_LISTED).collect(),
            left_out: menu.left_out.describe(),
        }
    }
}

// === impl LeftOut ===

impl LeftOut {
    fn describe(self) -> Vec<explain::LeftOut> {
        let Self {
            unhealthy,
            without_share,
            without_port,
            without_address,
            without_gateway,
            without_identity,
            elsewhere,
        } = self;
        let causes = [
            (unhealthy, "not ready"),
            (without_share, "of capacity 0"),
            (without_port, "without that port"),
            (without_address, "without an address of a family that the service allows"),
            (without_gateway, "on another network that has no gateway"),
            (without_identity, "on another network, of a service that names no identities"),
            (elsewhere, "not where the service wants connections of this pod to go"),
        ];
        let some = causes.into_iter().filter(|(count, _)| *count > 0);
        some.map(|(count, because)| explain::LeftOut { count, because: because.to_owned() })
            .collect()
    }
}

/// Returns the name of a workload as answers show it.
pub fn workload_name(workload: &Workload) -> String {
    name(&format_args!("{}/{}", workload.namespace(), workload.name))
}

fn describe(waypoint: &GatewayAddress) -> String {
    let port = waypoint.hbone_port;
    match &waypoint.destination {
        GatewayDestination::Hostname(key) => name(&format_args!("{key}:{port}")),
        GatewayDestination::Address(_, address) => name(&SocketAddr::new(*address, port)),
    }
}
