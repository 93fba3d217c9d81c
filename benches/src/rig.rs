//! The lab of the benchmarks: two nodes with a proxy each, servers, and a client pod per case.

use std::{env, fs, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context as _, Result};
use fairlead_lab::{
    Child, FairleadNode, Host as _, Lab, MeshConfig, Node, Pod, PodSpec, Resources,
};

use crate::scenarios::{Case, Route, Scenario, Span};

/// Port of the load generator's echo.
pub(crate) const ECHO: u16 = 7000;

/// Port of the load generator's HTTP server.
pub(crate) const HTTP: u16 = 8080;

/// Port of iperf3.
pub(crate) const IPERF: u16 = 5201;

/// Clients are on the first node.
const CLIENT_NODE: u8 = 1;

/// The processor time that the proxies and the machine have used so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cpu {
    /// Of both proxies.
    pub(crate) proxies: Duration,
    /// Of everything that runs on this machine.
    pub(crate) machine: Duration,
}

/// Everything that a measurement needs; the programs end before the lab does.
#[derive(Debug)]
pub(crate) struct Rig {
    pub(crate) proxies: Vec<FairleadNode>,
    clients: Vec<Pod>,
    servers: Vec<Pod>,
    /// Clients that are enrolled: those of the cases so far, because each weighs in its proxy.
    enrolled: Vec<String>,
    _programs: Vec<Child>,
    _lab: Lab,
}

// === impl Rig ===

impl Rig {
    /// Makes the lab with what `scenarios` need.
    pub(crate) fn new(scenarios: &[&Scenario]) -> Result<Self> {
        let lab = Lab::new("bench")?;
        let mut servers = Vec::new();
        let mut programs = Vec::new();
        for span in [Span::Cross, Span::Same] {
            for route in [Route::Direct, Route::Meshed] {
                let name = format!("server-{span}-{route}");
                let server = lab.node(server_node(span)).add_pod(PodSpec::new(&name).for_load())?;
                programs.extend(serve(&server)?);
                servers.push(server);
            }
        }
        let clients = clients(lab.node(CLIENT_NODE), scenarios)?;
        let meshed = servers.iter().chain(&clients).filter(|pod| is_meshed(pod));
        let proxies = proxies(&lab, &MeshConfig::of(meshed))?;
        for server in servers.iter().filter(|pod| is_meshed(pod)) {
            proxy_of(&proxies, server)?.enrol(server)?;
        }
        let enrolled = Vec::new();
        Ok(Self { proxies, clients, servers, enrolled, _programs: programs, _lab: lab })
    }

    /// Prepares the pods of a case. Each has its own client: the connections that one case left in
    /// `TIME_WAIT` would take ports from the next.
    pub(crate) fn case(
        &mut self,
        scenario: &Scenario,
        span: Span,
        route: Route,
        duration: Duration,
    ) -> Result<Case> {
        let find = |pods: &[Pod], name: String| {
            pods.iter().find(|pod| pod.name() == name).cloned().context(name)
        };
        let client = find(&self.clients, client_name(scenario, span, route))?;
        let server = find(&self.servers, format!("server-{span}-{route}"))?;
        if is_meshed(&client) && !self.enrolled.iter().any(|name| name == client.name()) {
            proxy_of(&self.proxies, &client)?.enrol(&client)?;
            self.enrolled.push(client.name().to_owned());
        }
        Ok(Case { route, client, server, duration })
    }

    /// Puts fresh processes in the place of the proxies; their pods stay enrolled.
    pub(crate) fn restart_proxies(&mut self) -> Result<()> {
        for proxy in std::mem::take(&mut self.proxies) {
            let settings = proxy.settings();
            proxy.kill()?;
            self.proxies.push(settings.start()?);
        }
        Ok(())
    }

    /// Returns what each proxy uses.
    pub(crate) fn resources(&self) -> Result<Vec<Resources>> {
        self.proxies.iter().map(FairleadNode::resources).collect()
    }

    /// Returns the processor time used so far.
    pub(crate) fn cpu(&self) -> Result<Cpu> {
        let proxies = self.resources()?.iter().map(|resources| resources.cpu).sum();
        Ok(Cpu { proxies, machine: machine_cpu()? })
    }
}

// === impl Cpu ===

impl Cpu {
    /// Returns the time used since `earlier`.
    pub(crate) fn since(self, earlier: Self) -> Self {
        let proxies = self.proxies.saturating_sub(earlier.proxies);
        Self { proxies, machine: self.machine.saturating_sub(earlier.machine) }
    }
}

/// Returns the path of the load generator, which is built with this program.
pub(crate) fn load_program() -> Result<PathBuf> {
    Ok(env::current_exe()?.with_file_name("fairlead-load"))
}

fn proxies(lab: &Lab, config: &MeshConfig) -> Result<Vec<FairleadNode>> {
    let config_file = lab.dir().join("config/mesh.yaml");
    fs::create_dir_all(config_file.with_file_name(""))?;
    config.write(&config_file)?;
    let ca = lab.dir().join("ca");
    let start = |node| FairleadNode::on(node).local_config(&config_file).local_ca(&ca).start();
    lab.nodes().iter().map(start).collect()
}

fn proxy_of<'a>(proxies: &'a [FairleadNode], pod: &Pod) -> Result<&'a FairleadNode> {
    let found = proxies.iter().find(|proxy| proxy.node().name() == pod.node());
    found.with_context(|| format!("no proxy on {}", pod.node()))
}

fn clients(node: &Node, scenarios: &[&Scenario]) -> Result<Vec<Pod>> {
    let mut clients = Vec::new();
    for scenario in scenarios {
        for span in scenario.spans {
            for route in scenario.routes {
                let name = client_name(scenario, *span, *route);
                clients.push(node.add_pod(PodSpec::new(&name).for_load())?);
            }
        }
    }
    Ok(clients)
}

fn serve(pod: &Pod) -> Result<[Child; 2]> {
    let mut load = Command::new(load_program()?);
    load.args(["serve", "--echo-port", &ECHO.to_string(), "--http-port", &HTTP.to_string()]);
    let iperf = ["iperf3", "--server", "--port", &IPERF.to_string()];
    Ok([pod.serve(load, HTTP)?, pod.serve(iperf, IPERF)?])
}

fn client_name(scenario: &Scenario, span: Span, route: Route) -> String {
    format!("{}-{span}-{route}", scenario.name)
}

fn server_node(span: Span) -> u8 {
    match span {
        Span::Cross => CLIENT_NODE + 1,
        Span::Same => CLIENT_NODE,
    }
}

fn is_meshed(pod: &Pod) -> bool {
    pod.name().ends_with(&Route::Meshed.to_string())
}

/// Adds up the first line of /proc/stat without idle time, in ticks of 10 ms.
fn machine_cpu() -> Result<Duration> {
    const TICK: Duration = Duration::from_millis(10);
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().context("empty /proc/stat")?;
    let fields: Vec<u32> = line.split_whitespace().skip(1).flat_map(str::parse).collect();
    // user nice system idle iowait irq softirq steal: idle, iowait and steal are no work of ours.
    let busy = [0, 1, 2, 5, 6].iter().filter_map(|index| fields.get(*index)).sum();
    Ok(TICK * busy)
}
