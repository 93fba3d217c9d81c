//! Clients and servers that run in pods as threads of the test: quick enough for a thousand
//! connections a second, and exact in what they count.

mod opening;
mod server;
mod streams;

use std::{
    future::Future,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, ensure};
use fairlead_lab::{Host, wait_for};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    runtime,
    sync::watch,
};

pub(crate) use self::{
    opening::{Opened, ask, open_connections},
    server::{Heard, serve_echo},
    streams::{StreamReport, talk_over_streams},
};

/// First word of every message; it must not cross the wire readable.
pub(crate) const SECRET: &str = "not-for-the-wire";

/// Length of every message.
const MESSAGE_BYTES: usize = 64;

/// Time for a number of exchanges that takes a few seconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A client or a server that runs; it ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Traffic<T> {
    stop: watch::Sender<bool>,
    done: Arc<AtomicUsize>,
    thread: Option<JoinHandle<Result<T>>>,
}

/// What a client or a server is told and tells while it runs.
#[derive(Clone, Debug)]
pub(crate) struct Cue {
    stop: watch::Receiver<bool>,
    done: Arc<AtomicUsize>,
}

/// Whom a client talks to.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Name of the server that is meant.
    pub(crate) name: String,
    /// Where it is.
    pub(crate) address: SocketAddr,
}

/// An exchange that went wrong.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    /// When the exchange began.
    pub(crate) started: Instant,
    /// When it failed.
    pub(crate) ended: Instant,
    /// With whom, and how.
    pub(crate) what: String,
}

// === impl Traffic ===

impl<T: Send + 'static> Traffic<T> {
    /// Starts `work` in a thread of its own inside `host`.
    pub(crate) fn start<F: Future<Output = Result<T>>>(
        host: &impl Host,
        work: impl FnOnce(Cue) -> F + Send + 'static,
    ) -> Self {
        raise_descriptors();
        let (stop, stopped) = watch::channel(false);
        let done = Arc::new(AtomicUsize::new(0));
        let cue = Cue { stop: stopped, done: done.clone() };
        let netns = host.netns().clone();
        let thread = thread::spawn(move || {
            netns.enter(|| {
                let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(work(cue))
            })
        });
        Self { stop, done, thread: Some(thread) }
    }

    /// Waits until so many more exchanges are done.
    pub(crate) fn wait_more(&self, exchanges: usize) -> Result<()> {
        let goal = self.done.load(Ordering::Relaxed) + exchanges;
        wait_for(&format!("{exchanges} more exchanges"), PATIENCE, || {
            let runs = self.thread.as_ref().is_some_and(|thread| !thread.is_finished());
            ensure!(runs, "the client or server has ended");
            Ok((self.done.load(Ordering::Relaxed) >= goal).then_some(()))
        })
    }

    /// Ends it in order and returns what it has seen.
    pub(crate) fn finish(mut self) -> Result<T> {
        self.stop.send_replace(true);
        let thread = self.thread.take().ok_or_else(|| anyhow!("it was finished before"))?;
        thread.join().map_err(|_| anyhow!("a client or server panicked"))?
    }
}

impl<T> Drop for Traffic<T> {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            // What it has seen interests nobody any more.
            let _ = thread.join();
        }
    }
}

// === impl Cue ===

impl Cue {
    fn count(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns once the work is to end.
    pub(crate) async fn over(&self) {
        // The sender says so before it is dropped.
        let _ = self.stop.clone().wait_for(|stop| *stop).await;
    }
}

// === impl Target ===

impl Target {
    /// Means the server called `name` at `address`.
    pub(crate) fn new(name: &str, address: SocketAddr) -> Self {
        Self { name: name.to_owned(), address }
    }
}

/// Lets this process hold as many connections as it may: clients and servers are threads of it.
fn raise_descriptors() {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // Without it, what does not fit fails, and says so.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}

/// Makes a message that says who wrote it, for whom, and which one of his it is.
fn message(from: &str, to: &str, number: usize) -> [u8; MESSAGE_BYTES] {
    let mut message = [b' '; MESSAGE_BYTES];
    let text = format!("{SECRET} {from} {to} {number}");
    let length = text.len().min(MESSAGE_BYTES);
    message[..length].copy_from_slice(&text.as_bytes()[..length]);
    message
}

/// Sends the one message of `from` to `to` over `stream`, receives its echo, and closes both
/// directions.
pub(crate) async fn exchange_once(stream: &mut TcpStream, from: &str, to: &str) -> io::Result<()> {
    exchange(stream, &message(from, to, 0)).await?;
    close(stream).await
}

/// Sends a message over `stream` and receives its echo.
async fn exchange(stream: &mut TcpStream, sent: &[u8; MESSAGE_BYTES]) -> io::Result<()> {
    stream.write_all(sent).await?;
    let mut echo = [0; MESSAGE_BYTES];
    stream.read_exact(&mut echo).await?;
    if echo == *sent {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&echo).into_owned();
    Err(io::Error::other(format!("{WRONG_BYTES}: {text}")))
}

/// What a failure says that no failing peer excuses.
pub(crate) const WRONG_BYTES: &str = "wrong bytes";

/// Ends one direction of `stream` and receives the end of the other.
async fn close(stream: &mut TcpStream) -> io::Result<()> {
    stream.shutdown().await?;
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest).await? {
        0 => Ok(()),
        more => Err(io::Error::other(format!("{WRONG_BYTES}: {more} after the last"))),
    }
}
