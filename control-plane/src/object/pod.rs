//! Pods.

use std::{net::IpAddr, sync::Arc};

use serde::Deserialize;
use serde_json::Value;

use super::{
    InvalidObject, Metadata,
    read::{address, part},
    validate::account,
};

/// Service account of pods that name none.
const DEFAULT_SERVICE_ACCOUNT: &str = "default";

/// A pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// Its metadata.
    pub metadata: Metadata,
    /// What tells it from others that had its name; empty if nothing says so.
    pub uid: Box<str>,
    /// Service account that it runs as.
    pub service_account: Arc<str>,
    /// Node that it runs on; empty while it is not scheduled.
    pub node: Arc<str>,
    /// Whether it lives in its node's network namespace.
    pub host_network: bool,
    /// Ports of its containers that have a name.
    pub ports: Box<[NamedPort]>,
    /// Its addresses.
    pub addresses: Box<[IpAddr]>,
    /// How far it has come.
    pub phase: Phase,
    /// Whether it is ready; unknown if its status does not say.
    pub ready: Option<bool>,
}

/// A port with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedPort {
    /// The name.
    pub name: Arc<str>,
    /// The port.
    pub port: u16,
}

/// How far a pod has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Phase {
    /// Not all its containers have started.
    Pending,
    /// It runs.
    #[default]
    Running,
    /// All its containers have ended well.
    Succeeded,
    /// All its containers have ended, one of them badly.
    Failed,
    /// Its node does not answer.
    Unknown,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    service_account_name: String,
    node_name: String,
    host_network: bool,
    containers: Vec<Container>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Container {
    ports: Vec<Port>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Port {
    name: String,
    #[serde(rename = "containerPort")]
    number: u16,
    protocol: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    phase: Phase,
    #[serde(rename = "podIP")]
    pod_ip: String,
    #[serde(rename = "podIPs")]
    pod_ips: Vec<PodIp>,
    conditions: Vec<Condition>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PodIp {
    ip: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

// === impl Pod ===

impl Pod {
    /// Reads a pod.
    pub(super) fn read(metadata: Metadata, value: &Value) -> Result<Self, InvalidObject> {
        let spec: Spec = part(value, "spec")?;
        let status: Status = part(value, "status")?;
        let service_account = match spec.service_account_name.as_str() {
            "" => DEFAULT_SERVICE_ACCOUNT,
            name => name,
        };
        account("spec.serviceAccountName", service_account)?;
        let ready = status.conditions.iter().find(|condition| condition.kind == "Ready");
        Ok(Self {
            metadata,
            uid: value["metadata"]["uid"].as_str().unwrap_or_default().into(),
            service_account: service_account.into(),
            node: spec.node_name.into(),
            host_network: spec.host_network,
            ports: named_ports(spec.containers),
            ready: ready.map(|condition| condition.status == "True"),
            phase: status.phase,
            addresses: addresses(&status)?,
        })
    }

    /// Returns whether the pod has ended.
    pub fn has_ended(&self) -> bool {
        match self.phase {
            Phase::Succeeded | Phase::Failed => true,
            Phase::Pending | Phase::Running | Phase::Unknown => false,
        }
    }
}

fn named_ports(containers: Vec<Container>) -> Box<[NamedPort]> {
    let ports = containers.into_iter().flat_map(|container| container.ports);
    ports
        .filter(|port| !port.name.is_empty() && port.protocol.as_deref().unwrap_or("TCP") == "TCP")
        .map(|port| NamedPort { name: port.name.into(), port: port.number })
        .collect()
}

fn addresses(status: &Status) -> Result<Box<[IpAddr]>, InvalidObject> {
    if status.pod_ips.is_empty() && !status.pod_ip.is_empty() {
        return Ok([address("status.podIP", &status.pod_ip)?].into());
    }
    let ips = status.pod_ips.iter().enumerate();
    ips.map(|(i, PodIp { ip })| address(&format!("status.podIPs[{i}].ip"), ip)).collect()
}
