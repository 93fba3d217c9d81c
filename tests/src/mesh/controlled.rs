//! The same mesh as a control plane describes it, from a directory that tests edit.

use std::net::SocketAddr;

use anyhow::Result;

use super::{ECHO, GREETER, HALF_CLOSE, HTTP, TRANSFER, serve_in, vip4, vip6};
use crate::{Child, ControlPlane, FairleadNode, Lab, Pod, PodSpec, manifest};

/// Ports of the services and of the pods behind them.
pub const SERVICE_PORTS: [(u16, u16); 5] =
    [(80, HTTP), (ECHO, ECHO), (GREETER, GREETER), (TRANSFER, TRANSFER), (HALF_CLOSE, HALF_CLOSE)];

/// The node of the control plane; it has neither pods nor a proxy.
const CONTROL_NODE: u8 = 3;

/// Two nodes with a proxy each, pods, and a control plane on a third.
///
/// Proxies and control plane are plain fields so that a test can stop one and put another in its
/// place; they are dropped before the lab is.
#[derive(Debug)]
pub struct ControlledMesh {
    /// The proxy of node 1.
    pub n1: FairleadNode,
    /// The proxy of node 2.
    pub n2: FairleadNode,
    /// The control plane. Its directory has `namespaces.yaml`, `services.yaml`, and a file for each
    /// pod, `pod-NAME.yaml`.
    pub plane: ControlPlane,
    /// In the mesh on node 1, namespace `shop`; the usual client.
    pub a: Pod,
    /// In the mesh on node 2, namespace `shop`; the usual server, with a service.
    pub b: Pod,
    /// In the mesh on node 1, namespace `tools`; the other client.
    pub c: Pod,
    /// In the mesh on node 1, namespace `shop`; the server on the clients' own node, with a service.
    pub d: Pod,
    /// On node 1, namespace `plain`, which has not joined the mesh.
    pub outsider: Pod,
    servers: Vec<Child>,
    /// The nodes and pods.
    pub lab: Lab,
}

// === impl ControlledMesh ===

impl ControlledMesh {
    /// Starts the mesh: `b`, `d` and the outsider serve HTTP.
    pub fn new(name: &str) -> Result<Self> {
        Self::with_args(name, &[], &[])
    }

    /// Starts the mesh with further arguments for both proxies and for the control plane.
    pub fn with_args(name: &str, node_args: &[&str], plane_args: &[&str]) -> Result<Self> {
        let lab = Lab::with_nodes(name, CONTROL_NODE)?;
        let pod =
            |node: u8, namespace: &str, name: &str| lab.node(node).add_pod(spec(namespace, name));
        let (a, c, d) = (pod(1, "shop", "a")?, pod(1, "tools", "c")?, pod(1, "shop", "d")?);
        let (b, outsider) = (pod(2, "shop", "b")?, pod(1, "plain", "outsider")?);

        let settings = ControlPlane::on(lab.node(CONTROL_NODE), &lab.nodes()[..2])?;
        settings.write("namespaces.yaml", &namespaces(""))?;
        settings.write("services.yaml", &manifest::join([service("b", 10), service("d", 20)]))?;
        for pod in [&a, &b, &c, &d, &outsider] {
            settings.write(&file_of(pod), &manifest::pod(pod, ""))?;
        }
        let plane = settings.args(plane_args).start()?;
        let start = |node: u8| plane.join(FairleadNode::on(lab.node(node))).args(node_args).start();
        let (n1, n2) = (start(1)?, start(2)?);
        for pod in [&a, &c, &d] {
            n1.enrol(pod)?;
        }
        n2.enrol(&b)?;
        let servers = Vec::new();
        let mut mesh = Self { n1, n2, plane, a, b, c, d, outsider, servers, lab };
        for pod in [mesh.b.clone(), mesh.d.clone(), mesh.outsider.clone()] {
            mesh.serve(&pod, "http_server.py", HTTP)?;
        }
        Ok(mesh)
    }

    /// Starts one of the lab's servers in `pod`, for as long as the mesh lives.
    pub fn serve(&mut self, pod: &Pod, program: &str, port: u16) -> Result<()> {
        self.servers.push(serve_in(pod, program, port)?);
        Ok(())
    }

    /// Adds a pod with a file in the directory, which nobody has taken into the mesh.
    pub fn add_pod(&self, node: u8, namespace: &str, name: &str) -> Result<Pod> {
        let pod = self.lab.node(node).add_pod(spec(namespace, name))?;
        self.write_pod(&pod)?;
        Ok(pod)
    }

    /// Writes where `pod` is, in place of what its file said before.
    pub fn write_pod(&self, pod: &Pod) -> Result<()> {
        self.plane.write(&file_of(pod), &manifest::pod(pod, ""))
    }

    /// Removes the file of `pod`.
    pub fn remove_pod(&self, pod: &Pod) -> Result<()> {
        self.plane.remove(&file_of(pod))
    }

    /// Writes the namespaces, with `labels` for that of the outsider.
    pub fn label_outsiders(&self, labels: &str) -> Result<()> {
        self.plane.write("namespaces.yaml", &namespaces(labels))
    }

    /// Returns the proxies.
    pub fn nodes(&self) -> [&FairleadNode; 2] {
        [&self.n1, &self.n2]
    }

    /// Leaves everything running.
    pub fn keep(self) {
        self.n1.detach();
        self.n2.detach();
        self.plane.detach();
        self.servers.into_iter().for_each(Child::detach);
        self.lab.keep();
    }
}

/// Returns the YAML of a service in namespace `shop` whose endpoint is the pod of its name, with the
/// two addresses that `number` stands for.
pub fn service(name: &str, number: u8) -> String {
    service_of(["shop", name], "", number, Some(name))
}

/// Returns the YAML of a service with `labels` and the two addresses that `number` stands for; see
/// [`manifest::service`].
pub fn service_of(name: [&str; 2], labels: &str, number: u8, app: Option<&str>) -> String {
    let addresses = [vip4(number, 0), vip6(number, 0)].map(|address: SocketAddr| address.ip());
    manifest::service(name, labels, &addresses, &SERVICE_PORTS, app)
}

/// Returns the name of the file of `pod` in the directory of the configuration.
pub fn file_of(pod: &Pod) -> String {
    format!("pod-{}.yaml", pod.name())
}

fn spec(namespace: &str, name: &str) -> PodSpec {
    PodSpec::new(name).namespace(namespace).service_account(name)
}

fn namespaces(outside: &str) -> String {
    manifest::join([
        manifest::namespace("shop", manifest::AMBIENT),
        manifest::namespace("tools", manifest::AMBIENT),
        manifest::namespace("plain", outside),
    ])
}
