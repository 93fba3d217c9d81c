//! An endpoint that sends one interim answer after another and never comes to the answer (trust.md
//! row 58), over HTTP/1 and HTTP/2.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use anyhow::{Result, ensure};
use fairlead_lab::{Pod, wait_for};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

use super::{super::FELT, APP, Hostile};
use crate::peer::{App, Frame, PREFACE, Task, read_frame, write_frame};

/// A header block with `:status: 103`, a literal whose name is the eighth of the static table.
const EARLY_HINTS: &[u8] = b"\x08\x03103";

const ASK: &[u8] = b"GET / HTTP/1.1\r\nHost: raw\r\nConnection: close\r\n\r\n";

/// The endpoint, in some pods.
struct Storm {
    /// Requests over HTTP/2 that it was asked.
    asked: Arc<AtomicUsize>,
    _tasks: Vec<Task>,
}

// === impl Storm ===

impl Storm {
    fn start<const N: usize>(pods: [&Pod; N]) -> Result<Self> {
        let asked = Arc::<AtomicUsize>::default();
        let task = |pod: &Pod| {
            let (app, asked) = (App::listen(pod, APP)?, asked.clone());
            Ok(Task::spawn(async move {
                let mut connections = JoinSet::new();
                while let Ok((socket, _)) = app.accept().await {
                    connections.spawn(blow(socket, asked.clone()));
                }
            }))
        };
        let tasks = pods.into_iter().map(task).collect::<Result<_>>()?;
        Ok(Self { asked, _tasks: tasks })
    }
}

async fn blow(mut socket: TcpStream, asked: Arc<AtomicUsize>) {
    let mut first = [0; PREFACE.len()];
    let is_known = socket.read_exact(&mut first).await.is_ok();
    let answers = if is_known && first == *PREFACE {
        let Ok(stream) = asked_over_http2(&mut socket).await else { return };
        asked.fetch_add(1, Relaxed);
        Frame::new(Frame::HEADERS, Frame::END_HEADERS, stream, EARLY_HINTS).to_bytes()
    } else {
        b"HTTP/1.1 103 Early Hints\r\n\r\n".to_vec()
    };
    let answers = answers.repeat(1_000);
    while socket.write_all(&answers).await.is_ok() {}
}

/// Reads as far as a request; returns its stream.
async fn asked_over_http2(socket: &mut TcpStream) -> Result<u32> {
    write_frame(socket, &Frame::no_settings()).await?;
    loop {
        let frame = read_frame(socket).await?;
        if frame.kind == Frame::HEADERS {
            return Ok(frame.stream);
        }
    }
}

pub(super) fn a_storm_of_interim_answers_ends_its_request_and_no_other(
    mut hostile: Hostile,
) -> Result<()> {
    hostile.recorder.stop();
    let storm = Storm::start([&hostile.bound.mesh.b, &hostile.bound.second])?;
    endure(&hostile)?;
    assert_eq!(storm.asked.load(Relaxed), 0);
    hostile.write(
        "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: raw, namespace: shop}
spec:
  host: raw
  trafficPolicy: {connectionPool: {http: {h2UpgradePolicy: UPGRADE}}}
",
    )?;
    wait_for("the endpoint is asked over HTTP/2", FELT, || {
        hostile.send(ASK)?;
        Ok((storm.asked.load(Relaxed) > 0).then_some(()))
    })?;
    endure(&hostile)
}

/// Asks the endpoint, which must cost little and not be in the way of others.
fn endure(hostile: &Hostile) -> Result<()> {
    let before = hostile.limit_reached("interim_answers")?;
    let refused = [("response_code", "502"), ("response_flags", "UPE")];
    let counted = || {
        Ok::<_, anyhow::Error>(hostile.waypoint.metrics()?.sum("istio_requests_total", &refused))
    };
    let counted_before = counted()?;
    hostile.in_bounded_memory(|| {
        for _ in 0..20 {
            let back = hostile.send(ASK)?;
            ensure!(back.status() == 502 && back.answers() == 1, "{back:?}");
            hostile.is_well()?;
        }
        Ok(())
    })?;
    ensure!(hostile.limit_reached("interim_answers")? > before + 19.5);
    ensure!(counted()? > counted_before + 19.5);
    Ok(())
}
