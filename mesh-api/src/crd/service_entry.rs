//! `ServiceEntry` and `WorkloadEntry` of `networking.istio.io`.

use std::collections::BTreeMap;

use serde::Deserialize;

/// A service that Kubernetes does not know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceEntry {
    /// Its host names.
    pub hosts: Vec<String>,
    /// Its virtual addresses, or ranges of them.
    pub addresses: Vec<String>,
    /// Its ports.
    pub ports: Vec<EntryPort>,
    /// Whether it belongs to the mesh.
    pub location: Location,
    /// How its endpoints are found.
    pub resolution: Resolution,
    /// Its endpoints.
    pub endpoints: Vec<WorkloadEntry>,
    /// Workloads of the namespace that are its endpoints.
    pub workload_selector: Option<WorkloadLabels>,
    /// Namespaces that see it.
    pub export_to: Vec<String>,
    /// Names that its endpoints may present.
    pub subject_alt_names: Vec<String>,
}

/// A port of a service entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct EntryPort {
    /// The port.
    pub number: u32,
    /// What is spoken on it.
    pub protocol: String,
    /// Its name.
    pub name: String,
    /// Port of the endpoints; 0 for the same.
    pub target_port: u32,
}

/// Whether a service entry belongs to the mesh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Location {
    /// It does not.
    #[default]
    MeshExternal,
    /// It does.
    MeshInternal,
}

/// How the endpoints of a service entry are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Resolution {
    /// The address that the client named.
    #[default]
    None,
    /// The addresses listed.
    Static,
    /// By resolving host names.
    Dns,
    /// By resolving a host name, one address at a time.
    DnsRoundRobin,
    /// By resolving the host name that the client named.
    DynamicDns,
}

/// Labels of the workloads that are endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkloadLabels {
    /// The labels.
    pub labels: BTreeMap<String, String>,
}

/// What the control plane reports of a service entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct EntryStatus {
    /// Virtual addresses allocated.
    pub addresses: Vec<HostAddress>,
}

/// A virtual address of a host name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct HostAddress {
    /// The address.
    pub value: String,
    /// The host name.
    pub host: String,
}

/// A workload that Kubernetes does not know, or an endpoint of a service entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkloadEntry {
    /// IP address, host name or `unix://` path.
    pub address: String,
    /// Its ports, by name.
    pub ports: BTreeMap<String, u32>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Network of the address.
    pub network: String,
    /// Where it runs, as `region/zone/subzone`.
    pub locality: String,
    /// Relative share of connections; 0 for the default.
    pub weight: u32,
    /// Service account of its identity.
    pub service_account: String,
}

/// What is reported of a workload entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct WorkloadStatus {
    /// Its conditions.
    pub conditions: Vec<WorkloadCondition>,
}

/// A condition of a workload entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct WorkloadCondition {
    /// Which condition.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
}
