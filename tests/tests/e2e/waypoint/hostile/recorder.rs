//! An application that answers every request alike and remembers every byte that it was sent.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use fairlead_lab::Pod;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::peer::{App, Task};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// What the applications were sent, a text for each connection.
type Sent = Arc<Mutex<Vec<String>>>;

/// The application, in some pods.
#[derive(Debug)]
pub(super) struct Recorder {
    sent: Sent,
    tasks: Vec<Task>,
}

// === impl Recorder ===

impl Recorder {
    pub(super) fn start<const N: usize>(pods: [&Pod; N], port: u16) -> Result<Self> {
        let sent = Sent::default();
        let task = |pod: &Pod| {
            let (app, sent) = (App::listen(pod, port)?, sent.clone());
            Ok(Task::spawn(async move {
                let mut connections = tokio::task::JoinSet::new();
                while let Ok((socket, _)) = app.accept().await {
                    connections.spawn(answer(socket, sent.clone()));
                }
            }))
        };
        let tasks = pods.into_iter().map(task).collect::<Result<_>>()?;
        Ok(Self { sent, tasks })
    }

    /// Leaves its port to others.
    pub(super) fn stop(&mut self) {
        self.tasks.clear();
    }

    /// Forgets what it was sent.
    pub(super) fn forget(&self) {
        for text in &mut *self.sent.lock().unwrap_or_else(PoisonError::into_inner) {
            text.clear();
        }
    }

    /// Returns all that was sent.
    pub(super) fn sent(&self) -> String {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).concat()
    }

    /// Returns the requests that were sent whole, each to the end of its head.
    pub(super) fn requests(&self) -> Vec<String> {
        let mut requests = Vec::new();
        for text in &*self.sent.lock().unwrap_or_else(PoisonError::into_inner) {
            let mut rest = text.as_str();
            while let Some(length) = request_length(rest) {
                let head = rest.find("\r\n\r\n").unwrap_or_default();
                requests.push(rest[..head + 2].to_owned());
                rest = &rest[length..];
            }
        }
        requests
    }
}

async fn answer(mut socket: TcpStream, sent: Sent) {
    let place = {
        let mut sent = sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.push(String::new());
        sent.len() - 1
    };
    let mut pending = String::new();
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = socket.read(&mut buffer).await {
        let text = String::from_utf8_lossy(&buffer[..read]);
        sent.lock().unwrap_or_else(PoisonError::into_inner)[place].push_str(&text);
        pending.push_str(&text);
        while let Some(length) = request_length(&pending) {
            pending.drain(..length);
            if socket.write_all(ANSWER).await.is_err() {
                return;
            }
        }
    }
}

/// Returns the length of the first request, if all of it is there; it is as the waypoint writes them.
fn request_length(text: &str) -> Option<usize> {
    let head = text.find("\r\n\r\n")? + 4;
    let lower = text[..head].to_ascii_lowercase();
    if lower.contains("transfer-encoding: chunked") {
        let end = text[head - 2..].find("\r\n0\r\n\r\n")?;
        return Some(head - 2 + end + 7);
    }
    let length = lower.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
    let length = head + length.and_then(|length| length.parse::<usize>().ok()).unwrap_or_default();
    (text.len() >= length).then_some(length)
}
