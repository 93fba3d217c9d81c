//! The lab of the demo: two nodes with a proxy each, and pods.

use crate::workspace;
use anyhow::Result;
use fairlead_lab::{
    AccessLine, Child, FairleadNode, Host as _, Lab, MeshConfig, Node, Pod, PodSpec, ServiceEntry,
    WorkloadEntry, python, wait_for,
};
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Port of the HTTP servers; the services have it at 80.
pub(super) const HTTP: u16 = 8080;

/// Port of the echoing servers, and of the service `b`.
pub(super) const ECHO: u16 = 7000;

/// Port of the server that exchanges data in both directions at once, and of the service `b`.
pub(super) const TRANSFER: u16 = 7001;

/// Port of the server that closes one direction first, and of the service `b`.
pub(super) const HALF_CLOSE: u16 = 7002;

/// Port of the tunnels.
pub(super) const HBONE: u16 = 15008;

/// Time for what takes milliseconds on an idle machine.
pub(super) const SOON: Duration = Duration::from_secs(20);

/// Two nodes with a proxy each, and pods; the proxies end before the lab does.
pub(super) struct Mesh {
    pub(super) n1: FairleadNode,
    pub(super) n2: FairleadNode,
    /// Enrolled on node 1: the client.
    pub(super) a: Pod,
    /// Enrolled on node 2: the server.
    pub(super) b: Pod,
    /// Enrolled on node 1: the other client.
    pub(super) c: Pod,
    /// Enrolled on node 1: the server on the clients' own node.
    pub(super) d: Pod,
    /// On node 1, not enrolled.
    pub(super) outsider: Pod,
    /// What both proxies are configured with, once [`Mesh::apply`] has written it.
    pub(super) config: MeshConfig,
    servers: Vec<Child>,
    pub(super) lab: Lab,
}

// === impl Mesh ===

impl Mesh {
    /// Starts everything.
    pub(super) fn new() -> Result<Self> {
        let lab = Lab::new("demo")?;
        let pod = |node: u8, namespace: &str, name: &str| {
            let spec = PodSpec::new(name).namespace(namespace).service_account(name);
            lab.node(node).add_pod(spec)
        };
        let (a, c, d) = (pod(1, "shop", "a")?, pod(1, "tools", "c")?, pod(1, "shop", "d")?);
        let (b, outsider) = (pod(2, "shop", "b")?, pod(1, "tools", "outsider")?);
        let mut config = MeshConfig::of([&a, &b, &c, &d]);
        config.workloads.push(WorkloadEntry::of(&outsider).plaintext());
        config.add_service(service_b(), [&b]);

        let config_file = config_file(&lab);
        fs::create_dir_all(config_file.with_file_name(""))?;
        config.write(&config_file)?;
        let start = |node: &Node| {
            let proxy = FairleadNode::on(node).local_config(&config_file);
            proxy.local_ca(&ca_dir(&lab)).start()
        };
        let (n1, n2) = (start(lab.node(1))?, start(lab.node(2))?);
        for pod in [&a, &c, &d] {
            n1.enrol(pod)?;
        }
        n2.enrol(&b)?;
        let servers = serve(&[&b, &d, &outsider])?;
        Ok(Self { n1, n2, a, b, c, d, outsider, config, servers, lab })
    }

    /// Writes the configuration and waits until both proxies have applied it.
    pub(super) fn apply(&self) -> Result<()> {
        let before = [reloads(&self.n1)?, reloads(&self.n2)?];
        self.config.write(&config_file(&self.lab))?;
        wait_for("both proxies apply the configuration", SOON, || {
            let applied = reloads(&self.n1)? > before[0] && reloads(&self.n2)? > before[1];
            Ok(applied.then_some(()))
        })
    }

    /// Returns the configuration file of both proxies.
    pub(super) fn config_file(&self) -> PathBuf {
        config_file(&self.lab)
    }

    /// Returns the directory of the root certificate of both proxies.
    pub(super) fn ca_dir(&self) -> PathBuf {
        ca_dir(&self.lab)
    }

    /// Returns each node with its pods, as text.
    pub(super) fn inventory(&self) -> [(String, Vec<String>); 2] {
        let node =
            |node: &Node| format!("node {}   {}   {}", node.name(), node.ipv4(), node.ipv6());
        let pod = |pod: &Pod| {
            let remark = if pod.name() == self.outsider.name() { "   not enrolled" } else { "" };
            let (name, account) = (pod.name(), pod.service_account());
            let namespace = pod.namespace();
            let (v4, v6) = (pod.ipv4(), pod.ipv6());
            format!("pod {name:9} {v4:9} {v6:9} {namespace}/{account}{remark}")
        };
        let first = [&self.a, &self.c, &self.d, &self.outsider].map(pod);
        [
            (node(self.lab.node(1)), first.to_vec()),
            (node(self.lab.node(2)), vec![pod(&self.b), format!("service b     {}", vip(80))]),
        ]
    }

    /// Copies the proxies' logs to where they outlive the lab, and returns the place.
    pub(super) fn save_logs(&self) -> Result<String> {
        let pattern = workspace::target("xtask/demo-n*.log");
        for (proxy, name) in [(&self.n1, "demo-n1.log"), (&self.n2, "demo-n2.log")] {
            fs::write(pattern.with_file_name(name), proxy.log()?)?;
        }
        Ok(pattern.display().to_string())
    }

    /// Leaves everything running.
    pub(super) fn keep(self) {
        self.n1.detach();
        self.n2.detach();
        self.servers.into_iter().for_each(Child::detach);
        self.lab.keep();
    }
}

/// Returns `port` of the service `b`.
pub(super) fn vip(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 96, 0, 10], port))
}

/// Returns `port` of the service `b` over IPv6.
pub(super) fn vip6(port: u16) -> SocketAddr {
    SocketAddr::from(([0xfd00, 0x96, 0, 0, 0, 0, 0, 0x10], port))
}

/// Waits for a line that `matches` in the part of the access log behind its first `known` lines.
pub(super) fn access_after(
    proxy: &FairleadNode,
    known: usize,
    matches: impl Fn(&AccessLine) -> bool,
) -> Result<AccessLine> {
    wait_for("an access-log line", SOON, || {
        Ok(proxy.access_log()?.into_iter().skip(known).find(|line| matches(line)))
    })
}

fn service_b() -> ServiceEntry {
    let service = ServiceEntry::new("shop", "b").address(vip(0).ip()).address(vip6(0).ip());
    service.port(80, HTTP).port(ECHO, ECHO).port(TRANSFER, TRANSFER).port(HALF_CLOSE, HALF_CLOSE)
}

fn serve(pods: &[&Pod]) -> Result<Vec<Child>> {
    let mut servers = Vec::new();
    for pod in pods {
        for (program, arguments, port) in [
            ("http_server.py", None, HTTP),
            ("echo.py", None, ECHO),
            ("transfer.py", Some("serve"), TRANSFER),
            ("half_close.py", Some("serve"), HALF_CLOSE),
        ] {
            let port_text = port.to_string();
            let arguments: Vec<_> = arguments.into_iter().chain([port_text.as_str()]).collect();
            servers.push(pod.serve(python(program, &arguments), port)?);
        }
    }
    Ok(servers)
}

fn reloads(proxy: &FairleadNode) -> Result<f64> {
    Ok(proxy.metrics()?.sum("fairlead_config_reloads_total", &[("result", "applied")]))
}

fn config_file(lab: &Lab) -> PathBuf {
    // A directory of its own: the proxies watch it, and the lab writes much elsewhere.
    lab.dir().join("config/mesh.yaml")
}

fn ca_dir(lab: &Lab) -> PathBuf {
    lab.dir().join("ca")
}
