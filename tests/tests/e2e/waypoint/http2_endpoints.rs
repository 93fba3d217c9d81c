//! Endpoints of HTTP/2 that refuse streams, or do not answer probes.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use anyhow::{Result, ensure};
use fairlead_lab::{
    Pod,
    mesh::{TRANSFER, vip4},
    wait_for,
};
use tokio::{io::AsyncReadExt as _, net::TcpStream, sync::watch, task::JoinSet};

use super::{Bound, FELT};
use crate::{
    clients::curl_with,
    peer::{App, Frame, PREFACE, Task, read_frame, write_frame},
};

/// A header block with `:status: 200`, which is the eighth of the static table.
const OK: &[u8] = b"\x88";

/// Code of a stream with which nothing was done (RFC 9113 section 7).
const REFUSED_STREAM: u32 = 0x7;

/// What an endpoint does with requests. It answers no PING in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    Answer,
    Refuse,
    Nothing,
}

/// What an endpoint has seen.
#[derive(Debug, Default)]
struct Seen {
    refused: AtomicUsize,
    waiting: AtomicUsize,
    pings: AtomicUsize,
}

/// An endpoint in a pod.
struct Endpoint {
    does: watch::Sender<Does>,
    seen: Arc<Seen>,
    _task: Task,
}

// === impl Endpoint ===

impl Endpoint {
    fn start(pod: &Pod) -> Result<Self> {
        let (app, seen) = (App::listen(pod, TRANSFER)?, Arc::<Seen>::default());
        let (does, doing) = watch::channel(Does::Answer);
        let shared = seen.clone();
        let task = Task::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = app.accept().await {
                connections.spawn(serve(socket, doing.clone(), shared.clone()));
            }
        });
        Ok(Self { does, seen, _task: task })
    }
}

async fn serve(mut socket: TcpStream, does: watch::Receiver<Does>, seen: Arc<Seen>) -> Result<()> {
    let mut preface = [0; PREFACE.len()];
    socket.read_exact(&mut preface).await?;
    write_frame(&mut socket, &Frame::no_settings()).await?;
    loop {
        let Frame { kind, flags, stream, .. } = read_frame(&mut socket).await?;
        let does = *does.borrow();
        let answer = match (kind, does) {
            (Frame::SETTINGS, _) if flags & Frame::ACK == 0 => {
                Frame::new(Frame::SETTINGS, Frame::ACK, 0, [])
            }
            (Frame::HEADERS, Does::Answer) => {
                Frame::new(Frame::HEADERS, Frame::END_HEADERS | Frame::END_STREAM, stream, OK)
            }
            (Frame::HEADERS, Does::Refuse) => {
                seen.refused.fetch_add(1, Relaxed);
                Frame::new(Frame::RST_STREAM, 0, stream, REFUSED_STREAM.to_be_bytes())
            }
            (Frame::HEADERS, Does::Nothing) => {
                seen.waiting.fetch_add(1, Relaxed);
                continue;
            }
            (Frame::PING, _) => {
                seen.pings.fetch_add(1, Relaxed);
                continue;
            }
            _ => continue,
        };
        write_frame(&mut socket, &answer).await?;
    }
}

/// Where the endpoints are asked.
fn service() -> SocketAddr {
    vip4(10, TRANSFER)
}

/// Has a mesh in which endpoints are asked in HTTP/2, with these further settings of connections.
fn asked_in_http_2(name: &str, more: &str) -> Result<(Bound, [Endpoint; 2])> {
    let bound = Bound::new(name)?;
    let endpoints = [Endpoint::start(&bound.mesh.b)?, Endpoint::start(&bound.second)?];
    bound.ask_in_http_2(more)?;
    Ok((bound, endpoints))
}

#[test]
fn a_stream_that_an_endpoint_refuses_is_tried_at_another_one() -> Result<()> {
    let (bound, [first, second]) = asked_in_http_2("wprefused", "")?;
    first.does.send_replace(Does::Refuse);
    for _ in 0..20 {
        ensure!(curl_with(&bound.mesh.a, service(), &[])?.status == "200");
    }
    ensure!(first.seen.refused.load(Relaxed) > 0);
    second.does.send_replace(Does::Refuse);
    ensure!(curl_with(&bound.mesh.a, service(), &[])?.status == "503");
    let line = r#""GET / HTTP/1.1" 503 URX,UR "#;
    wait_for(line, FELT, || Ok(bound.waypoint.log()?.contains(line).then_some(())))
        .map_err(|error| error.context(bound.waypoint.log().unwrap_or_default()))
}

#[test]
fn an_endpoint_that_answers_no_probe_is_given_up() -> Result<()> {
    let probes = ", http2KeepAlive: {interval: 1s, timeout: 1s}";
    let (bound, endpoints) = asked_in_http_2("wpprobes", probes)?;
    for endpoint in &endpoints {
        endpoint.does.send_replace(Does::Nothing);
    }
    // Nobody else would end it: routes have no timeout.
    ensure!(curl_with(&bound.mesh.a, service(), &[])?.status == "503");
    let sum = |count: fn(&Seen) -> &AtomicUsize| -> usize {
        endpoints.iter().map(|endpoint| count(&endpoint.seen).load(Relaxed)).sum()
    };
    ensure!(sum(|seen| &seen.waiting) > 0 && sum(|seen| &seen.pings) > 0);
    Ok(())
}
