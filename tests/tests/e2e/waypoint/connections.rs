//! How long connections to endpoints last, and what they carry at once.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use anyhow::Result;
use bytes::Bytes;
use fairlead_lab::{Pod, manifest, wait_for};
use h2::server;
use http::Response;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::watch,
    task::JoinSet,
};

use super::{Bound, FELT};
use crate::{
    mesh::vip4,
    peer::{App, PREFACE, Task, dial},
};

/// Port of the application.
const APP: u16 = 7000;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// The HTTP that the application is spoken to in.
#[derive(Clone, Copy, Debug)]
enum Version {
    Http1,
    Http2,
}

/// What the application has seen, by version.
#[derive(Debug, Default)]
struct Seen([Counts; 2]);

#[derive(Debug, Default)]
struct Counts {
    opened: AtomicUsize,
    closed: AtomicUsize,
    requests: AtomicUsize,
    /// Requests that wait for their answer.
    held: AtomicUsize,
    /// The most of them on one connection.
    most: AtomicUsize,
}

/// An application that speaks either version, in some pods.
struct Application {
    seen: Arc<Seen>,
    /// Whether requests over HTTP/2 are answered.
    answers: watch::Sender<bool>,
    _tasks: Vec<Task>,
}

/// A mesh with the application as the bound service `pool`.
struct Pooled {
    application: Application,
    bound: Bound,
}

// === impl Seen ===

impl Seen {
    fn of(&self, version: Version) -> &Counts {
        &self.0[version as usize]
    }
}

// === impl Counts ===

impl Counts {
    fn requests(&self) -> usize {
        self.requests.load(Relaxed)
    }

    fn closed(&self) -> usize {
        self.closed.load(Relaxed)
    }

    fn open(&self) -> usize {
        self.opened.load(Relaxed) - self.closed()
    }
}

// === impl Application ===

impl Application {
    fn start<const N: usize>(pods: [&Pod; N]) -> Result<Self> {
        let (seen, (answers, answering)) = (Arc::<Seen>::default(), watch::channel(true));
        let task = |pod: &Pod| {
            let (app, seen, answering) = (App::listen(pod, APP)?, seen.clone(), answering.clone());
            Ok(Task::spawn(async move {
                let mut connections = JoinSet::new();
                while let Ok((socket, _)) = app.accept().await {
                    connections.spawn(serve(socket, seen.clone(), answering.clone()));
                }
            }))
        };
        let tasks = pods.into_iter().map(task).collect::<Result<_>>()?;
        Ok(Self { seen, answers, _tasks: tasks })
    }
}

async fn serve(socket: tokio::net::TcpStream, seen: Arc<Seen>, answering: watch::Receiver<bool>) {
    let mut first = [0; 3];
    if socket.peek(&mut first).await.is_err() {
        return;
    }
    let version = if PREFACE.starts_with(&first) { Version::Http2 } else { Version::Http1 };
    let counts = seen.of(version);
    counts.opened.fetch_add(1, Relaxed);
    // However it ends.
    let _ = match version {
        Version::Http1 => serve_http1(socket, counts).await,
        Version::Http2 => serve_http2(socket, seen.clone(), answering).await,
    };
    counts.closed.fetch_add(1, Relaxed);
}

async fn serve_http1(mut socket: tokio::net::TcpStream, counts: &Counts) -> Result<()> {
    let mut buffer = [0; 4096];
    // A request comes in one piece.
    while socket.read(&mut buffer).await? > 0 {
        counts.requests.fetch_add(1, Relaxed);
        socket.write_all(ANSWER).await?;
    }
    Ok(())
}

async fn serve_http2(
    socket: tokio::net::TcpStream,
    seen: Arc<Seen>,
    answering: watch::Receiver<bool>,
) -> Result<()> {
    let mut connection = server::handshake(socket).await?;
    let held = Arc::<AtomicUsize>::default();
    while let Some(request) = connection.accept().await {
        let (_, mut respond) = request?;
        let (seen, held, mut answering) = (seen.clone(), held.clone(), answering.clone());
        tokio::spawn(async move {
            let counts = seen.of(Version::Http2);
            counts.requests.fetch_add(1, Relaxed);
            counts.held.fetch_add(1, Relaxed);
            counts.most.fetch_max(held.fetch_add(1, Relaxed) + 1, Relaxed);
            answering.wait_for(|answers| *answers).await?;
            held.fetch_sub(1, Relaxed);
            counts.held.fetch_sub(1, Relaxed);
            respond.send_response(Response::new(()), false)?.send_data(Bytes::new(), true)?;
            anyhow::Ok(())
        });
    }
    Ok(())
}

// === impl Pooled ===

impl Pooled {
    fn new(name: &str) -> Result<Self> {
        let bound = Bound::new(name)?;
        let application = Application::start([&bound.mesh.b, &bound.second])?;
        // What is open before a test begins is soon closed.
        bound.write(&rule(Version::Http1, "", ", idleTimeout: 1s"))?;
        let (ports, labels) = ([(pool().port(), APP)], manifest::USE_WAYPOINT);
        let service =
            manifest::service(["shop", "pool"], labels, &[pool().ip()], &ports, Some("b"));
        bound.mesh.plane.write("pool.yaml", &service.replace("name: p80", "name: http"))?;
        let pooled = Self { application, bound };
        wait_for("the service", FELT, || {
            let before = pooled.bound.passed()?;
            // Until it is known, its address is nobody's.
            let is_served = pooled.get().is_ok_and(|status| status == "200");
            Ok((is_served && pooled.bound.passed()? > before).then_some(()))
        })?;
        Ok(pooled)
    }

    /// Has connections of a version be used so, in place of those of the other one.
    fn rule(&self, version: Version, tcp: &str, http: &str) -> Result<&Counts> {
        self.bound.write(&rule(version, tcp, http))?;
        let counts = self.application.seen.of(version);
        wait_for("the rule", FELT, || {
            let before = counts.requests();
            assert_eq!(self.get()?, "200");
            Ok((counts.requests() > before).then_some(()))
        })?;
        Ok(counts)
    }

    /// Sends a request.
    fn ask(&self) -> Result<TcpStream> {
        let mut socket = dial(&self.bound.mesh.a, pool())?;
        socket.write_all(b"GET / HTTP/1.1\r\nHost: pool\r\nConnection: close\r\n\r\n")?;
        Ok(socket)
    }

    /// Sends a request; returns the status of its answer.
    fn get(&self) -> Result<String> {
        status(self.ask()?)
    }
}

/// Returns a rule that has endpoints be spoken to in this version.
fn rule(version: Version, tcp: &str, http: &str) -> String {
    let upgrade = match version {
        Version::Http1 => "DO_NOT_UPGRADE",
        Version::Http2 => "UPGRADE",
    };
    format!(
        "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: pool, namespace: shop}}
spec:
  host: pool
  trafficPolicy:
    connectionPool:
      tcp: {{{tcp}}}
      http: {{h2UpgradePolicy: {upgrade}{http}}}
"
    )
}

/// Returns the status of an answer.
fn status(mut socket: TcpStream) -> Result<String> {
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    Ok(answer.split(' ').nth(1).unwrap_or_default().to_owned())
}

/// The address of the service.
fn pool() -> SocketAddr {
    vip4(30, 80)
}

#[test]
fn connections_to_endpoints_end_when_nobody_uses_them_or_they_are_old() -> Result<()> {
    let pooled = Pooled::new("wpold")?;
    for version in [Version::Http2, Version::Http1] {
        // Without the rule they would last longer than anything is waited for.
        let counts = pooled.rule(version, "", ", idleTimeout: 1s")?;
        let ended = || Ok((counts.open() == 0).then_some(()));
        wait_for(&format!("the end of what is not used: {version:?}"), FELT, ended)?;
    }
    for version in [Version::Http2, Version::Http1] {
        let counts = pooled.rule(version, "maxConnectionDuration: 2s", "")?;
        let before = counts.closed();
        wait_for(&format!("the end of what is in use: {version:?}"), FELT, || {
            assert_eq!(pooled.get()?, "200");
            Ok((counts.closed() > before + 1).then_some(()))
        })?;
    }
    Ok(())
}

#[test]
fn an_http_2_connection_to_an_endpoint_carries_no_more_requests_than_its_rule_says() -> Result<()> {
    const REQUESTS: usize = 9;
    let pooled = Pooled::new("wpstreams")?;
    let counts = pooled.rule(Version::Http2, "", ", maxConcurrentStreams: 2")?;
    pooled.application.answers.send_replace(false);
    let asked: Vec<_> = (0..REQUESTS).map(|_| pooled.ask()).collect::<Result<_>>()?;
    wait_for("all requests at the endpoints", FELT, || {
        Ok((counts.held.load(Relaxed) == REQUESTS).then_some(()))
    })?;
    assert_eq!(counts.most.load(Relaxed), 2);
    pooled.application.answers.send_replace(true);
    for socket in asked {
        assert_eq!(status(socket)?, "200");
    }
    Ok(())
}
