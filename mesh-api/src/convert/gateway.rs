//! References to proxies that take connections for others.

use super::{InvalidField, Problem, address, name, port, required};
use crate::{
    proto::workload::{self as proto, gateway_address::Destination},
    workload::{GatewayAddress, GatewayDestination, Network, ServiceKey, WeightedWaypoint},
};

/// Port of a gateway that names none.
const DEFAULT_HBONE_PORT: u16 = 15008;

// === impl GatewayAddress ===

impl TryFrom<proto::GatewayAddress> for GatewayAddress {
    type Error = InvalidField;

    fn try_from(wire: proto::GatewayAddress) -> Result<Self, InvalidField> {
        let destination = match wire.destination {
            Some(Destination::Hostname(hostname)) => GatewayDestination::Hostname(ServiceKey {
                namespace: name("hostname.namespace", &hostname.namespace)?,
                hostname: required("hostname.hostname", hostname.hostname)?.into(),
            }),
            Some(Destination::Address(at)) => {
                let at_address = |problem: Problem| problem.at("address");
                let bits = at.length.map(|length| length as usize);
                if bits.is_some_and(|bits| bits != at.address.len() * u8::BITS as usize) {
                    return Err(at_address(Problem::Range));
                }
                let ip = address(&at.address).map_err(at_address)?;
                GatewayDestination::Address(Network(at.network.into()), ip)
            }
            None => return Err(Problem::Missing.at("")),
        };
        let hbone_port = match wire.hbone_mtls_port {
            0 => DEFAULT_HBONE_PORT,
            number => port(number).map_err(|problem| problem.at("hbone_mtls_port"))?,
        };
        Ok(Self { destination, hbone_port })
    }
}

// === impl WeightedWaypoint ===

impl TryFrom<proto::WeightedWaypoint> for WeightedWaypoint {
    type Error = InvalidField;

    fn try_from(wire: proto::WeightedWaypoint) -> Result<Self, InvalidField> {
        let waypoint = gateway("destination", wire.destination)?;
        let waypoint = waypoint.ok_or_else(|| Problem::Missing.at("destination"))?;
        Ok(Self { waypoint, weight: wire.weight })
    }
}

/// Returns the gateway that `field` refers to, if it is set.
pub(super) fn gateway(
    field: &str,
    wire: Option<proto::GatewayAddress>,
) -> Result<Option<GatewayAddress>, InvalidField> {
    let gateway = wire.map(GatewayAddress::try_from).transpose();
    gateway.map_err(|error| error.within(field))
}
