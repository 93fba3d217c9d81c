//! A thread of the proxy: its listener, its tunnels, its connections to endpoints.

use std::{
    convert::Infallible,
    future::Future,
    io,
    net::{SocketAddr, TcpListener as StdListener},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use fairlead_tunnel::{identity::IdentityHandle, limits::MAX_HANDSHAKES};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc, watch},
    task::LocalSet,
    time::{interval, sleep},
};

use super::{
    clients::{Clients, Handshake},
    inbound::serve_tunnel,
    progress::Patience,
    upstream::Upstreams,
};
use crate::{
    mesh::Snapshot,
    telemetry::{AccessLog, Metrics},
};

/// Pause after a failed accept, which is most often for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Pause between two looks at which connections to endpoints are not used any more.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// What all threads share.
#[derive(Debug)]
pub struct Shared {
    /// What is known of the mesh.
    pub snapshot: ArcSwap<Snapshot>,
    /// Certificates of this waypoint.
    pub identity: IdentityHandle,
    /// `namespace/name` of the gateway that declares this waypoint.
    pub gateway: Arc<str>,
    /// Counts.
    pub metrics: Metrics,
    /// Where a line for each request goes.
    pub access_log: AccessLog,
    /// How long clients may take.
    pub patience: Patience,
    /// What clients have.
    pub clients: Clients,
}

/// What the tasks of a thread share.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) upstreams: Upstreams,
    /// True once the process ends.
    pub(super) draining: watch::Receiver<bool>,
}

// === impl Worker ===

impl Worker {
    /// Returns the mesh as it is known now.
    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.snapshot.load_full()
    }
}

/// Runs a thread's part until `draining` and until its last connection has ended.
pub fn run(
    shared: Arc<Shared>,
    listener: StdListener,
    draining: watch::Receiver<bool>,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = LocalSet::new();
    let accepting = local.run_until(async move {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let upstreams = Upstreams::new(shared.clone());
        let worker = Rc::new(Worker { shared, upstreams, draining });
        let (open, mut closed) = mpsc::channel(1);
        accept(worker, listener, open).await;
        // Tunnels that finish their streams; nothing is ever sent.
        closed.recv().await;
        Ok::<_, io::Error>(())
    });
    runtime.block_on(accepting)
}

/// Accepts tunnels until the process ends; each holds `open` for as long as it lasts.
async fn accept(worker: Rc<Worker>, listener: TcpListener, open: mpsc::Sender<Infallible>) {
    let mut draining = worker.draining.clone();
    let drained = async {
        // An error means that the process ends at once.
        let _ = draining.wait_for(|draining| *draining).await;
    };
    tokio::pin!(drained);
    let mut sweeps = interval(SWEEP_INTERVAL);
    let handshakes = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    let waits = worker.shared.metrics.limit("handshakes");
    loop {
        let next = async {
            if handshakes.available_permits() == 0 {
                waits.inc();
            }
            // Fails only if it is closed, which it never is.
            let handshake = handshakes.clone().acquire_owned().await.ok();
            Ok((listener.accept().await?, handshake))
        };
        tokio::select! {
            _ = sweeps.tick() => worker.upstreams.sweep(),
            accepted = next => match accepted {
                Ok(((socket, client), handshake)) => {
                    let client = SocketAddr::new(client.ip().to_canonical(), client.port());
                    spawn(begin(worker.clone(), socket, client, handshake, open.clone()));
                }
                Err::<_, io::Error>(error) => {
                    worker.shared.metrics.limit("accept").inc();
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            () = &mut drained => return,
        }
    }
}

async fn begin(
    worker: Rc<Worker>,
    socket: TcpStream,
    client: SocketAddr,
    handshake: Handshake,
    _open: mpsc::Sender<Infallible>,
) {
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%client, %error, "connection lost");
        return;
    }
    serve_tunnel(worker, socket, client, handshake).await;
}

/// Runs a task on this thread.
pub(super) fn spawn(task: impl Future<Output = ()> + 'static) {
    tokio::task::spawn_local(task);
}
