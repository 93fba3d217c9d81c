//! Accept loops.

use std::{io, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    time::sleep,
};

use super::{
    super::{inbound, outbound, pod::Pod},
    Ending, Worker, dropped, spawn,
};
use crate::link::listeners::PodListeners;

/// Pause after a failed accept. Out of descriptors, an attempt at once would fail again and take
/// the processor from the connections that will free some.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(50);

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
    let start = |listener: std::net::TcpListener, serve: fn(Accepted)| {
        let listener = TcpListener::from_std(listener)?;
        let accepts = accept(listener, worker.clone(), pod.clone(), signal(), serve);
        let listening = listening.clone();
        spawn(async move {
            accepts.await;
            drop(listening);
        });
        io::Result::Ok(())
    };
    start(outbound, |accepted| spawn(outbound::serve(accepted)))?;
    start(inbound_hbone, |accepted| spawn(inbound::serve_tunnel(accepted)))?;
    start(inbound_plaintext, |accepted| spawn(inbound::serve_plaintext(accepted)))
}

async fn accept(
    listener: TcpListener,
    worker: Rc<Worker>,
    pod: Arc<Pod>,
    draining: watch::Receiver<Ending>,
    serve: fn(Accepted),
) {
    let failures = worker.node.metrics.limit("accept");
    let ended = dropped(draining.clone());
    tokio::pin!(ended);
    let take = |(socket, client): (TcpStream, SocketAddr)| {
        let target = canonical(socket.local_addr()?);
        let (worker, pod, draining) = (worker.clone(), pod.clone(), draining.clone());
        serve(Accepted { worker, pod, socket, client: canonical(client), target, draining });
        io::Result::Ok(())
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
        let _ = adopt(socket).and_then(|socket| take((socket, client)));
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
