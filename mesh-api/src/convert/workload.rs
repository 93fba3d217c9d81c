//! Workloads.

use std::collections::{BTreeMap, btree_map::Entry};

use super::{
    InvalidField, Problem, address, enumeration, list, name, outbound, policy_key, port, required,
    service_key, unsupported, waypoint::waypoint,
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

// === impl Workload ===

impl TryFrom<proto::Workload> for Workload {
    type Error = InvalidField;

    fn try_from(wire: proto::Workload) -> Result<Self, InvalidField> {
        refuse_unsupported(&wire)?;
        Ok(Self {
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
            node: NodeName(wire.node.into()),
            canonical_name: wire.canonical_name.into(),
            canonical_revision: wire.canonical_revision.into(),
            cluster_id: or_default(&wire.cluster_id, DEFAULT_CLUSTER).into(),
            locality: wire.locality.map(Locality::from).unwrap_or_default(),
            services: services(wire.services)?,
            waypoint: waypoint("waypoint", wire.waypoint)?,
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

fn refuse_unsupported(wire: &proto::Workload) -> Result<(), InvalidField> {
    if wire.addresses.is_empty() {
        let problem =
            if wire.hostname.is_empty() { Problem::Missing } else { Problem::HostnameOnly };
        return Err(problem.at("addresses"));
    }
    unsupported("hostname", !wire.hostname.is_empty())?;
    unsupported("network_gateway", wire.network_gateway.is_some())
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
