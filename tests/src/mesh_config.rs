//! The proxy's local configuration file: workloads, services and policies.
//!
//! The lab writes the file's own form and not the proxy's types, so that a test can also write what
//! the proxy must refuse.

use std::{collections::BTreeMap, net::IpAddr, path::Path};

use anyhow::Result;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{pod::Pod, whole_file};

/// What the proxies of a lab are configured with; edit the fields and write it again.
#[derive(Clone, Debug, Default, Serialize)]
pub struct MeshConfig {
    /// Pods that the proxies know.
    pub workloads: Vec<WorkloadEntry>,
    /// Services.
    pub services: Vec<ServiceEntry>,
    /// Authorization policies.
    pub policies: Vec<Policy>,
    /// Which workloads accept plaintext.
    pub peer_authentications: Vec<PeerAuthentication>,
}

/// A workload as the configuration file has it.
#[derive(Clone, Debug, Serialize)]
pub struct WorkloadEntry {
    /// Unique key.
    pub uid: String,
    /// Name of the pod.
    pub name: String,
    /// Kubernetes namespace.
    pub namespace: String,
    /// Service account.
    pub service_account: String,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
    /// Host name in place of addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Network of the addresses.
    pub network: String,
    /// `HBONE` or `NONE`.
    pub tunnel_protocol: String,
    /// Name of the node.
    pub node: String,
    /// Ports of the services that select it, by `namespace/hostname`.
    pub services: BTreeMap<String, PortList>,
    /// Policies that select it, as `namespace/name`.
    pub authorization_policies: Vec<String>,
    /// Gateway through which other networks reach it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_gateway: Option<Gateway>,
    /// How it wants connections, if it is a proxy itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub application_tunnel: Option<ApplicationTunnel>,
}

/// How a workload that is a proxy itself wants connections.
#[derive(Clone, Debug, Serialize)]
pub struct ApplicationTunnel {
    /// `PROXY` or `NONE`.
    pub protocol: String,
    /// Port that takes them all.
    pub port: u16,
}

/// The gateway of a network.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Gateway {
    /// By its address, as `network/address`.
    Address(String),
    /// By its host name.
    Hostname {
        /// Namespace of the service or workload that has the name.
        namespace: String,
        /// The name.
        hostname: String,
    },
}

/// A waypoint, by the address of its pod.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Waypoint {
    /// The address.
    pub address: IpAddr,
}

/// A service as the configuration file has it.
#[derive(Clone, Debug, Serialize)]
pub struct ServiceEntry {
    /// Name.
    pub name: String,
    /// Kubernetes namespace.
    pub namespace: String,
    /// Fully qualified host name.
    pub hostname: String,
    /// Virtual addresses.
    pub addresses: Vec<IpAddr>,
    /// Ports.
    pub ports: Vec<Port>,
    /// Names of ports.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub port_names: Vec<PortName>,
    /// Identities that its endpoints may present besides their own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subject_alt_names: Vec<String>,
    /// Waypoint that connections to it pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waypoint: Option<Waypoint>,
}

/// Ports of one service.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PortList {
    /// The ports.
    pub ports: Vec<Port>,
}

/// A port of a service.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Port {
    /// Port that clients use.
    pub service_port: u16,
    /// Port of the endpoints.
    pub target_port: u16,
}

/// A name of a port.
#[derive(Clone, Debug, Serialize)]
pub struct PortName {
    /// The name.
    pub name: String,
    /// Port that clients use.
    pub number: u16,
    /// `TCP`, what is spoken over it, or `UDP`.
    pub protocol: String,
}

/// An authorization policy as the configuration file has it.
#[derive(Clone, Debug, Serialize)]
pub struct Policy {
    /// Name.
    pub name: String,
    /// Kubernetes namespace.
    pub namespace: String,
    /// Which workloads it applies to.
    pub scope: Scope,
    /// What it does with connections that match.
    pub action: PolicyAction,
    /// Whether it only reports what it would do.
    pub dry_run: bool,
    /// Matches when any of these does.
    pub rules: Vec<Value>,
}

/// What a policy does with connections that match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PolicyAction {
    /// Accepts them.
    Allow,
    /// Refuses them.
    Deny,
}

/// Which workloads a policy applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Scope {
    /// All.
    Global,
    /// All of its namespace.
    Namespace,
    /// Those that name it.
    WorkloadSelector,
}

/// A `PeerAuthentication` as the configuration file has it.
#[derive(Clone, Debug, Serialize)]
pub struct PeerAuthentication {
    /// Name.
    pub name: String,
    /// Kubernetes namespace; the root namespace stands for the whole mesh.
    pub namespace: String,
    /// What its workloads accept.
    pub mode: PeerMode,
    /// The workloads; all of the namespace if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workloads: Option<Vec<String>>,
    /// What single ports of the workloads accept.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub port_level: BTreeMap<u16, PeerMode>,
}

/// What a workload accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PeerMode {
    /// Mutual TLS only.
    Strict,
    /// Mutual TLS and plaintext.
    Permissive,
}

// === impl MeshConfig ===

impl MeshConfig {
    /// Makes a configuration in which `pods` are mesh workloads.
    pub fn of<'a>(pods: impl IntoIterator<Item = &'a Pod>) -> Self {
        Self { workloads: pods.into_iter().map(WorkloadEntry::of).collect(), ..Self::default() }
    }

    /// Adds a service whose endpoints are `pods`, with one port.
    pub fn add_service<'a>(
        &mut self,
        service: ServiceEntry,
        endpoints: impl IntoIterator<Item = &'a Pod>,
    ) -> &mut Self {
        for pod in endpoints {
            if let Some(workload) = self.workload_mut(pod) {
                let list = PortList { ports: service.ports.clone() };
                workload.services.insert(service.key(), list);
            }
        }
        self.services.push(service);
        self
    }

    /// Returns the entry of `pod`.
    pub fn workload_mut(&mut self, pod: &Pod) -> Option<&mut WorkloadEntry> {
        let uid = pod.uid();
        self.workloads.iter_mut().find(|workload| workload.uid == uid)
    }

    /// Returns the configuration as YAML.
    pub fn to_yaml(&self) -> Result<String> {
        Ok(serde_saphyr::to_string(self)?)
    }

    /// Writes it to `path`; a reader sees the old file or the new one, whole.
    pub fn write(&self, path: &Path) -> Result<()> {
        whole_file::write(path, &self.to_yaml()?)
    }

    /// Writes `text`, which may be broken, to `path` in the same way.
    pub fn write_text(path: &Path, text: &str) -> Result<()> {
        whole_file::write(path, text)
    }
}

// === impl WorkloadEntry ===

impl WorkloadEntry {
    /// Describes `pod` as a workload that speaks HBONE.
    pub fn of(pod: &Pod) -> Self {
        Self {
            uid: pod.uid(),
            name: pod.name().to_owned(),
            namespace: pod.namespace().to_owned(),
            service_account: pod.service_account().to_owned(),
            addresses: vec![pod.ipv4().into(), pod.ipv6().into()],
            hostname: None,
            network: String::new(),
            tunnel_protocol: "HBONE".to_owned(),
            node: pod.node().to_owned(),
            services: BTreeMap::new(),
            authorization_policies: Vec::new(),
            network_gateway: None,
            application_tunnel: None,
        }
    }

    /// Makes it a workload outside the mesh.
    #[must_use]
    pub fn plaintext(mut self) -> Self {
        "NONE".clone_into(&mut self.tunnel_protocol);
        self
    }
}

// === impl ServiceEntry ===

impl ServiceEntry {
    /// Describes a service with the host name Kubernetes gives it.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            hostname: format!("{name}.{namespace}.svc.cluster.local"),
            addresses: Vec::new(),
            ports: Vec::new(),
            port_names: Vec::new(),
            subject_alt_names: Vec::new(),
            waypoint: None,
        }
    }

    /// Adds a virtual address.
    #[must_use]
    pub fn address(mut self, address: impl Into<IpAddr>) -> Self {
        self.addresses.push(address.into());
        self
    }

    /// Adds a port.
    #[must_use]
    pub fn port(mut self, service_port: u16, target_port: u16) -> Self {
        self.ports.push(Port { service_port, target_port });
        self
    }

    /// Names a port.
    #[must_use]
    pub fn port_name(mut self, name: &str, number: u16, protocol: &str) -> Self {
        let (name, protocol) = (name.to_owned(), protocol.to_owned());
        self.port_names.push(PortName { name, number, protocol });
        self
    }

    /// Returns the key that workloads refer to it by.
    pub fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.hostname)
    }
}

// === impl Policy ===

impl Policy {
    /// Makes a policy without rules for all workloads of `namespace`.
    pub fn new(action: PolicyAction, namespace: &str, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            scope: Scope::Namespace,
            action,
            dry_run: false,
            rules: Vec::new(),
        }
    }

    /// Makes it report what it would do, and no more.
    #[must_use]
    pub fn on_trial(mut self) -> Self {
        self.dry_run = true;
        self
    }

    /// Sets which workloads it applies to.
    #[must_use]
    pub fn scope(mut self, scope: Scope) -> Self {
        self.scope = scope;
        self
    }

    /// Adds a rule that matches when all of `conditions` do, such as
    /// `json!({"principals": [{"exact": "cluster.local/ns/shop/sa/cart"}]})`.
    #[must_use]
    pub fn rule(mut self, conditions: impl IntoIterator<Item = Value>) -> Self {
        let clauses: Vec<_> =
            conditions.into_iter().map(|condition| json!({ "matches": [condition] })).collect();
        self.rules.push(json!({ "clauses": clauses }));
        self
    }

    /// Adds a rule that matches connections from the service account of `pod`.
    #[must_use]
    pub fn from_pod(self, pod: &Pod) -> Self {
        let principal = pod.identity().trim_start_matches("spiffe://").to_owned();
        self.rule([json!({ "principals": [{ "exact": principal }] })])
    }
}

// === impl PeerAuthentication ===

impl PeerAuthentication {
    /// Sets what all workloads of `namespace` accept.
    pub fn of_namespace(namespace: &str, mode: PeerMode) -> Self {
        Self {
            name: "default".to_owned(),
            namespace: namespace.to_owned(),
            mode,
            workloads: None,
            port_level: BTreeMap::new(),
        }
    }

    /// Sets what `pod` accepts.
    pub fn of_pod(pod: &Pod, mode: PeerMode) -> Self {
        Self {
            name: pod.name().to_owned(),
            workloads: Some(vec![pod.uid()]),
            ..Self::of_namespace(pod.namespace(), mode)
        }
    }

    /// Sets what one port of the workloads accepts.
    #[must_use]
    pub fn port(mut self, port: u16, mode: PeerMode) -> Self {
        self.port_level.insert(port, mode);
        self
    }
}
