//! The lab of the measurements: a client and a server, and between them waypoints that take turns.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use fairlead_lab::{
    Child, ControlPlane, Host as _, Lab, Pod, PodSpec, Resources, WaypointProxy, manifest,
    mesh::file_of,
};
use nix::unistd::Pid;

use super::{
    credentials::Credentials,
    envoy::{self, Setup},
    kind::Kind,
    objects::{self, NAMESPACE, SERVICE, WAYPOINT},
};
use crate::{
    rig::{ECHO, HTTP, load_program},
    systems::{FAIRLEAD, Peer},
};

/// Name of Envoy in the results.
pub(super) const ENVOY: &str = "envoy";

/// The processor of the waypoints: one of them works at a time.
const PROXY_PROCESSOR: &str = "0";

/// The processor of the load and of the server.
const LOAD_PROCESSOR: &str = "1";

/// The node of everything but the control plane.
const NODE: u8 = 1;

/// The node of the control plane.
const CONTROL_NODE: u8 = 2;

/// Port of tunnels.
const HBONE: u16 = 15008;

/// Everything that a measurement needs; programs end before the lab does.
#[derive(Debug)]
pub(super) struct Scene {
    pub(super) proxies: Vec<Proxy>,
    pub(super) routes: u32,
    kinds: &'static [Kind],
    client: Pod,
    credentials: Credentials,
    plane: ControlPlane,
    _server: Child,
    lab: Lab,
}

/// A waypoint that is measured.
#[derive(Debug)]
pub(super) struct Proxy {
    pub(super) name: String,
    pod: Pod,
    process: Process,
}

/// A change of a route that is ready to be made.
pub(super) type Change<'a> = Box<dyn FnOnce() -> Result<()> + 'a>;

#[derive(Debug)]
enum Process {
    Fairlead(WaypointProxy),
    /// With the directory of its routes.
    Envoy(Child, PathBuf),
}

// === impl Scene ===

impl Scene {
    /// Starts a build of ours, others of `peers`, and Envoy, each with so many routes.
    pub(super) fn new(
        routes: u32,
        kinds: &'static [Kind],
        program: &Path,
        peers: &[Peer],
    ) -> Result<Self> {
        let lab = Lab::with_nodes("bench", CONTROL_NODE)?;
        let pod = |name: &str, account: &str| {
            let spec = PodSpec::new(name).namespace(NAMESPACE).service_account(account);
            lab.node(NODE).add_pod(spec.for_load())
        };
        let (client, server) = (pod("client", "client")?, pod("server", "server")?);
        let ours = std::iter::once((FAIRLEAD, program))
            .chain(peers.iter().map(|peer| (&*peer.name, Path::new(&peer.command))));
        let ours = ours.map(|(name, program)| Ok((pod(name, WAYPOINT)?, name, program)));
        let ours = ours.collect::<Result<Vec<_>>>()?;
        let theirs = pod(ENVOY, WAYPOINT)?;

        let settings = ControlPlane::on(lab.node(CONTROL_NODE), &[])?;
        let (first, ..) = ours.first().context("no waypoint")?;
        settings.write("service.yaml", &objects::service(kinds, first.ipv4().into()))?;
        for (file, object) in objects::routes(routes, "m0") {
            settings.write(&file, &object)?;
        }
        settings.write(&file_of(&client), &manifest::pod(&client, manifest::AMBIENT))?;
        for pod in ours.iter().map(|(pod, ..)| pod).chain([&server]) {
            let labels = "istio.io/dataplane-mode: none";
            settings.write(&file_of(pod), &manifest::pod(pod, labels))?;
        }
        let plane = settings.start()?;
        let issue = |identity: &str, name: &str| {
            Credentials::issue(&plane.ca_dir(), identity, lab.dir(), name)
        };
        let credentials = issue(&client.identity(), "client")?;
        let mut load = pinned(load_program()?);
        load.args(["serve", "--echo-port", &ECHO.to_string(), "--http-port", &HTTP.to_string()]);
        load.args(["--h2c-port", &Kind::HTTP2.to_string()]);
        let serving = server.serve(load, HTTP)?;

        let mut proxies = Vec::new();
        for (pod, name, program) in ours {
            proxies.push(Proxy::fairlead(name, program, &plane, pod)?);
        }
        let setup = Setup {
            dir: &lab.dir().join("envoy"),
            credentials: &issue(&theirs.identity(), "envoy")?,
            roots: &plane.root_cert(),
            server: &server,
            kinds,
        };
        proxies.push(Proxy::envoy(&setup, theirs, routes)?);
        Ok(Self { proxies, routes, kinds, client, credentials, plane, _server: serving, lab })
    }

    /// Returns the kinds of requests that there are ports for.
    pub(super) fn kinds(&self) -> &'static [Kind] {
        self.kinds
    }

    /// Runs the load generator's `verb` through `proxy` to its end.
    pub(super) fn load(
        &self,
        proxy: &Proxy,
        kind: Kind,
        verb: &str,
        args: &[String],
        limit: Duration,
    ) -> Result<String> {
        let command = self.load_command(proxy, kind, verb, args)?;
        let output = self.client.run_within(command, limit)?.checked();
        Ok(output.with_context(|| proxy.log().unwrap_or_default())?.stdout)
    }

    /// Starts it.
    pub(super) fn start_load(
        &self,
        proxy: &Proxy,
        kind: Kind,
        verb: &str,
        args: &[String],
    ) -> Result<Child> {
        self.client.spawn(self.load_command(proxy, kind, verb, args)?)
    }

    /// Returns what changes the last route, so that its answers have `mark`.
    pub(super) fn change<'a>(&'a self, proxy: &'a Proxy, mark: &str) -> Result<Change<'a>> {
        match &proxy.process {
            Process::Fairlead(_) => {
                // As with `kubectl apply`: the object that has the route, and no other.
                let last = objects::routes(self.routes, mark).pop();
                let (file, object) = last.context("no route")?;
                Ok(Box::new(move || self.plane.write(&file, &object)))
            }
            Process::Envoy(_, dir) => {
                let routes = envoy::routes(Kind::Http1, self.routes, mark);
                Ok(Box::new(move || envoy::put_routes(dir, Kind::Http1, &routes)))
            }
        }
    }

    fn load_command(
        &self,
        proxy: &Proxy,
        kind: Kind,
        verb: &str,
        args: &[String],
    ) -> Result<Command> {
        let mut command = pinned(load_program()?);
        command.arg(verb).args(["--via", &proxy.pod.v4(HBONE).to_string()]);
        command.args(["--to", &SocketAddr::from((SERVICE, kind.port())).to_string()]);
        command.arg("--certificate").arg(&self.credentials.certificate);
        command.arg("--key").arg(&self.credentials.key).args(args);
        Ok(command)
    }
}

/// Returns a command for the load or the server.
fn pinned(program: PathBuf) -> Command {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", LOAD_PROCESSOR]).arg(program);
    command
}

// === impl Proxy ===

impl Proxy {
    fn fairlead(name: &str, program: &Path, plane: &ControlPlane, pod: Pod) -> Result<Self> {
        let args = ["--workers", "1"];
        let process = WaypointProxy::start_program(program, plane, &pod, WAYPOINT, &args)?;
        let proxy = Self { name: name.to_owned(), pod, process: Process::Fairlead(process) };
        proxy.pin().map(|()| proxy)
    }

    fn envoy(setup: &Setup<'_>, pod: Pod, routes: u32) -> Result<Self> {
        let process = Process::Envoy(setup.start(&pod, routes)?, setup.dir.to_owned());
        let proxy = Self { name: ENVOY.to_owned(), pod, process };
        proxy.pin().map(|()| proxy)
    }

    /// Returns what it uses.
    pub(super) fn usage(&self) -> Result<Resources> {
        Resources::of(self.pid())
    }

    /// Keeps all of its threads on one processor.
    fn pin(&self) -> Result<()> {
        let mut command = Command::new("taskset");
        command.args(["--all-tasks", "--pid", "--cpu-list", PROXY_PROCESSOR]);
        let output = command.arg(self.pid().to_string()).output().context("taskset")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    fn pid(&self) -> Pid {
        match &self.process {
            Process::Fairlead(proxy) => proxy.pid(),
            Process::Envoy(child, _) => child.pid(),
        }
    }

    /// Returns what it said of errors.
    fn log(&self) -> Result<String> {
        match &self.process {
            // Its access log is in it, too: the end tells why a measurement failed.
            Process::Fairlead(proxy) => proxy.log().map(|log| end_of(&log).to_owned()),
            Process::Envoy(child, _) => child.stderr(),
        }
    }
}

/// Bytes of a log that an error shows.
const SHOWN_BYTES: usize = 2_000;

fn end_of(log: &str) -> &str {
    let from = log.len().saturating_sub(SHOWN_BYTES);
    log.get(log.ceil_char_boundary(from)..).unwrap_or_default()
}

// === impl Drop ===

impl Drop for Scene {
    fn drop(&mut self) {
        // A log of millions of requests would be copied with the rest of the lab's directory.
        let _ = fs::remove_file(self.lab.dir().join("envoy/access.log"));
    }
}
