//! Services.

use std::{collections::HashSet, sync::Arc};

use super::{
    InvalidField, Problem, enumeration, gateway::gateway, list, name, port, port_names, range,
    required,
};
use crate::{
    proto::workload as proto,
    workload::{
        AppProtocol, Balancing, IpFamilies, Network, Scope, Service, ServiceAddress, ServiceKey,
        ServicePort, WeightedWaypoint,
    },
};

// === impl Service ===

impl TryFrom<proto::Service> for Service {
    type Error = InvalidField;

    fn try_from(wire: proto::Service) -> Result<Self, InvalidField> {
        let (allow_unhealthy, balancing) = load_balancing(wire.load_balancing.as_ref())
            .map_err(|error| error.within("load_balancing"))?;
        Ok(Self {
            key: ServiceKey {
                namespace: name("namespace", &wire.namespace)?,
                hostname: required("hostname", wire.hostname)?.into(),
            },
            name: wire.name.into(),
            addresses: list("addresses", wire.addresses, ServiceAddress::try_from)?,
            ports: ports(&wire.ports)?,
            port_names: port_names::read(&wire.extensions)?,
            subject_alt_names: list("subject_alt_names", wire.subject_alt_names, |text| {
                name("", &text)
            })?,
            waypoint: gateway("waypoint", wire.waypoint)?,
            weighted_waypoints: list(
                "weighted_waypoints",
                wire.weighted_waypoints,
                WeightedWaypoint::try_from,
            )?,
            ip_families: ip_families(wire.ip_families)?,
            canonical: wire.canonical,
            namespace_local: namespace_local(wire.visibility)?,
            allow_unhealthy,
            balancing,
        })
    }
}

// === impl ServiceAddress ===

impl TryFrom<proto::NetworkAddress> for ServiceAddress {
    type Error = InvalidField;

    fn try_from(wire: proto::NetworkAddress) -> Result<Self, InvalidField> {
        let bits = u32::try_from(wire.address.len()).map_or(u32::MAX, |bytes| bytes * u8::BITS);
        let address =
            range(&wire.address, wire.length.unwrap_or(bits)).map_err(|problem| problem.at(""))?;
        Ok(Self { network: Network(wire.network.into()), address })
    }
}

// === impl ServicePort ===

impl TryFrom<&proto::Port> for ServicePort {
    type Error = InvalidField;

    fn try_from(wire: &proto::Port) -> Result<Self, InvalidField> {
        let convert = |field, number| port(number).map_err(|problem| problem.at(field));
        let target_port = match wire.target_port {
            0 => None,
            number => Some(convert("target_port", number)?),
        };
        let service_port = convert("service_port", wire.service_port)?;
        Ok(Self { service_port, target_port, protocol: protocol(wire.app_protocol) })
    }
}

/// A protocol that later versions may add is found out as one that is not declared.
fn protocol(wire: i32) -> AppProtocol {
    match proto::AppProtocol::try_from(wire) {
        Ok(proto::AppProtocol::Unknown) | Err(_) => AppProtocol::Unknown,
        Ok(proto::AppProtocol::Http11) => AppProtocol::Http1,
        Ok(proto::AppProtocol::Http2) => AppProtocol::Http2,
        Ok(proto::AppProtocol::Grpc) => AppProtocol::Grpc,
        Ok(proto::AppProtocol::Tcp) => AppProtocol::Tcp,
        Ok(proto::AppProtocol::Tls) => AppProtocol::Tls,
    }
}

/// Returns whether unhealthy endpoints are candidates, and which of the candidates is chosen.
fn load_balancing(wire: Option<&proto::LoadBalancing>) -> Result<(bool, Balancing), InvalidField> {
    use proto::load_balancing::{HealthPolicy, Mode};

    let Some(wire) = wire else { return Ok((false, Balancing::Even)) };
    let scopes = scopes(&wire.routing_preference)?;
    let balancing = match enumeration("mode", wire.mode)? {
        Mode::UnspecifiedMode => Balancing::Even,
        Mode::Passthrough => Balancing::Passthrough,
        Mode::Strict => Balancing::Strict(scopes),
        Mode::Failover => Balancing::Failover(scopes),
    };
    let allow_unhealthy = match enumeration("health_policy", wire.health_policy)? {
        HealthPolicy::OnlyHealthy => false,
        HealthPolicy::AllowAll => true,
    };
    Ok((allow_unhealthy, balancing))
}

/// Returns the scopes of a preference. Each counts where it is first named, so that a preference has
/// no more parts than there are scopes.
fn scopes(numbers: &[i32]) -> Result<Arc<[Scope]>, InvalidField> {
    let mut scopes = Vec::new();
    for (i, number) in numbers.iter().enumerate() {
        let scope = scope(&format!("routing_preference[{i}]"), *number)?;
        if !scopes.contains(&scope) {
            scopes.push(scope);
        }
    }
    Ok(scopes.into())
}

fn scope(field: &str, number: i32) -> Result<Scope, InvalidField> {
    let scope: proto::load_balancing::Scope = enumeration(field, number)?;
    match scope {
        proto::load_balancing::Scope::Region => Ok(Scope::Region),
        proto::load_balancing::Scope::Zone => Ok(Scope::Zone),
        proto::load_balancing::Scope::Subzone => Ok(Scope::Subzone),
        proto::load_balancing::Scope::Node => Ok(Scope::Node),
        proto::load_balancing::Scope::Cluster => Ok(Scope::Cluster),
        proto::load_balancing::Scope::Network => Ok(Scope::Network),
        proto::load_balancing::Scope::Unspecified => {
            Err(Problem::UnsupportedValue(scope.as_str_name()).at(field))
        }
    }
}

fn ports(wire: &[proto::Port]) -> Result<Vec<ServicePort>, InvalidField> {
    let mut seen = HashSet::new();
    let ports = list("ports", wire, ServicePort::try_from)?;
    for (i, ServicePort { service_port, .. }) in ports.iter().enumerate() {
        if !seen.insert(*service_port) {
            let field = format!("ports[{i}].service_port");
            return Err(Problem::DuplicatePort(*service_port).at(&field));
        }
    }
    Ok(ports)
}

fn ip_families(number: i32) -> Result<IpFamilies, InvalidField> {
    Ok(match enumeration("ip_families", number)? {
        proto::IpFamilies::Automatic => IpFamilies::Automatic,
        proto::IpFamilies::Ipv4Only => IpFamilies::V4Only,
        proto::IpFamilies::Ipv6Only => IpFamilies::V6Only,
        proto::IpFamilies::Dual => IpFamilies::Dual,
    })
}

fn namespace_local(number: i32) -> Result<bool, InvalidField> {
    Ok(match enumeration("visibility", number)? {
        proto::Visibility::Public => false,
        proto::Visibility::Namespace => true,
    })
}
