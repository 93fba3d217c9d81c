//! The mesh that tests and demo share: two nodes with a proxy each, pods, services.

mod controlled;

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Result;

use crate::{
    Child, FairleadNode, Host as _, Lab, MeshConfig, Pod, PodSpec, ServiceEntry, WorkloadEntry,
    python, wait_for,
};

pub use self::controlled::{
    ControlledMesh, SERVICE_PORTS, file_of, service as service_yaml, service_of,
};

/// Time for what takes milliseconds on an idle machine.
const SOON: Duration = Duration::from_secs(20);

/// Port of the HTTP server of a pod; services have it at 80.
pub const HTTP: u16 = 8080;

/// Port of the echoing server of a pod, and of services.
pub const ECHO: u16 = 7000;

/// Port of the server of a pod that speaks first, and of services.
pub const GREETER: u16 = 2525;

/// Port of the server of a pod that exchanges data in both directions at once, and of services.
pub const TRANSFER: u16 = 7001;

/// Port of the server of a pod that ends one direction first, and of services.
pub const HALF_CLOSE: u16 = 7002;

/// Two nodes with a proxy each, and pods.
///
/// The proxies are plain fields so that a test can stop one and put another in its place; they are
/// dropped before the lab is.
#[derive(Debug)]
pub struct Mesh {
    /// The proxy of node 1.
    pub n1: FairleadNode,
    /// The proxy of node 2.
    pub n2: FairleadNode,
    /// Enrolled on node 1, namespace `shop`; the usual client.
    pub a: Pod,
    /// Enrolled on node 2, namespace `shop`; the usual server.
    pub b: Pod,
    /// Enrolled on node 1, namespace `tools`; the other client.
    pub c: Pod,
    /// Enrolled on node 1, namespace `shop`; the server on the clients' own node.
    pub d: Pod,
    /// Not enrolled, on node 1, namespace `tools`.
    pub outsider: Pod,
    /// What the proxies are configured with; [`Mesh::apply`] makes a change known to them.
    pub config: MeshConfig,
    servers: Vec<Child>,
    /// The nodes and pods.
    pub lab: Lab,
}

// === impl Mesh ===

impl Mesh {
    /// Starts the mesh: every pod serves HTTP, `b` and `d` have services of their names.
    pub fn new(name: &str) -> Result<Self> {
        Self::with_args(name, &[])
    }

    /// Starts the mesh with further arguments for both proxies.
    pub fn with_args(name: &str, args: &[&str]) -> Result<Self> {
        let lab = Lab::new(name)?;
        let pod = |node: u8, namespace: &str, name: &str| {
            let spec = PodSpec::new(name).namespace(namespace).service_account(name);
            lab.node(node).add_pod(spec)
        };
        let (a, c, d) = (pod(1, "shop", "a")?, pod(1, "tools", "c")?, pod(1, "shop", "d")?);
        let (b, outsider) = (pod(2, "shop", "b")?, pod(1, "tools", "outsider")?);

        let mut config = MeshConfig::of([&a, &b, &c, &d]);
        config.workloads.push(WorkloadEntry::of(&outsider).plaintext());
        config.add_service(service("b", 10), [&b]);
        config.add_service(service("d", 20), [&d]);
        fs::create_dir_all(config_path(&lab).with_file_name(""))?;
        config.write(&config_path(&lab))?;

        let start = |node: u8| {
            FairleadNode::on(lab.node(node))
                .local_config(&config_path(&lab))
                .local_ca(&ca_dir(&lab))
                .args(args)
                .start()
        };
        let (n1, n2) = (start(1)?, start(2)?);
        for pod in [&a, &c, &d] {
            n1.enrol(pod)?;
        }
        n2.enrol(&b)?;
        let servers = Vec::new();
        let mut mesh = Self { n1, n2, a, b, c, d, outsider, config, servers, lab };
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

    /// Starts an echoing server in `pod`.
    pub fn serve_echo(&mut self, pod: &Pod) -> Result<()> {
        self.serve(pod, "echo.py", ECHO)
    }

    /// Leaves everything running.
    pub fn keep(self) {
        self.n1.detach();
        self.n2.detach();
        self.servers.into_iter().for_each(Child::detach);
        self.lab.keep();
    }

    /// Writes the configuration and waits until both proxies have applied it.
    pub fn apply(&self) -> Result<()> {
        let applied = |node: &FairleadNode| -> Result<f64> { reloads(node, "applied") };
        let before = [applied(&self.n1)?, applied(&self.n2)?];
        self.config.write(&self.config_path())?;
        wait_for("the new configuration", SOON, || {
            let now = [applied(&self.n1)?, applied(&self.n2)?];
            Ok((now[0] > before[0] && now[1] > before[1]).then_some(()))
        })
    }

    /// Returns the address of `a` that talks to `server`.
    pub fn a_address(&self, server: SocketAddr) -> IpAddr {
        if server.is_ipv4() { self.a.v4(0).ip() } else { self.a.v6(0).ip() }
    }

    /// Returns the path of the configuration of both proxies.
    pub fn config_path(&self) -> PathBuf {
        config_path(&self.lab)
    }

    /// Returns the directory of the certificate authority of both proxies.
    pub fn ca_dir(&self) -> PathBuf {
        ca_dir(&self.lab)
    }
}

/// Returns how often `node` applied (`applied`) or refused (`rejected`) a configuration.
pub fn reloads(node: &FairleadNode, result: &str) -> Result<f64> {
    Ok(node.metrics()?.sum("fairlead_config_reloads_total", &[("result", result)]))
}

/// Returns `port` on the IPv4 address of the service `b` (`10`) or `d` (`20`).
pub fn vip4(service: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([10, 96, 0, service], port))
}

/// Returns `port` on the IPv6 address of the service `b` (`10`) or `d` (`20`).
pub fn vip6(service: u8, port: u16) -> SocketAddr {
    // The number is read as in the IPv4 address: fd00:96::10.
    let number = u16::from(service / 10) * 16 + u16::from(service % 10);
    SocketAddr::from(([0xfd00, 0x96, 0, 0, 0, 0, 0, number], port))
}

/// Makes a service in namespace `shop` with the two addresses that `number` stands for.
pub fn service(name: &str, number: u8) -> ServiceEntry {
    ServiceEntry::new("shop", name)
        .address(vip4(number, 0).ip())
        .address(vip6(number, 0).ip())
        .port(80, HTTP)
        .port(ECHO, ECHO)
        .port(GREETER, GREETER)
        .port(TRANSFER, TRANSFER)
        .port(HALF_CLOSE, HALF_CLOSE)
}

fn serve_in(pod: &Pod, program: &str, port: u16) -> Result<Child> {
    let arguments: &[&str] = match program {
        "http_server.py" | "proxy_server.py" | "echo.py" | "server_first.py" => &[],
        _ => &["serve"],
    };
    let port_text = port.to_string();
    let arguments: Vec<_> = arguments.iter().copied().chain([port_text.as_str()]).collect();
    pod.serve(python(program, &arguments), port)
}

fn config_path(lab: &Lab) -> PathBuf {
    // A directory of its own: the proxies watch it, and the lab writes much elsewhere.
    lab.dir().join("config").join("mesh.yaml")
}

fn ca_dir(lab: &Lab) -> PathBuf {
    Path::new(lab.dir()).join("ca")
}
