//! Accept loops.

use std::{io, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use fairlead_sys::socket::reset_on_close;
use fairlead_tunnel::limits::MAX_HANDSHAKES;
use prometheus_client::metrics::counter::Counter;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::sleep,
};

use super::{
    super::{connections::Counted, inbound, outbound, pod::Pod, resolver},
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
    /// How many may be in their handshake, if they have one.
    max_handshakes: Option<usize>,
}

/// What is known of a connection beside its socket.
#[derive(Debug)]
struct Arrived {
    pod: Arc<Pod>,
    client: SocketAddr,
    draining: watch::Receiver<Ending>,
    serve: fn(Accepted),
    share: Share,
    handshake: Option<OwnedSemaphorePermit>,
    counted: Counted,
}

/// A connection on its way to the thread that is to serve it.
#[derive(Debug)]
pub(super) struct Handed {
    arrived: Arrived,
    socket: std::net::TcpStream,
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
    /// Held until the handshake is over, if there is one.
    pub(in crate::proxy) handshake: Option<OwnedSemaphorePermit>,
    /// Counts it as open from its accept on: without a gap in which the process would seem idle.
    pub(in crate::proxy) counted: Counted,
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
    let connection = |serve| {
        let slack = CONNECTION_SLACK;
        Purpose { serve, weight: 1, slack, max_handshakes: None }
    };
    start(outbound, connection(serve_outbound))?;
    start(inbound_plaintext, connection(|accepted| spawn(inbound::serve_plaintext(accepted))))?;
    let serve = |accepted| spawn(inbound::serve_tunnel(accepted));
    let max_handshakes = Some(MAX_HANDSHAKES);
    start(inbound_hbone, Purpose { serve, weight: TUNNEL_WEIGHT, slack: 0, max_handshakes })
}

fn serve_outbound(accepted: Accepted) {
    if resolver::tcp::is_for_queries(&accepted.worker, &accepted.pod, accepted.target) {
        spawn(resolver::tcp::serve(accepted));
    } else {
        spawn(outbound::serve(accepted));
    }
}

async fn accept(
    listener: TcpListener,
    worker: Rc<Worker>,
    pod: Arc<Pod>,
    draining: watch::Receiver<Ending>,
    purpose: Purpose,
) {
    let failures = worker.node.metrics.limit("accept");
    let waits = worker.node.metrics.limit("handshakes");
    let Purpose { serve, weight, slack, max_handshakes } = purpose;
    let handshakes = max_handshakes.map(Semaphore::new).map(Arc::new);
    let ended = dropped(draining.clone());
    tokio::pin!(ended);
    let arrived = |client, share, handshake| {
        let (counted, client) = (worker.connections.count(&pod), canonical(client));
        let (pod, draining) = (pod.clone(), draining.clone());
        Arrived { pod, client, draining, serve, share, handshake, counted }
    };
    let take = |(socket, client, handshake): (TcpStream, _, _)| {
        let share = worker.spread.place(weight, slack);
        let is_own = worker.spread.is_own(&share);
        let arrived = arrived(client, share, handshake);
        if is_own {
            return arrived.begin(&worker, socket);
        }
        let handed = Handed { arrived, socket: socket.into_std()? };
        worker.spread.give(handed).map_or(Ok(()), |back| back.begin(&worker))
    };
    loop {
        let accepted = tokio::select! {
            accepted = next(&listener, handshakes.as_ref(), &waits) => accepted,
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
        let arrived = arrived(client, worker.spread.own(weight), None);
        // One that is gone already needs nothing.
        let _ = adopt(socket).and_then(|socket| arrived.begin(&worker, socket));
    }
}

/// Accepts a connection once its handshake may begin.
async fn next(
    listener: &TcpListener,
    handshakes: Option<&Arc<Semaphore>>,
    waits: &Counter,
) -> io::Result<(TcpStream, SocketAddr, Option<OwnedSemaphorePermit>)> {
    let handshake = match handshakes {
        Some(handshakes) => {
            if handshakes.available_permits() == 0 {
                waits.inc();
            }
            // Fails only if it is closed, which it never is.
            handshakes.clone().acquire_owned().await.ok()
        }
        None => None,
    };
    let (socket, client) = listener.accept().await?;
    Ok((socket, client, handshake))
}

fn adopt(socket: std::net::TcpStream) -> io::Result<TcpStream> {
    socket.set_nonblocking(true)?;
    TcpStream::from_std(socket)
}

/// The listening sockets are of both families: IPv4 addresses arrive mapped.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

// === impl Arrived ===

impl Arrived {
    /// Begins to serve the connection on this thread.
    fn begin(self, worker: &Rc<Worker>, socket: TcpStream) -> io::Result<()> {
        let Self { pod, client, draining, serve, share, handshake, counted } = self;
        // On its way here it may have been overtaken by the end of its pod.
        if *draining.borrow() == Ending::Cut {
            return reset_on_close(&socket);
        }
        let (worker, target) = (worker.clone(), canonical(socket.local_addr()?));
        serve(Accepted {
            worker,
            pod,
            socket,
            client,
            target,
            draining,
            share,
            handshake,
            counted,
        });
        Ok(())
    }
}

// === impl Handed ===

impl Handed {
    /// The part of a thread's work that it is.
    pub(super) fn share(&mut self) -> &mut Share {
        &mut self.arrived.share
    }

    /// Begins to serve the connection on this thread.
    pub(super) fn begin(self, worker: &Rc<Worker>) -> io::Result<()> {
        self.arrived.begin(worker, TcpStream::from_std(self.socket)?)
    }
}
