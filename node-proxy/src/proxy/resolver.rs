//! Answers the DNS queries of enrolled pods: those for services of the mesh itself, all others by the
//! name server that was asked, whose answers are passed back as they are.
//!
//! What name servers say is kept for a short time, for each pod by itself: another pod may be told
//! something else, or not be allowed to ask. Queries as datagrams have a thread of their own; those over TCP, which are rare, are served
//! where the connection was accepted.

mod decide;
pub(super) mod tcp;
mod udp;
pub(super) mod upstream;

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use fairlead_ebpf::NetnsCookie;
use tokio::{
    runtime::Handle,
    sync::{oneshot, watch},
    time::timeout,
};

use super::{node::Node, pod::Pod};
use crate::link::{message::SocketKind, resolver::ResolverSockets};

/// Time for the queries that have arrived to be read when their socket is let go of.
const STOP_TIME: Duration = Duration::from_secs(1);

/// Takes the DNS queries of pods, on a thread of its own.
#[derive(Debug)]
pub struct Resolver {
    node: Arc<Node>,
    runtime: Handle,
    /// Dropped to stop taking queries; done when those that have arrived are read.
    pods: Mutex<HashMap<NetnsCookie, watch::Sender<()>>>,
    /// Ends the thread.
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

// === impl Resolver ===

impl Resolver {
    /// Starts the thread.
    pub fn start(node: &Arc<Node>) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        node.metrics.runtimes.add("resolver", runtime.metrics());
        let (end, ended) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name("resolver".to_owned()).spawn(move || {
            // Ends when the other half is dropped, too.
            let _ = runtime.block_on(ended);
        })?;
        let pods = Mutex::default();
        let (end, thread) = (Some(end), Some(thread));
        Ok(Self { node: node.clone(), runtime: handle, pods, end, thread })
    }

    /// Answers the queries that arrive at `sockets`, in place of those that the pod had before.
    pub(super) fn serve(&self, pod: &Arc<Pod>, sockets: ResolverSockets) {
        let kinds = [SocketKind::DatagramV4, SocketKind::DatagramV6];
        for kind in kinds.into_iter().filter(|kind| kind.serves(&pod.addresses)) {
            // The first name is asked for at once, and perhaps when capture is away.
            pod.sockets.prepare(kind);
        }
        let (stop, stopped) = watch::channel(());
        self.runtime.spawn(udp::serve(self.node.clone(), pod.clone(), sockets, stopped));
        self.pods().insert(pod.id, stop);
    }

    /// Takes no more queries of a pod.
    pub(super) fn release(&self, pod: NetnsCookie) {
        self.pods().remove(&pod);
    }

    /// Takes no more queries. On return those that had arrived count as open connections of the
    /// node until they are answered.
    pub async fn drain(&self) {
        let pods: Vec<_> = self.pods().drain().map(|(_, stop)| stop).collect();
        let stopped = async {
            for stop in pods {
                // Tells the receiver, which is dropped at the end.
                stop.send_replace(());
                stop.closed().await;
            }
        };
        if timeout(STOP_TIME, stopped).await.is_err() {
            tracing::warn!("the resolver is slow to let go of its sockets");
        }
    }

    fn pods(&self) -> MutexGuard<'_, HashMap<NetnsCookie, watch::Sender<()>>> {
        // Every change of the map is a single insert or remove: it is whole even after a panic.
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // One that has panicked has said so.
            let _ = thread.join();
        }
    }
}
