//! Clients that go away before they are answered.

use std::{collections::BTreeMap, io::Write as _, net::TcpStream};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use fairlead_lab::wait_for;
use h2::{Ping, PingPong, Reason, SendStream, client};
use http::Request;

use super::{super::FELT, Stage, raw};
use crate::peer::{Task, adopt, block_on};

/// One path waits before it is sent on, and one between its tries.
const ROUTES: &str = "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: raw, namespace: shop}
spec:
  hosts: [raw]
  http:
  - match: [{uri: {exact: /delayed}}]
    fault: {delay: {percentage: {value: 100}, fixedDelay: 600s}}
    route: [{destination: {host: raw}}]
  - match: [{uri: {exact: /tried}}]
    retries: {attempts: 100, retryOn: reset, backoff: 600s}
    route: [{destination: {host: raw}}]
  - match: [{uri: {exact: /ready}}]
    directResponse: {status: 204}
  - route: [{destination: {host: raw}}]
";

/// A connection of a client that speaks HTTP/2.
struct Http2 {
    requests: client::SendRequest<Bytes>,
    pings: PingPong,
    _connection: Task,
}

// === impl Http2 ===

impl Http2 {
    async fn connect(stage: &Stage) -> Result<Self> {
        let socket = adopt(stage.hostile.dial()?)?;
        let (requests, mut connection) = client::handshake(socket).await?;
        let pings = connection.ping_pong().context("its pings are taken")?;
        let connection = Task::spawn(async move { drop(connection.await) });
        Ok(Self { requests, pings, _connection: connection })
    }

    /// Asks for a path; returns once the request has been seen. The answer has to be held.
    async fn ask(&mut self, path: &str) -> Result<(client::ResponseFuture, SendStream<Bytes>)> {
        let request = Request::get(format!("http://{}{path}", raw())).body(())?;
        let asked = self.requests.send_request(request, false)?;
        // The answer to the first one may come from before it is looked at.
        for _ in 0..2 {
            self.pings.ping(Ping::opaque()).await?;
        }
        Ok(asked)
    }
}

/// Sends the head of a request over HTTP/1, and waits until the endpoint has seen it.
fn ask(stage: &Stage, head: &str) -> Result<TcpStream> {
    let before = stage.script.asked();
    let mut socket = stage.hostile.dial()?;
    socket.write_all(head.as_bytes())?;
    wait_for("the endpoint is asked", FELT, || Ok((stage.script.asked() > before).then_some(())))?;
    Ok(socket)
}

/// Returns the lines of the access log about requests for this path.
fn lines(stage: &Stage, path: &str) -> Result<Vec<String>> {
    let asked = format!(" {path} HTTP/");
    let log = stage.hostile.bound.waypoint.log()?;
    Ok(log.lines().filter(|line| line.contains(&asked)).map(str::to_owned).collect())
}

/// Returns how many requests are counted that nobody waited for, by their flags.
fn left(stage: &Stage) -> Result<BTreeMap<String, f64>> {
    let metrics = stage.hostile.bound.waypoint.metrics()?;
    let mut left = BTreeMap::new();
    for metric in metrics.matching("istio_requests_total", &[("response_code", "0")]) {
        *left.entry(metric.labels["response_flags"].clone()).or_default() += metric.value;
    }
    Ok(left)
}

pub(super) fn requests_that_nobody_waits_for_are_logged_and_counted_once(
    stage: &Stage,
) -> Result<()> {
    let hostile = &stage.hostile;
    stage.script.answers("", true);
    hostile.write(ROUTES)?;
    wait_for("the routes", FELT, || {
        let back =
            hostile.send(b"GET /ready HTTP/1.1\r\nHost: raw\r\nConnection: close\r\n\r\n")?;
        Ok((back.status() == 204).then_some(()))
    })?;
    assert_eq!(left(stage)?, BTreeMap::new());
    leave(stage)?;
    let gone = [
        ("/at-once", "DC"),
        ("/part", "DC"),
        ("/chunk", "DC"),
        ("/unanswered", "DC"),
        ("/tried", "DC"),
        ("/delayed", "DC,DI"),
        ("/reset", "DC"),
        ("/first", "DC"),
        ("/second", "DC"),
    ];
    for (path, _) in gone {
        let logged = || Ok((!lines(stage, path)?.is_empty()).then_some(()));
        wait_for(&format!("a line about {path}"), FELT, logged)?;
    }
    hostile.is_well()?;
    for (path, flags) in gone {
        let lines = lines(stage, path)?;
        let told = format!("\" 0 {flags} downstream_remote_disconnect - ");
        ensure!(lines.len() == 1 && lines[0].contains(&told), "{path}: {lines:?}");
    }
    let counted = [("DC", 8.0), ("DC,DI", 1.0)].map(|(flags, count)| (flags.to_owned(), count));
    assert_eq!(left(stage)?, BTreeMap::from(counted));
    Ok(())
}

/// Leaves before, while and after a request is sent on, whatever it waits for.
fn leave(stage: &Stage) -> Result<()> {
    stage.script.answers("", false);
    let mut at_once = stage.hostile.dial()?;
    at_once.write_all(b"GET /at-once HTTP/1.1\r\nHost: raw\r\n\r\n")?;
    drop(at_once);
    drop(ask(stage, "POST /part HTTP/1.1\r\nHost: raw\r\nContent-Length: 99\r\n\r\npart")?);
    drop(ask(
        stage,
        "POST /chunk HTTP/1.1\r\nHost: raw\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n",
    )?);
    drop(ask(stage, "GET /unanswered HTTP/1.1\r\nHost: raw\r\n\r\n")?);
    stage.script.answers("", true);
    drop(ask(stage, "GET /tried HTTP/1.1\r\nHost: raw\r\n\r\n")?);
    stage.script.answers("", false);
    block_on(async {
        let mut client = Http2::connect(stage).await?;
        let (_answer, mut stream) = client.ask("/delayed").await?;
        stream.send_reset(Reason::CANCEL);
        let (_answer, mut stream) = client.ask("/reset").await?;
        stream.send_reset(Reason::CANCEL);
        // The others end with their connection.
        let _answers = (client.ask("/first").await?, client.ask("/second").await?);
        Ok(())
    })
}
