//! An endpoint that answers every request with the same bytes, whatever they are.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::Result;
use fairlead_lab::Pod;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::sleep,
};

use crate::peer::{App, Task};

/// What it does.
#[derive(Clone, Debug, Default)]
pub(super) struct Part {
    /// What it answers.
    pub(super) answer: Vec<u8>,
    /// Whether it closes the connection then.
    pub(super) closes: bool,
    /// Time that it takes.
    pub(super) time: Duration,
}

/// The endpoint, in some pods.
#[derive(Debug)]
pub(in crate::waypoint) struct Script {
    part: Arc<Mutex<Part>>,
    /// Requests of which the head has come.
    asked: Arc<AtomicUsize>,
    _tasks: Vec<Task>,
}

// === impl Script ===

impl Script {
    pub(super) fn start<const N: usize>(pods: [&Pod; N], port: u16) -> Result<Self> {
        let (current, asked) = (Arc::<Mutex<Part>>::default(), Arc::<AtomicUsize>::default());
        let task = |pod: &Pod| {
            let (app, current, asked) = (App::listen(pod, port)?, current.clone(), asked.clone());
            Ok(Task::spawn(async move {
                let mut connections = tokio::task::JoinSet::new();
                while let Ok((socket, _)) = app.accept().await {
                    connections.spawn(play(socket, current.clone(), asked.clone()));
                }
            }))
        };
        let tasks = pods.into_iter().map(task).collect::<Result<_>>()?;
        Ok(Self { part: current, asked, _tasks: tasks })
    }

    /// Has it answer so from now on.
    pub(in crate::waypoint) fn answers(&self, answer: impl Into<Vec<u8>>, closes: bool) {
        let mut part = self.part();
        *part = Part { answer: answer.into(), closes, time: part.time };
    }

    /// Has it take so long for each answer from now on.
    pub(in crate::waypoint) fn takes(&self, time: Duration) {
        self.part().time = time;
    }

    /// Returns how many requests it has been asked.
    pub(in crate::waypoint) fn asked(&self) -> usize {
        self.asked.load(Relaxed)
    }

    fn part(&self) -> MutexGuard<'_, Part> {
        self.part.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn play(mut socket: TcpStream, part: Arc<Mutex<Part>>, asked: Arc<AtomicUsize>) {
    let mut pending = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = socket.read(&mut buffer).await {
        pending.extend_from_slice(&buffer[..read]);
        let Some(end) = pending.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { continue };
        pending.drain(..end + 4);
        asked.fetch_add(1, Relaxed);
        let Part { answer, closes, time } =
            part.lock().unwrap_or_else(PoisonError::into_inner).clone();
        sleep(time).await;
        if socket.write_all(&answer).await.is_err() || closes {
            return;
        }
    }
}
