//! Accept loops.

use std::{io, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    time::sleep,
};

use super::{
    super::{
        inbound, outbound,
        pod::{Listeners, Pod},
    },
    Worker, dropped, spawn,
};

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
    pub(in crate::proxy) draining: watch::Receiver<()>,
}

/// Accepts connections of `pod` until `draining` is dropped.
pub(super) fn start(
    worker: &Rc<Worker>,
    pod: &Arc<Pod>,
    listeners: Listeners,
    draining: &watch::Sender<()>,
) -> io::Result<()> {
    let Listeners { outbound, inbound_hbone, inbound_plaintext } = listeners;
    let signal = || draining.subscribe();
    let start = |listener: std::net::TcpListener, serve: fn(Accepted)| {
        let listener = TcpListener::from_std(listener)?;
        spawn(accept(listener, worker.clone(), pod.clone(), signal(), serve));
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
    draining: watch::Receiver<()>,
    serve: fn(Accepted),
) {
    let failures = worker.node.metrics.limit("accept");
    let ended = dropped(draining.clone());
    tokio::pin!(ended);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut ended => return,
        };
        let ready = accepted.and_then(|(socket, client)| {
            let target = canonical(socket.local_addr()?);
            Ok(Accepted {
                worker: worker.clone(),
                pod: pod.clone(),
                socket,
                client: canonical(client),
                target,
                draining: draining.clone(),
            })
        });
        match ready {
            Ok(accepted) => serve(accepted),
            Err(error) => {
                failures.inc();
                tracing::warn!(pod = %pod.name, %error, "accept failed; trying again");
                sleep(PAUSE_AFTER_FAILURE).await;
            }
        }
    }
}

/// The listening sockets are of both families: IPv4 addresses arrive mapped.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
