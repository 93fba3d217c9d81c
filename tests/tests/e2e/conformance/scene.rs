//! The mesh of the tests: two versions of a server, three services, and clients of two namespaces.

use std::{collections::HashMap, fmt::Debug, time::Duration};

use anyhow::{Context as _, Result};
use fairlead_lab::{
    Child, GrpcClient, GrpcServer, Host as _, Pod, WaypointProxy, manifest,
    mesh::{ControlledMesh, file_of},
    python, wait_for,
};
use serde::Deserialize;

use crate::mesh::vip4;

/// Time for a change of the configuration to be felt: generous for what takes milliseconds on an idle
/// machine.
pub(super) const FELT: Duration = Duration::from_secs(30);

/// Name of the waypoint and of its pod.
const WAYPOINT: &str = "waypoint";

/// Ports of the servers; services have the second one at 8080.
const PORTS: [u16; 2] = [80, 8081];

/// Port of gRPC, of servers and services.
const GRPC: u16 = 7070;

/// Services, by the last number of their addresses, and the label that selects their pods.
const SERVICES: [(&str, u8, &str); 4] = [
    ("echo", 30, "app: echo"),
    ("echo-v1", 31, "version: v1"),
    ("echo-v2", 32, "version: v2"),
    // Asked whether a configuration is in force.
    (MARK, 33, "version: v1"),
];

/// The service that says which configuration is in force.
const MARK: &str = "mark";

/// Who sends a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sender {
    /// A pod of the namespace of the services.
    #[default]
    Producer,
    /// A pod of another namespace.
    Consumer,
}

/// The mesh, with all services bound to one waypoint.
pub(super) struct Scene {
    pub(super) waypoint: WaypointProxy,
    /// The pod of version 2; that of version 1 is `mesh.b`.
    pub(super) second: Pod,
    pub(super) mesh: ControlledMesh,
    /// The servers of both versions.
    pub(super) servers: [Child; 2],
    _grpc: [GrpcServer; 2],
    /// Number of configurations so far.
    written: u32,
}

/// What a client got.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// Status; 0 without an answer.
    pub(super) status: u16,
    /// Headers, with names in lower case.
    pub(super) headers: HashMap<String, String>,
    /// What arrived at the server, if it was one that answered.
    pub(super) arrived: Option<Arrived>,
}

/// What arrived at a server, as `report.py` says.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Arrived {
    pub(super) pod: String,
    pub(super) path: String,
    pub(super) headers: HashMap<String, String>,
}

// === impl Scene ===

impl Scene {
    pub(super) fn new(name: &str) -> Result<Self> {
        let mesh = ControlledMesh::new(name)?;
        let (pod, second) = (mesh.add_pod(2, "shop", WAYPOINT)?, mesh.add_pod(2, "shop", "b2")?);
        mesh.n2.enrol(&second)?;
        let gateway_name = "gateway.networking.k8s.io/gateway-name: waypoint";
        let labels = format!("istio.io/dataplane-mode: none, {gateway_name}");
        mesh.plane.write(&file_of(&pod), &manifest::pod(&pod, &labels))?;
        for (pod, version) in [(&mesh.b, "v1"), (&second, "v2")] {
            let app = format!("app: {}", pod.name());
            let written = manifest::pod(pod, &format!("version: {version}"));
            mesh.plane.write(&file_of(pod), &written.replace(&app, "app: echo"))?;
        }
        let servers = [serve(&mesh.b, "echo-v1")?, serve(&second, "echo-v2")?];
        let grpc = [
            GrpcServer::start(&mesh.b, GRPC, "echo-v1")?,
            GrpcServer::start(&second, GRPC, "echo-v2")?,
        ];
        let waypoint = WaypointProxy::start(&mesh.plane, &pod, WAYPOINT)?;
        let gateway = manifest::waypoint(["shop", WAYPOINT], pod.v4(0).ip());
        let services = SERVICES.map(|(name, number, selector)| service(name, number, selector));
        let objects = services.into_iter().chain([gateway]);
        mesh.plane.write("services.yaml", &manifest::join(objects))?;
        let mut scene = Self { waypoint, second, mesh, servers, _grpc: grpc, written: 0 };
        // The certificates of pods that have just been enrolled may take some time.
        for service in ["echo-v1", "echo-v2"] {
            for sender in [Sender::Producer, Sender::Consumer] {
                scene.until(sender, &[url(service, "/")], |answer| answer.status == 200)?;
            }
        }
        scene.apply("")?;
        Ok(scene)
    }

    /// Makes `objects` all that is said of routes, and waits until the waypoint has taken it.
    pub(super) fn apply(&mut self, objects: &str) -> Result<()> {
        self.written += 1;
        let mark = self.written.to_string();
        let marker = format!(
            "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: mark, namespace: shop}}
spec:
  parentRefs: [{{group: '', kind: Service, name: {MARK}}}]
  rules:
  - backendRefs: [{{name: {MARK}, port: 80}}]
    filters:
    - {{type: ResponseHeaderModifier, responseHeaderModifier: {{set: [{{name: x-mark, value: '{mark}'}}]}}}}
"
        );
        self.mesh.plane.write("routes.yaml", &manifest::join([&marker, objects]))?;
        let is_marked = |answer: &Answer| answer.headers.get("x-mark") == Some(&mark);
        self.until(Sender::Producer, &[url(MARK, "/")], is_marked).map(drop)
    }

    /// Sends a request with curl, whose further options and URL these are.
    pub(super) fn send<S: AsRef<str>>(&self, sender: Sender, options: &[S]) -> Result<Answer> {
        let mut command = self.curl(options);
        command.insert(1, "-i".to_owned());
        let output = self.pod_of(sender).run(&command)?;
        Answer::read(&output.stdout).with_context(|| format!("{output:?}"))
    }

    /// Sends a request again and again until the answer is as it has to be.
    pub(super) fn until<S: AsRef<str> + Debug>(
        &self,
        sender: Sender,
        options: &[S],
        mut wanted: impl FnMut(&Answer) -> bool,
    ) -> Result<Answer> {
        let mut last = None;
        let found = wait_for("the wanted answer", FELT, || {
            let answer = self.send(sender, options)?;
            let found = wanted(&answer).then(|| answer.clone());
            last = Some(answer);
            Ok(found)
        });
        found.with_context(|| format!("{options:?}: the last was {last:?}\n{}", self.log()))
    }

    /// Sends many requests, with a URL that stands for all of them, and returns how many each version
    /// answered.
    pub(super) fn count(&self, options: &[&str]) -> Result<HashMap<String, u32>> {
        let output = self.mesh.a.run(self.curl(options))?.checked()?;
        let mut counts = HashMap::new();
        for line in output.stdout.lines() {
            let arrived: Arrived = serde_json::from_str(line).with_context(|| line.to_owned())?;
            *counts.entry(arrived.pod).or_default() += 1;
        }
        Ok(counts)
    }

    /// Connects a client for gRPC to the service of both versions.
    pub(super) fn call_echo(&self) -> Result<GrpcClient> {
        let (name, number, _) = SERVICES[0];
        let address = vip4(number, GRPC);
        GrpcClient::connect(&self.mesh.a, address, &format!("{name}:{GRPC}"))
    }

    /// Returns what the waypoint logged.
    pub(super) fn log(&self) -> String {
        self.waypoint.log().unwrap_or_default()
    }

    fn pod_of(&self, sender: Sender) -> &Pod {
        match sender {
            Sender::Producer => &self.mesh.a,
            Sender::Consumer => &self.mesh.c,
        }
    }

    /// Returns the command of a curl that knows the addresses of services, and of the pod of version
    /// 2 as `pod-v2`.
    fn curl<S: AsRef<str>>(&self, options: &[S]) -> Vec<String> {
        let services = SERVICES.map(|(name, number, _)| (name, vip4(number, 0).ip()));
        let pod = ("pod-v2", self.second.ipv4().into());
        let hosts = services.into_iter().chain([pod]);
        let names = hosts
            .flat_map(|(name, address)| ["--connect-to".to_owned(), format!("{name}::{address}:")]);
        let fixed = ["curl", "-sS", "--max-time", "20", "--path-as-is"].map(str::to_owned);
        let options = options.iter().map(|option| option.as_ref().to_owned());
        fixed.into_iter().chain(names).chain(options).collect()
    }
}

// === impl Answer ===

impl Answer {
    /// Reads what `curl -i` prints.
    fn read(text: &str) -> Result<Self> {
        let none = || Self { status: 0, headers: HashMap::new(), arrived: None };
        let Some((head, body)) = text.split_once("\r\n\r\n") else { return Ok(none()) };
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).context("no status")?;
        let headers = lines.filter_map(|line| line.split_once(':'));
        Ok(Self {
            status: status.parse()?,
            headers: headers
                .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
                .collect(),
            arrived: serde_json::from_str(body).ok(),
        })
    }

    /// Returns the version that answered, if one did.
    pub(super) fn pod(&self) -> Option<&str> {
        self.arrived.as_ref().map(|arrived| &*arrived.pod)
    }
}

/// Returns the URL of a path of a service, at its port 80.
pub(super) fn url(service: &str, path: &str) -> String {
    format!("http://{service}{path}")
}

fn serve(pod: &Pod, name: &str) -> Result<Child> {
    let ports = PORTS.map(|port| port.to_string());
    let arguments = [[name.to_owned()].as_slice(), ports.as_slice()].concat();
    pod.serve(python("report.py", &arguments), PORTS[0])
}

fn service(name: &str, number: u8, selector: &str) -> String {
    let address = vip4(number, 0).ip();
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: shop, labels: {{{}}}}}
spec:
  selector: {{{selector}}}
  clusterIP: {address}
  ports:
  - {{name: http, port: 80, appProtocol: http}}
  - {{name: http-alt, port: 8080, targetPort: 8081, appProtocol: http}}
  - {{name: grpc, port: 7070, appProtocol: grpc}}
  - {{name: tcp, port: 9090, targetPort: 80, appProtocol: tcp}}
",
        manifest::USE_WAYPOINT
    )
}
