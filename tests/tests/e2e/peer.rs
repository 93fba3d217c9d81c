//! Peers that the tests are themselves: tunnel clients, tunnel servers and applications, with
//! certificates of any kind. Their sockets belong to a pod, their code runs in the test.

mod app;
mod client;
mod frames;
mod listener;
mod pki;
mod scene;
mod server;
mod stream;

use std::{
    future::{Future, pending},
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{LazyLock, mpsc},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use fairlead_lab::{Host, wait_for};
use tokio::{
    runtime::{Builder, Handle},
    task::JoinHandle,
    time::timeout,
};

pub(crate) use self::{
    app::App,
    client::{Tunnel, client_config, handshake, only_alpn},
    frames::{Frame, PREFACE, connect_head, header_block, read_frame, write_frame},
    listener::Listener,
    pki::{Ca, Credentials, set_names, workload_params},
    scene::{DENIED_ADDRESS_PORT, INTRUDER, Scene, VIP},
    server::{FAREWELL, Late, Manner, Served, TunnelServer, server_config},
    stream::Stream,
};

/// Port of HBONE.
pub(crate) const HBONE: u16 = 15008;

/// Time for anything that a peer waits for, unless a test says otherwise.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs the peers of all tests in a thread of its own, so that a test may block meanwhile.
static RUNTIME: LazyLock<Handle> = LazyLock::new(start_runtime);

/// A task that ends when dropped, and its sockets with it.
#[derive(Debug)]
pub(crate) struct Task(JoinHandle<()>);

// === impl Task ===

impl Task {
    pub(crate) fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(RUNTIME.spawn(work))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
        // It ends in the other thread; what is not closed by then is closed soon.
        let ended = || Ok(self.0.is_finished().then_some(()));
        let _ = wait_for("the end of a peer's task", PATIENCE, ended);
    }
}

/// Does `work`, which fails if it takes longer than anything should.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    block_on_for(PATIENCE, work)
}

/// Does `work`, which fails if it takes longer than `limit`.
pub(crate) fn block_on_for<T>(limit: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
    let bounded = async { timeout(limit, work).await.context("what the peer awaits never comes")? };
    RUNTIME.block_on(bounded)
}

/// Connects from inside `host`.
pub(crate) fn dial(host: &impl Host, to: SocketAddr) -> Result<TcpStream> {
    let socket = host
        .netns()
        .enter(|| Ok(TcpStream::connect_timeout(&to, PATIENCE)?))
        .with_context(|| format!("connect to {to} from {}", host.netns().name()))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

/// Uses a connection to what echoes.
pub(crate) fn echo(socket: &mut TcpStream) -> Result<()> {
    socket.write_all(b"echo")?;
    let mut echoed = [0; 4];
    socket.read_exact(&mut echoed)?;
    ensure!(echoed == *b"echo", "received {echoed:?}");
    Ok(())
}

/// Hands a socket to the runtime of the peers.
pub(crate) fn adopt(socket: TcpStream) -> Result<tokio::net::TcpStream> {
    socket.set_nonblocking(true)?;
    let _inside = RUNTIME.enter();
    Ok(tokio::net::TcpStream::from_std(socket)?)
}

fn start_runtime() -> Handle {
    let (tell, handle) = mpsc::channel();
    thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap_or_else(|error| {
            panic!("no runtime for the peers: {error}");
        });
        // The receiver waits for it.
        let _ = tell.send(runtime.handle().clone());
        runtime.block_on(pending::<()>());
    });
    handle.recv().unwrap_or_else(|_| panic!("the runtime of the peers did not start"))
}
