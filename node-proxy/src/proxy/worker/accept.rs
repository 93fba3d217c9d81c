//! Accept loops.

use std::{io, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    time::sleep,
};

use super::{
    super::{connections::Counted, inbound, outbound, pod::Pod},
    Ending, Worker, dropped, spawn,
    spread::{CONNECTION_SLACK, Share, TUNNEL_WEIGHT},
};
use crate::link::listeners::PodListeners;

/// Pause after a failed accept. Out of descriptors, an attempt at once would fail again and take
/// the processor from the connections that will free some.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(50);

/// What becomes of the connections of a listening socket.
#[derive(Clone, Copy, Debug)]
struct Purpose {
    serve: fn(Accepted),
    /// What each weighs for its thread.
    weight: usize,
    /// How much more the thread does than another before it gives one away.
    slack: usize,
}

/// A connection on its way to the thread that is to serve it.
#[derive(Debug)]
pub(super) struct Handed {
    pod: Arc<Pod>,
    socket: std::net::TcpStream,
    client: SocketAddr,
    draining: watch::Receiver<Ending>,
    serve: fn(Accepted),
    /// The thread that it is for.
    pub(super) share: Share,
    /// It counts as open while it is under way.
    _counted: Counted,
}

/// A connection just accepted.
pub(in crate::proxy) struct Accepted {
    /// The thread's state.
    pub(in crate::proxy) worker: Rc<Worker>,
    /// The pod at whose socket the connection arrived.
    pub(in crate::proxy) pod: Arc<Pod>,
    /// The connection.
    pub(in crate::proxy) socket: TcpStream,
    /// Address of the client.
    pub(in crate::proxy) client: SocketAddr,
    /// Address that the client connected to.
    pub(in crate::proxy) target: SocketAddr,
    /// Completes when the pod is released or the process drains.
    pub(in crate::proxy) draining: watch::Receiver<Ending>,
    /// Its part of the thread's work.
    pub(in crate::proxy) share: Share,
}

/// Accepts connections of `pod` until `draining` is dropped; holds `listening` for as long.
pub(super) fn start(
    worker: &Rc<Worker>,
    pod: &Arc<Pod>,
    listeners: PodListeners,
    draining: &watch::Sender<Ending>,
    listening: &watch::Receiver<()>,
) -> io::Result<()> {
    let PodListeners { outbound, inbound_hbone, inbound_plaintext } = listeners;
    let signal = || draining.subscribe();
    let start = |listener: std::net::TcpListener, purpose: Purpose| {
        let listener = TcpListener::from_std(listener)?;
        let accepts = accept(listener, worker.clone(), pod.clone(), signal(), purpose);
        let listening = listening.clone();
        spawn(async move {
            accepts.await;
            drop(listening);
        });
        io::Result::Ok(())
    };
    let connection = |serve| Purpose { serve, weight: 1, slack: CONNECTION_SLACK };
    start(outbound, connection(|accepted| spawn(outbound::serve(accepted))))?;
    start(inbound_plaintext, connection(|accepted| spawn(inbound::serve_plaintext(accepted))))?;
    let serve = |accepted| spawn(inbound::serve_tunnel(accepted));
    start(inbound_hbone, Purpose { serve, weight: TUNNEL_WEIGHT, slack: 0 })
}

async fn accept(
    listener: TcpListener,
    worker: Rc<Worker>,
    pod: Arc<Pod>,
    draining: watch::Receiver<Ending>,
    purpose: Purpose,
) {
    let failures = worker.node.metrics.limit("accept");
    let Purpose { serve, weight, slack } = purpose;
    let ended = dropped(draining.clone());
    tokio::pin!(ended);
    let begin = |socket, client, share| {
        let (worker, pod, draining) = (worker.clone(), pod.clone(), draining.clone());
        Accepted::new(worker, pod, socket, client, draining, share).map(serve)
    };
    let take = |(socket, client): (TcpStream, SocketAddr)| {
        let share = worker.spread.place(weight, slack);
        if worker.spread.is_own(&share) {
            return begin(socket, client, share);
        }
        let counted = Counted::new(&worker.node, &pod);
        let (pod, draining, socket) = (pod.clone(), draining.clone(), socket.into_std()?);
        let handed = Handed { pod, socket, client, draining, serve, share, _counted: counted };
        worker.spread.give(handed).map_or(Ok(()), |back| back.begin(&worker))
    };
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut ended => break,
        };
        if let Err(error) = accepted.and_then(take) {
            failures.inc();
            tracing::warn!(pod = %pod.name, %error, "accept failed; trying again");
            sleep(PAUSE_AFTER_FAILURE).await;
        }
    }
    // Clients whose connections wait here have been told that they are connected. The kernel is
    // asked itself: the runtime may not have heard of the last ones.
    let Ok(listener) = listener.into_std() else { return };
    while let Ok((socket, client)) = listener.accept() {
        // One that is gone already needs nothing.
        let share = worker.spread.own(weight);
        let _ = adopt(socket).and_then(|socket| begin(socket, client, share));
    }
}

fn adopt(socket: std::net::TcpStream) -> io::Result<TcpStream> {
    socket.set_nonblocking(true)?;
    TcpStream::from_std(socket)
}

/// The listening sockets are of both families: IPv4 addresses arrive mapped.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

// === impl Handed ===

impl Handed {
    /// Begins to serve the connection on this thread.
    pub(super) fn begin(self, worker: &Rc<Worker>) -> io::Result<()> {
        let Self { pod, socket, client, draining, serve, share, _counted } = self;
        let socket = TcpStream::from_std(socket)?;
        Accepted::new(worker.clone(), pod, socket, client, draining, share).map(serve)
    }
}

// === impl Accepted ===

impl Accepted {
    fn new(
        worker: Rc<Worker>,
        pod: Arc<Pod>,
        socket: TcpStream,
        client: SocketAddr,
        draining: watch::Receiver<Ending>,
        share: Share,
    ) -> io::Result<Self> {
        let target = canonical(socket.local_addr()?);
        Ok(Self { worker, pod, socket, client: canonical(client), target, draining, share })
    }
}
