//! Services and endpoint slices.

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use serde::Deserialize;
use serde_json::Value;

use super::{
    InvalidObject, Labels, Metadata, ObjectName, Problem,
    read::{address, part, typed},
};

/// Cluster address of a service that has none.
const HEADLESS: &str = "None";

/// A service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Its metadata.
    pub metadata: Metadata,
    /// How it is published.
    pub kind: ServiceType,
    /// Labels of the pods that are its endpoints; empty if its endpoints are listed elsewhere.
    pub selector: Labels,
    /// Its virtual addresses; none for a headless service.
    pub addresses: Box<[IpAddr]>,
    /// Its TCP ports.
    pub ports: Box<[ServicePort]>,
    /// Families of its addresses, as `IPv4` and `IPv6`.
    pub ip_families: Box<[Box<str>]>,
    /// Which endpoints are preferred.
    pub traffic_distribution: Option<Box<str>>,
    /// Whether only endpoints of the client's node are used.
    pub node_local: bool,
    /// Whether endpoints that are not ready are used.
    pub publish_not_ready: bool,
}

/// How a service is published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum ServiceType {
    /// Within the cluster.
    #[default]
    ClusterIP,
    /// At a port of every node, too.
    NodePort,
    /// By a load balancer, too.
    LoadBalancer,
    /// As an alias of another name.
    ExternalName,
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name; empty if it is the only one.
    pub name: Arc<str>,
    /// Port that clients use.
    pub port: u16,
    /// Port of the endpoints.
    pub target: TargetPort,
    /// What is spoken on it, if it says.
    pub app_protocol: Option<Box<str>>,
}

/// Port of the endpoints of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    /// This one.
    Number(u16),
    /// The one of this name.
    Name(Arc<str>),
}

/// Some endpoints of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Its metadata.
    pub metadata: Metadata,
    /// What its addresses are.
    pub address_type: AddressType,
    /// The endpoints.
    pub endpoints: Box<[SliceEndpoint]>,
    /// Ports of the endpoints that have a name, for TCP.
    pub ports: Box<[SlicePort]>,
}

/// What the addresses of an endpoint slice are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum AddressType {
    /// IPv4 addresses.
    #[default]
    IPv4,
    /// IPv6 addresses.
    IPv6,
    /// Host names.
    #[serde(rename = "FQDN")]
    HostName,
}

/// An endpoint of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// Its addresses.
    pub addresses: Box<[IpAddr]>,
    /// Whether it takes traffic.
    pub ready: bool,
    /// The pod that it is.
    pub pod: Option<ObjectName>,
}

/// A port of the endpoints of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    /// Name of the service's port.
    pub name: Arc<str>,
    /// The port.
    pub port: u16,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ServiceSpec {
    #[serde(rename = "type")]
    kind: ServiceType,
    selector: BTreeMap<String, String>,
    #[serde(rename = "clusterIP")]
    cluster_ip: String,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Vec<String>,
    ports: Vec<WrittenPort>,
    ip_families: Box<[Box<str>]>,
    traffic_distribution: Option<Box<str>>,
    internal_traffic_policy: Option<String>,
    publish_not_ready_addresses: bool,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WrittenPort {
    name: String,
    port: u16,
    protocol: Option<String>,
    target_port: Option<WrittenTarget>,
    app_protocol: Option<Box<str>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum WrittenTarget {
    Number(u16),
    Name(String),
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WrittenEndpoint {
    addresses: Vec<String>,
    conditions: Conditions,
    #[serde(rename = "targetRef")]
    target: Option<Target>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Conditions {
    ready: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Target {
    kind: String,
    namespace: String,
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WrittenSlicePort {
    name: String,
    port: u16,
    protocol: Option<String>,
}

// === impl Service ===

impl Service {
    /// Reads a service.
    pub(super) fn read(metadata: Metadata, value: &Value) -> Result<Self, InvalidObject> {
        let spec: ServiceSpec = part(value, "spec")?;
        Ok(Self {
            metadata,
            addresses: cluster_addresses(&spec)?,
            kind: spec.kind,
            selector: spec.selector.into_iter().collect(),
            ports: service_ports(spec.kind, spec.ports)?,
            ip_families: spec.ip_families,
            traffic_distribution: spec.traffic_distribution,
            node_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
            publish_not_ready: spec.publish_not_ready_addresses,
        })
    }
}

// === impl WrittenPort ===

impl WrittenPort {
    fn is_tcp(&self) -> bool {
        self.protocol.as_deref().unwrap_or("TCP") == "TCP"
    }
}

impl From<WrittenPort> for ServicePort {
    fn from(written: WrittenPort) -> Self {
        let target = match written.target_port {
            None | Some(WrittenTarget::Number(0)) => TargetPort::Number(written.port),
            Some(WrittenTarget::Number(port)) => TargetPort::Number(port),
            Some(WrittenTarget::Name(name)) => match name.parse() {
                Ok(port) => TargetPort::Number(port),
                Err(_) => TargetPort::Name(name.into()),
            },
        };
        let WrittenPort { name, port, app_protocol, protocol: _, target_port: _ } = written;
        Self { name: name.into(), port, target, app_protocol }
    }
}

// === impl EndpointSlice ===

impl EndpointSlice {
    /// Reads an endpoint slice, whose content is not in a `spec`.
    pub(super) fn read(metadata: Metadata, value: &Value) -> Result<Self, InvalidObject> {
        let address_type = match value.get("addressType") {
            Some(written) => typed("addressType", written)?,
            None => AddressType::default(),
        };
        let endpoints: Vec<WrittenEndpoint> = part(value, "endpoints")?;
        let ports: Vec<WrittenSlicePort> = part(value, "ports")?;
        let endpoints = match address_type {
            AddressType::IPv4 | AddressType::IPv6 => slice_endpoints(&metadata, endpoints)?,
            AddressType::HostName => Box::default(),
        };
        let is_tcp = |port: &WrittenSlicePort| port.protocol.as_deref().unwrap_or("TCP") == "TCP";
        let ports = ports
            .into_iter()
            .filter(is_tcp)
            .map(|port| SlicePort { name: port.name.into(), port: port.port })
            .collect();
        Ok(Self { metadata, address_type, endpoints, ports })
    }

    /// Returns the name of the service whose endpoints these are.
    pub fn service(&self) -> Option<ObjectName> {
        let name = self.metadata.label("kubernetes.io/service-name")?;
        Some(ObjectName::new(self.metadata.namespace().clone(), name))
    }
}

/// Returns the TCP ports; another protocol may use the same numbers.
fn service_ports(
    kind: ServiceType,
    written: Vec<WrittenPort>,
) -> Result<Box<[ServicePort]>, InvalidObject> {
    let several = written.len() > 1;
    let mut seen = HashSet::new();
    let mut ports = Vec::new();
    for (i, port) in written.into_iter().enumerate() {
        if kind == ServiceType::ExternalName || !port.is_tcp() {
            continue;
        }
        let at = |field: &str| format!("spec.ports[{i}].{field}");
        if port.port == 0 {
            return Err(Problem::Port(port.port.to_string()).at(&at("port")));
        }
        if !seen.insert(port.port) {
            return Err(Problem::Duplicate(port.port.to_string()).at(&at("port")));
        }
        if several && port.name.is_empty() {
            return Err(Problem::Missing("name the port, as there are several").at(&at("name")));
        }
        ports.push(port.into());
    }
    Ok(ports.into())
}

fn cluster_addresses(spec: &ServiceSpec) -> Result<Box<[IpAddr]>, InvalidObject> {
    if spec.cluster_ips.is_empty() {
        return match spec.cluster_ip.as_str() {
            "" | HEADLESS => Ok(Box::default()),
            text => Ok([address("spec.clusterIP", text)?].into()),
        };
    }
    let written = spec.cluster_ips.iter().enumerate();
    written
        .filter(|(_, text)| !text.is_empty() && *text != HEADLESS)
        .map(|(i, text)| address(&format!("spec.clusterIPs[{i}]"), text))
        .collect()
}

fn slice_endpoints(
    metadata: &Metadata,
    written: Vec<WrittenEndpoint>,
) -> Result<Box<[SliceEndpoint]>, InvalidObject> {
    let convert = |(i, endpoint): (usize, WrittenEndpoint)| {
        let field = format!("endpoints[{i}].addresses");
        if endpoint.addresses.is_empty() {
            return Err(Problem::Missing("list an address").at(&field));
        }
        let addresses = endpoint.addresses.iter().enumerate();
        let pod = endpoint.target.filter(|target| target.kind == "Pod").map(|target| {
            let namespace = match target.namespace.as_str() {
                "" => metadata.namespace().clone(),
                namespace => namespace.into(),
            };
            ObjectName::new(namespace, target.name)
        });
        Ok(SliceEndpoint {
            addresses: addresses
                .map(|(j, text)| address(&format!("{field}[{j}]"), text))
                .collect::<Result<_, _>>()?,
            ready: endpoint.conditions.ready.unwrap_or(true),
            pod,
        })
    };
    written.into_iter().enumerate().map(convert).collect()
}
