//! The lab of one measurement: two nodes with a proxy each, a client pod and a server pod.
//!
//! Each measurement has a lab of its own. Nothing that one leaves behind, such as sockets in
//! `TIME_WAIT` or a grown heap, changes the figures of another; and what a start of the proxies
//! decides for as long as they run, such as which thread has which tunnel, is decided anew.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use fairlead_lab::{
    Adapter, AdapterSite, Child, FairleadNode, Host as _, Lab, MeshConfig, Node, Pod, PodSpec,
    process_tree,
};

use crate::{
    scenarios::Span,
    systems::System,
    usage::{NodeProcess, Usage},
};

/// Port of the load generator's echo.
pub(crate) const ECHO: u16 = 7000;

/// Port of the load generator's HTTP server.
pub(crate) const HTTP: u16 = 8080;

/// Port of iperf3.
pub(crate) const IPERF: u16 = 5201;

/// Clients are on the first node.
const CLIENT_NODE: u8 = 1;

/// Everything that a measurement needs; proxies and programs end before the lab does.
#[derive(Debug)]
pub(crate) struct Rig {
    pub(crate) client: Pod,
    pub(crate) server: Pod,
    system: System,
    fairlead: PathBuf,
    proxies: Vec<Proxy>,
    _programs: [Child; 2],
    lab: Lab,
}

/// The proxy of a node.
#[derive(Debug)]
enum Proxy {
    Fairlead(FairleadNode),
    Peer(Adapter),
}

// === impl Rig ===

impl Rig {
    /// Makes the lab and starts the proxies of `system`; `fairlead` is the build under test.
    pub(crate) fn new(system: &System, span: Span, fairlead: &Path) -> Result<Self> {
        let lab = Lab::new("bench")?;
        let pod = |node, name| {
            lab.node(node).add_pod(PodSpec::new(name).service_account(name).for_load())
        };
        let client = pod(CLIENT_NODE, "client")?;
        let server = pod(server_node(span), "server")?;
        let programs = serve(&server)?;
        let (system, fairlead) = (system.clone(), fairlead.to_owned());
        let proxies = Vec::new();
        let mut rig = Self { client, server, system, fairlead, proxies, _programs: programs, lab };
        rig.start_proxies(&rig.config())?;
        Ok(rig)
    }

    /// Returns whether proxies are in the path.
    pub(crate) fn is_meshed(&self) -> bool {
        !self.proxies.is_empty()
    }

    /// Returns a directory that is removed with the lab.
    pub(crate) fn dir(&self) -> &Path {
        self.lab.dir()
    }

    /// Returns a configuration with the two pods.
    pub(crate) fn config(&self) -> MeshConfig {
        MeshConfig::of([&self.client, &self.server])
    }

    /// Puts proxies that start with `config` in the place of those that run. Returns the time from
    /// the start of the client's proxy until it served.
    pub(crate) fn restart_proxies(&mut self, config: &MeshConfig) -> Result<Duration> {
        self.stop_proxies()?;
        self.start_proxies(config)
    }

    /// Ends the proxies in good order.
    pub(crate) fn stop_proxies(&mut self) -> Result<()> {
        self.proxies.drain(..).try_for_each(Proxy::stop)
    }

    /// Returns what each process of the proxies uses.
    pub(crate) fn usage(&self) -> Result<Usage> {
        let mut processes = Vec::new();
        for (node, proxy) in self.lab.nodes().iter().zip(&self.proxies) {
            let node = node.name();
            let tree = proxy.processes()?.into_iter();
            processes.extend(tree.map(|process| NodeProcess { node: node.to_owned(), process }));
        }
        Usage::of(processes)
    }

    fn start_proxies(&mut self, config: &MeshConfig) -> Result<Duration> {
        let config_file = self.lab.dir().join("config/mesh.yaml");
        fs::create_dir_all(config_file.with_file_name(""))?;
        config.write(&config_file)?;
        let mut taken = Duration::ZERO;
        for node in self.lab.nodes().iter().rev() {
            let started = Instant::now();
            if let Some(proxy) = self.start_proxy(node, &config_file)? {
                self.proxies.insert(0, proxy);
            }
            taken = started.elapsed();
        }
        Ok(taken)
    }

    fn start_proxy(&self, node: &Node, config: &Path) -> Result<Option<Proxy>> {
        let ca = self.lab.dir().join("ca");
        let pods = [self.client.clone(), self.server.clone()];
        match &self.system {
            System::Direct => Ok(None),
            System::Fairlead => {
                let builder = FairleadNode::on(node).program(&self.fairlead);
                let proxy = builder.local_config(config).local_ca(&ca).start()?;
                for pod in pods.iter().filter(|pod| pod.node() == node.name()) {
                    proxy.enrol(pod)?;
                }
                Ok(Some(Proxy::Fairlead(proxy)))
            }
            System::Peer(peer) => {
                let state = self.lab.dir().join(format!("peer-{}", node.name()));
                // Left by the process before: a fresh one starts with nothing.
                if state.exists() {
                    fs::remove_dir_all(&state)?;
                }
                let site = AdapterSite { node, pods: &pods, config, ca: &ca, state: &state };
                Ok(Some(Proxy::Peer(Adapter::start(&peer.command, &site)?)))
            }
        }
    }
}

// === impl Proxy ===

impl Proxy {
    fn processes(&self) -> Result<Vec<fairlead_lab::TreeProcess>> {
        match self {
            Self::Fairlead(proxy) => process_tree(proxy.pid()),
            Self::Peer(adapter) => adapter.processes(),
        }
    }

    fn stop(self) -> Result<()> {
        match self {
            Self::Fairlead(proxy) => proxy.stop()?.checked().map(drop),
            Self::Peer(adapter) => adapter.stop(),
        }
    }
}

/// Returns the path of the load generator, which is built with this program.
pub(crate) fn load_program() -> Result<PathBuf> {
    Ok(env::current_exe()?.with_file_name("fairlead-load"))
}

fn serve(pod: &Pod) -> Result<[Child; 2]> {
    let mut load = Command::new(load_program()?);
    load.args(["serve", "--echo-port", &ECHO.to_string(), "--http-port", &HTTP.to_string()]);
    let iperf = ["iperf3", "--server", "--port", &IPERF.to_string()];
    Ok([pod.serve(load, HTTP).context("load generator")?, pod.serve(iperf, IPERF)?])
}

fn server_node(span: Span) -> u8 {
    match span {
        Span::Cross => CLIENT_NODE + 1,
        Span::Same => CLIENT_NODE,
    }
}
