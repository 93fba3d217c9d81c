//! A proxy whose every peer the test is: pods of its own node, and pods elsewhere without a proxy.

use std::{fs, net::SocketAddr};

use anyhow::{Context as _, Result};
use fairlead_lab::{
    AccessLine, FairleadNode, Lab, MeshConfig, Pod, PodSpec, Policy, PolicyAction, ServiceEntry,
};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::{Ca, Credentials, HBONE, Listener, Tunnel, dial};

/// Port of the service `web`.
const WEB_PORT: u16 = 80;

/// Address of the service `web`, whose endpoints are port 8080 of `peer` and of `other`.
pub(crate) const VIP: ([u8; 4], u16) = ([10, 96, 0, 30], WEB_PORT);

/// A workload that a policy denies everything.
pub(crate) const INTRUDER: &str = "spiffe://cluster.local/ns/shop/sa/intruder";

/// A port of all pods that a policy denies to everybody but the address 10.9.9.9.
pub(crate) const DENIED_ADDRESS_PORT: u16 = 9100;

/// A proxy with one worker, so that a pair of pods has one tunnel; and pods.
#[derive(Debug)]
pub(crate) struct Scene {
    /// The proxy of node 1.
    pub(crate) proxy: FairleadNode,
    /// Enrolled on node 1.
    pub(crate) pod: Pod,
    /// Enrolled on node 1.
    pub(crate) neighbour: Pod,
    /// On node 2, a workload of the mesh that the test speaks for.
    pub(crate) peer: Pod,
    /// On node 2, another such workload.
    pub(crate) other: Pod,
    /// The CA of the proxy.
    pub(crate) ca: Ca,
    /// The nodes.
    pub(crate) lab: Lab,
}

// === impl Scene ===

impl Scene {
    /// Starts the proxy with its two pods enrolled.
    pub(crate) fn new(name: &str) -> Result<Self> {
        Self::configured(name, |_, _| {})
    }

    /// Starts the proxy with a configuration that `edit` has changed; it also gets the node 1 pod.
    pub(crate) fn configured(name: &str, edit: impl FnOnce(&mut MeshConfig, &Pod)) -> Result<Self> {
        Self::start(name, &[], edit)
    }

    /// Starts the proxy with further arguments.
    pub(crate) fn with_args(name: &str, args: &[&str]) -> Result<Self> {
        Self::start(name, args, |_, _| {})
    }

    /// Starts the proxy with further arguments and a configuration that `edit` has changed.
    pub(crate) fn start(
        name: &str,
        args: &[&str],
        edit: impl FnOnce(&mut MeshConfig, &Pod),
    ) -> Result<Self> {
        let lab = Lab::new(name)?;
        let pod = |node: u8, name: &str| {
            let spec = PodSpec::new(name).namespace("shop").service_account(name);
            lab.node(node).add_pod(spec)
        };
        let (own, neighbour) = (pod(1, "pod")?, pod(1, "neighbour")?);
        let (peer, other) = (pod(2, "peer")?, pod(2, "other")?);
        let mut config = config([&own, &neighbour, &peer, &other]);
        edit(&mut config, &own);

        let path = lab.dir().join("config").join("mesh.yaml");
        fs::create_dir_all(path.with_file_name(""))?;
        MeshConfig::write_text(&path, &with_owner(&config, &own)?.to_string())?;
        let ca_dir = lab.dir().join("ca");
        let proxy = FairleadNode::on(lab.node(1))
            .local_config(&path)
            .local_ca(&ca_dir)
            .args(args)
            .variable("PROXY_WORKER_THREADS", "1")
            .start()?;
        for pod in [&own, &neighbour] {
            proxy.enrol(pod)?;
        }
        let ca = Ca::of_proxies(&ca_dir)?;
        Ok(Self { proxy, pod: own, neighbour, peer, other, ca, lab })
    }

    /// Returns faultless credentials of `pod`.
    pub(crate) fn credentials(&self, pod: &Pod) -> Result<Credentials> {
        self.ca.workload(&pod.identity())
    }

    /// Opens a tunnel from `peer`, in its own name, to the enrolled pod.
    pub(crate) async fn tunnel(&self) -> Result<Tunnel> {
        self.tunnel_as(&self.credentials(&self.peer)?).await
    }

    /// Opens a tunnel from `peer`, in the name that `credentials` prove, to the enrolled pod.
    pub(crate) async fn tunnel_as(&self, credentials: &Credentials) -> Result<Tunnel> {
        Tunnel::open(dial(&self.peer, self.pod.v4(HBONE))?, credentials).await
    }

    /// Opens a tunnel like [`Self::tunnel`] that says no more than a client must.
    pub(crate) async fn bare_tunnel(&self) -> Result<TlsStream<TcpStream>> {
        self.listener(HBONE)?.bare_tunnel().await
    }

    /// Returns where tunnels like [`Self::tunnel`] are taken, of which `port` of the enrolled pod is
    /// asked for.
    pub(crate) fn listener(&self, port: u16) -> Result<Listener> {
        let credentials = self.credentials(&self.peer)?;
        Ok(Listener::new(&self.peer, credentials, &self.pod, self.pod.v4(port)))
    }

    /// Waits for the line about the connection from `client`.
    pub(crate) fn line_of(&self, client: SocketAddr) -> Result<AccessLine> {
        let client = client.to_string();
        self.proxy.wait_for_access(|line| line.is("src.addr", &client))
    }

    /// Waits for the line about the connection from `client` and returns its reason.
    pub(crate) fn reason_of(&self, client: SocketAddr) -> Result<String> {
        self.line_of(client)?.get("reason").context("no reason")
    }

    /// Returns how many connections were closed with these `response_flags`.
    pub(crate) fn closed(&self, flags: &str) -> Result<usize> {
        let metrics = self.proxy.metrics()?;
        let closed =
            metrics.sum("istio_tcp_connections_closed_total", &[("response_flags", flags)]);
        Ok(closed.abs().to_string().parse()?)
    }
}

fn config([pod, neighbour, peer, other]: [&Pod; 4]) -> MeshConfig {
    let mut config = MeshConfig::of([pod, neighbour, peer, other]);
    let service = ServiceEntry::new("shop", "web").address(VIP.0).port(WEB_PORT, 8080);
    config.add_service(service, [peer, other]);
    let intruder = INTRUDER.trim_start_matches("spiffe://");
    config.policies = vec![
        Policy::new(PolicyAction::Deny, "shop", "no-intruder")
            .rule([json!({ "principals": [{ "exact": intruder }] })]),
        Policy::new(PolicyAction::Deny, "shop", "only-from-10.9.9.9").rule([json!({
            "destination_ports": [DENIED_ADDRESS_PORT],
            "not_source_ips": ["10.9.9.9/32"],
        })]),
    ];
    config
}

/// Returns the configuration with what the baggage of `pod` is made of.
fn with_owner(config: &MeshConfig, pod: &Pod) -> Result<Value> {
    let mut config = serde_json::to_value(config)?;
    let workloads = config["workloads"].as_array_mut().context("no workloads")?;
    let own = workloads.iter_mut().find(|workload| workload["uid"] == json!(pod.uid()));
    let own = own.and_then(Value::as_object_mut).context("no such workload")?;
    for (field, value) in [
        ("cluster_id", json!("c1")),
        ("workload_type", json!("DEPLOYMENT")),
        ("workload_name", json!("shopfront")),
        ("canonical_name", json!("front")),
        ("canonical_revision", json!("v2")),
        ("locality", json!({ "region": "r1", "zone": "z1" })),
    ] {
        own.insert(field.to_owned(), value);
    }
    Ok(config)
}
