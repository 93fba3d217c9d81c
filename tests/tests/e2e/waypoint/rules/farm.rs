//! A service entry with two endpoints, behind a waypoint.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use anyhow::{Context as _, Result, ensure};
use fairlead_lab::{Pod, mesh::vip4, wait_for};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::watch,
    task::JoinSet,
};

use super::super::{Bound, FELT};
use crate::peer::{App, Task, dial};

/// Port of the endpoints.
const APP: u16 = 7000;

/// Ports of the service: the usual one, another one, and one that is no HTTP.
pub(super) const HTTP: u16 = 80;
pub(super) const OTHER: u16 = 81;
pub(super) const TCP: u16 = 82;

const CLOSES: &[u8] = b"Connection: close\r\n";

/// What an endpoint does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Does {
    /// Answers with this status.
    Answer(u16),
    /// Nothing, for now.
    Wait,
    /// Closes the connection.
    Close,
}

/// One of the endpoints.
pub(super) struct Endpoint {
    does: watch::Sender<Does>,
    asked: Arc<AtomicUsize>,
    _task: Task,
}

/// The service, its endpoints and the rule that holds.
pub(super) struct Farm {
    pub(super) near: Endpoint,
    pub(super) far: Endpoint,
    /// Rules so far.
    rules: usize,
    pub(super) bound: Bound,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer(String);

// === impl Endpoint ===

impl Endpoint {
    fn start(pod: &Pod, name: &'static str) -> Result<Self> {
        let app = App::listen(pod, APP)?;
        let (does, doing) = watch::channel(Does::Answer(200));
        let asked = Arc::<AtomicUsize>::default();
        let counted = asked.clone();
        let task = Task::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = app.accept().await {
                connections.spawn(serve(socket, name, doing.clone(), counted.clone()));
            }
        });
        Ok(Self { does, asked, _task: task })
    }

    /// Has it do so from now on.
    pub(super) fn does(&self, what: Does) {
        self.does.send_replace(what);
    }

    /// Returns how many requests it has got.
    pub(super) fn asked(&self) -> usize {
        self.asked.load(Relaxed)
    }
}

async fn serve(
    mut socket: tokio::net::TcpStream,
    name: &'static str,
    mut doing: watch::Receiver<Does>,
    asked: Arc<AtomicUsize>,
) -> Result<()> {
    let mut buffer = [0; 4096];
    // A request comes in one piece.
    while let read @ 1.. = socket.read(&mut buffer).await? {
        asked.fetch_add(1, Relaxed);
        let does = *doing.wait_for(|does| *does != Does::Wait).await?;
        let Does::Answer(status) = does else { return Ok(()) };
        let length = name.len();
        let answer = format!("HTTP/1.1 {status} said\r\nContent-Length: {length}\r\n\r\n{name}");
        socket.write_all(answer.as_bytes()).await?;
        // As it was sent where nobody looks at it.
        if buffer[..read].windows(CLOSES.len()).any(|bytes| bytes == CLOSES) {
            return Ok(());
        }
    }
    Ok(())
}

// === impl Farm ===

impl Farm {
    pub(super) fn new(name: &str) -> Result<Self> {
        let bound = Bound::new(name)?;
        let (near, far) =
            (Endpoint::start(&bound.mesh.b, "near")?, Endpoint::start(&bound.second, "far")?);
        let addresses = [&bound.mesh.b, &bound.second].map(Pod::ipv4);
        bound.mesh.plane.write("farm.yaml", &entry(addresses.map(|ip| ip.to_string())))?;
        let mut farm = Self { near, far, rules: 0, bound };
        farm.rule("loadBalancer: {simple: RANDOM}")?;
        Ok(farm)
    }

    /// Has both endpoints answer, and this `trafficPolicy` hold in place of the last one.
    pub(super) fn rule(&mut self, policy: &str) -> Result<()> {
        self.rule_with(policy, "", "")
    }

    /// Does so with further fields of the rule and of the destination of the route.
    pub(super) fn rule_with(&mut self, policy: &str, more: &str, to: &str) -> Result<()> {
        for endpoint in [&self.near, &self.far] {
            endpoint.does(Does::Answer(200));
        }
        self.rules += 1;
        let mark = format!("rule-{}", self.rules);
        self.bound.write(&format!(
            "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: farm, namespace: shop}}
spec: {{host: farm.example, trafficPolicy: {{{policy}}} {more}}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: farm, namespace: shop}}
spec:
  hosts: [farm.example]
  http:
  - headers: {{response: {{set: {{x-mark: {mark}}}}}}}
    retries: {{attempts: 0}}
    route: [{{destination: {{host: farm.example {to}}}}}]
"
        ))?;
        wait_for(&mark, FELT, || {
            let answer = self.get("/");
            Ok(answer.is_ok_and(|answer| answer.header("x-mark") == Some(&mark)).then_some(()))
        })
        .with_context(|| self.bound.waypoint.log().unwrap_or_default())
    }

    /// Gets a page.
    pub(super) fn get(&self, path: &str) -> Result<Answer> {
        self.get_with(HTTP, path, "")
    }

    /// Gets a page at a port, with further headers.
    pub(super) fn get_with(&self, port: u16, path: &str, headers: &str) -> Result<Answer> {
        Answer::read(self.ask(port, path, headers)?)
    }

    /// Asks for a page.
    pub(super) fn ask(&self, port: u16, path: &str, headers: &str) -> Result<TcpStream> {
        let mut socket = dial(&self.bound.mesh.a, farm(port))?;
        let host = "Host: farm.example\r\nConnection: close\r\n";
        socket.write_all(format!("GET {path} HTTP/1.1\r\n{host}{headers}\r\n").as_bytes())?;
        Ok(socket)
    }

    /// Gets so many pages, one after the other; returns who gave them.
    pub(super) fn names(&self, count: usize) -> Result<Vec<String>> {
        let answers = (0..count).map(|_| self.get("/"));
        answers.map(|answer| Ok(answer?.name().to_owned())).collect()
    }

    /// Checks that all of the next answers are of one endpoint.
    pub(super) fn is_all(&self, name: &str) -> Result<()> {
        let names = self.names(10)?;
        ensure!(names.iter().all(|other| other == name), "{names:?} in place of {name}");
        Ok(())
    }

    /// Waits until an endpoint gives an answer.
    pub(super) fn wait_for(&self, name: &str) -> Result<()> {
        wait_for(name, FELT, || Ok((self.get("/")?.name() == name).then_some(())))
    }
}

/// The address of the service at a port.
pub(super) fn farm(port: u16) -> SocketAddr {
    vip4(60, port)
}

fn entry([near, far]: [String; 2]) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: farm, namespace: shop, labels: {{istio.io/use-waypoint: waypoint}}}}
spec:
  hosts: [farm.example]
  addresses: [{}]
  ports:
  - {{number: {HTTP}, targetPort: {APP}, name: http, protocol: HTTP}}
  - {{number: {OTHER}, targetPort: {APP}, name: http-other, protocol: HTTP}}
  - {{number: {TCP}, targetPort: {APP}, name: tcp, protocol: TCP}}
  resolution: STATIC
  endpoints:
  - {{address: {near}, locality: home/one, labels: {{place: near}}}}
  - {{address: {far}, locality: abroad/one, labels: {{place: far}}}}
",
        farm(HTTP).ip()
    )
}

// === impl Answer ===

impl Answer {
    pub(super) fn read(mut socket: TcpStream) -> Result<Self> {
        let mut text = String::new();
        socket.read_to_string(&mut text)?;
        Ok(Self(text))
    }

    pub(super) fn status(&self) -> &str {
        self.0.split(' ').nth(1).unwrap_or_default()
    }

    /// Returns which endpoint gave it, or what else it says.
    pub(super) fn name(&self) -> &str {
        self.0.split_once("\r\n\r\n").map_or("", |(_, body)| body)
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let fields = self.0.lines().filter_map(|line| line.split_once(": "));
        let mut values = fields.filter(|(field, _)| *field == name).map(|(_, value)| value.trim());
        values.next()
    }
}
