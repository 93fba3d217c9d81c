//! Workloads.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use super::{
    InvalidField, Problem, address, enumeration, gateway::gateway, list, name, outbound,
    policy_key, port, required, service_key,
};
use crate::{
    identity::{Identity, ServiceAccount, TrustDomain},
    proto::workload as proto,
    workload::{
        ApplicationTunnel, Health, Locality, Network, NetworkMode, NodeName, ServiceKey,
        TunnelProtocol, Workload, WorkloadType, WorkloadUid,
    },
};

const DEFAULT_SERVICE_ACCOUNT: &str = "default";
const DEFAULT_CLUSTER: &str = "Kubernetes";
const DEFAULT_CAPACITY: u32 = 1;

/// Longest host name, in bytes, and longest part of one between dots (RFC 1035 section 2.3.4).
const MAX_HOSTNAME_BYTES: usize = 253;
const MAX_LABEL_BYTES: usize = 63;

// === impl Workload ===

impl TryFrom<proto::Workload> for Workload {
    type Error = InvalidField;

    fn try_from(wire: proto::Workload) -> Result<Self, InvalidField> {
        Ok(Self {
            hostname: hostname(&wire)?,
            identity: identity(&wire)?,
            tunnel_protocol: tunnel_protocol(&wire)?,
            workload_type: workload_type(&wire)?,
            health: health(&wire)?,
            network_mode: network_mode(&wire)?,
            uid: WorkloadUid(required("uid", wire.uid)?.into()),
            // A bare pod is its own owner.
            workload_name: or_default(&wire.workload_name, &wire.name).into(),
            name: wire.name.into(),
            addresses: list("addresses", wire.addresses, |octets| {
                address(&octets).map_err(|problem| problem.at(""))
            })?,
            network: Network(wire.network.into()),
            network_gateway: gateway("network_gateway", wire.network_gateway)?,
            node: NodeName(wire.node.into()),
            canonical_name: wire.canonical_name.into(),
            canonical_revision: wire.canonical_revision.into(),
            cluster_id: or_default(&wire.cluster_id, DEFAULT_CLUSTER).into(),
            locality: wire.locality.map(Locality::from).unwrap_or_default(),
            services: services(wire.services)?,
            waypoint: gateway("waypoint", wire.waypoint)?,
            authorization_policies: list(
                "authorization_policies",
                wire.authorization_policies,
                |key| policy_key(&key).map_err(|problem| problem.at("")),
            )?,
            application_tunnel: wire.application_tunnel.map(application_tunnel).transpose()?,
            unknown_destinations: outbound::unknown_destinations(&wire.extensions)?,
            capacity: wire.capacity.unwrap_or(DEFAULT_CAPACITY),
        })
    }
}

// === impl Locality ===

impl From<proto::Locality> for Locality {
    fn from(wire: proto::Locality) -> Self {
        Self { region: wire.region.into(), zone: wire.zone.into(), subzone: wire.subzone.into() }
    }
}

/// Returns the name of a workload, which stands for its addresses if it has none. What only a gateway
/// leads to needs neither.
fn hostname(wire: &proto::Workload) -> Result<Option<Arc<str>>, InvalidField> {
    let name = wire.hostname.as_str();
    match (wire.addresses.is_empty(), name) {
        (false, _) => Ok(Some(name).filter(|name| is_hostname(name)).map(Arc::from)),
        (true, "") if wire.network_gateway.is_some() => Ok(None),
        (true, "") => Err(Problem::Missing.at("addresses")),
        (true, _) if is_hostname(name) => Ok(Some(name.into())),
        (true, _) => Err(Problem::Hostname(name.to_owned()).at("hostname")),
    }
}

fn is_hostname(name: &str) -> bool {
    let is_part = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_');
    let is_label =
        |label: &str| (1..=MAX_LABEL_BYTES).contains(&label.len()) && label.bytes().all(is_part);
    // A pattern stands for no address; it is for waypoints, and says so when it is looked up.
    let labels = name.strip_prefix("*.").unwrap_or(name);
    name.len() <= MAX_HOSTNAME_BYTES && labels.split('.').all(is_label)
}

fn application_tunnel(wire: proto::ApplicationTunnel) -> Result<ApplicationTunnel, InvalidField> {
    use proto::application_tunnel::Protocol;

    let convert = || {
        let proxy_header = match enumeration("protocol", wire.protocol)? {
            Protocol::None => false,
            Protocol::Proxy => true,
        };
        let port = match wire.port {
            0 => None,
            number => Some(port(number).map_err(|problem| problem.at("port"))?),
        };
        Ok(ApplicationTunnel { proxy_header, port })
    };
    convert().map_err(|error: InvalidField| error.within("application_tunnel"))
}

fn identity(wire: &proto::Workload) -> Result<Identity, InvalidField> {
    let trust_domain = match wire.trust_domain.as_str() {
        "" => TrustDomain::default(),
        text => name("trust_domain", text)?,
    };
    let service_account: ServiceAccount =
        name("service_account", or_default(&wire.service_account, DEFAULT_SERVICE_ACCOUNT))?;
    Ok(Identity { trust_domain, namespace: name("namespace", &wire.namespace)?, service_account })
}

fn tunnel_protocol(wire: &proto::Workload) -> Result<TunnelProtocol, InvalidField> {
    let field = "tunnel_protocol";
    let protocol: proto::TunnelProtocol = enumeration(field, wire.tunnel_protocol)?;
    match protocol {
        proto::TunnelProtocol::None => Ok(TunnelProtocol::None),
        proto::TunnelProtocol::Hbone => Ok(TunnelProtocol::Hbone),
        proto::TunnelProtocol::LegacyIstioMtls => {
            Err(Problem::UnsupportedValue(protocol.as_str_name()).at(field))
        }
    }
}

fn workload_type(wire: &proto::Workload) -> Result<WorkloadType, InvalidField> {
    Ok(match enumeration("workload_type", wire.workload_type)? {
        proto::WorkloadType::Deployment => WorkloadType::Deployment,
        proto::WorkloadType::Cronjob => WorkloadType::CronJob,
        proto::WorkloadType::Pod => WorkloadType::Pod,
        proto::WorkloadType::Job => WorkloadType::Job,
    })
}

fn health(wire: &proto::Workload) -> Result<Health, InvalidField> {
    Ok(match enumeration("status", wire.status)? {
        proto::WorkloadStatus::Healthy => Health::Healthy,
        proto::WorkloadStatus::Unhealthy => Health::Unhealthy,
    })
}

fn network_mode(wire: &proto::Workload) -> Result<NetworkMode, InvalidField> {
    Ok(match enumeration("network_mode", wire.network_mode)? {
        proto::NetworkMode::Standard => NetworkMode::Standard,
        proto::NetworkMode::HostNetwork => NetworkMode::HostNetwork,
    })
}

fn services(
    wire: BTreeMap<String, proto::PortList>,
) -> Result<BTreeMap<ServiceKey, BTreeMap<u16, u16>>, InvalidField> {
    let convert = |(text, list): (String, proto::PortList)| {
        let field = format!("services.{text}");
        let key = service_key(&text).map_err(|problem| problem.at(&field))?;
        let ports = endpoint_ports(&list).map_err(|error| error.within(&field))?;
        Ok((key, ports))
    };
    wire.into_iter().map(convert).collect()
}

fn endpoint_ports(list: &proto::PortList) -> Result<BTreeMap<u16, u16>, InvalidField> {
    let mut ports = BTreeMap::new();
    for (i, wire) in list.ports.iter().enumerate() {
        let at = |field| format!("ports[{i}].{field}");
        let convert = |field, number| port(number).map_err(|problem| problem.at(&at(field)));
        let target_port = convert("target_port", wire.target_port)?;
        match ports.entry(convert("service_port", wire.service_port)?) {
            Entry::Vacant(entry) => entry.insert(target_port),
            Entry::Occupied(entry) => {
                return Err(Problem::DuplicatePort(*entry.key()).at(&at("service_port")));
            }
        };
    }
    Ok(ports)
}

fn or_default<'a>(text: &'a str, default: &'a str) -> &'a str {
    if text.is_empty() { default } else { text }
}
