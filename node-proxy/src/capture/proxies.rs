//! The proxies that capture serves: one, or two while one takes over from the other.

mod greeting;
mod progress;

use std::{
    collections::HashMap,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use fairlead_ebpf::{MAX_PODS, ProxyProcess};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

pub use self::greeting::{Greeted, GreetingError, greet};
pub(super) use self::progress::{PodProgress, Progress};
use crate::link::{
    channel::{Channel, ChannelError, Received},
    message::{PodId, PodReport, ToCapture, ToProxy},
};

/// Messages that may wait for a proxy: several for each pod. One that reads no more for so long
/// hangs, and is given up.
const QUEUE: usize = 16 * MAX_PODS as usize;

/// Time that a description of the pods may take.
const DESCRIBE_TIMEOUT: Duration = Duration::from_millis(500);

/// The proxies of this node.
#[derive(Debug)]
pub(super) struct Proxies {
    links: Mutex<Vec<Arc<Link>>>,
    numbers: AtomicU64,
    changed: Arc<watch::Sender<()>>,
}

/// A proxy.
#[derive(Debug)]
pub(super) struct Link {
    /// Counts up: of two proxies the one that came later has the higher number.
    pub(super) number: u64,
    outgoing: mpsc::Sender<Outgoing>,
    progress: Mutex<Progress>,
    changed: Arc<watch::Sender<()>>,
}

/// What a link is to do.
#[derive(Debug)]
pub(super) enum Outgoing {
    /// Send a message.
    Message(ToProxy, Vec<OwnedFd>),
    /// Stop, and return the socket.
    HandOver(oneshot::Sender<OwnedFd>),
}

/// How a link ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The proxy is gone.
    Gone,
    /// A successor has the socket.
    HandedOver,
}

/// The proxy reads no more.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the proxy is gone or reads no more messages")]
pub(super) struct Unreachable;

// === impl Proxies ===

impl Proxies {
    pub(super) fn new() -> Self {
        Self {
            links: Mutex::default(),
            numbers: AtomicU64::new(1),
            changed: Arc::new(watch::Sender::new(())),
        }
    }

    /// Adds a proxy that holds some pods already; returns what it is to be sent, too.
    pub(super) fn add(&self, progress: Progress) -> (Arc<Link>, mpsc::Receiver<Outgoing>) {
        let (outgoing, queue) = mpsc::channel(QUEUE);
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let (progress, changed) = (Mutex::new(progress), self.changed.clone());
        let link = Arc::new(Link { number, outgoing, progress, changed });
        self.lock().push(link.clone());
        self.changed.send_replace(());
        (link, queue)
    }

    pub(super) fn remove(&self, link: &Arc<Link>) {
        self.lock().retain(|other| !Arc::ptr_eq(other, link));
        self.changed.send_replace(());
    }

    /// Returns the proxies, the oldest first.
    pub(super) fn all(&self) -> Vec<Arc<Link>> {
        self.lock().clone()
    }

    /// Returns the processes that are exempt from capture.
    pub(super) fn processes(&self) -> Vec<ProxyProcess> {
        self.all().iter().filter_map(|link| link.progress().process).collect()
    }

    /// Notes an answer of a proxy.
    pub(super) fn heard(&self, link: &Link, message: ToCapture) {
        link.progress().hear(message);
        self.changed.send_replace(());
    }

    /// Tells every proxy that accepts connections.
    pub(super) fn tell_active(&self, message: &ToProxy) {
        for link in self.all() {
            if !link.progress().draining {
                link.tell_or_warn(message.clone());
            }
        }
    }

    /// Asks every proxy to let go of a pod.
    pub(super) fn let_go(&self, message: &ToProxy, pod: PodId) {
        for link in self.all() {
            link.progress().pods.insert(pod, PodProgress::Releasing);
            link.tell_or_warn(message.clone());
        }
    }

    /// Returns once `holds` is true of the progress of every proxy.
    pub(super) async fn until_all(&self, holds: impl Fn(&Progress) -> bool) {
        self.until(|links| links.iter().all(|link| holds(&link.progress()))).await;
    }

    /// Returns once `holds` is true of the progress of some proxy.
    pub(super) async fn until_any(&self, holds: impl Fn(&Progress) -> bool) {
        self.until(|links| links.iter().any(|link| holds(&link.progress()))).await;
    }

    /// Returns once there is no proxy.
    pub(super) async fn until_none(&self) {
        self.until(<[_]>::is_empty).await;
    }

    /// Returns when something has changed.
    pub(super) async fn changed(&self) {
        // The sender lives as long as `self`.
        let _ = self.changed.subscribe().changed().await;
    }

    /// Returns what the proxies say of the pods: of a pod that several have, the sum of its
    /// connections, and what the latest says of its certificate.
    pub(super) async fn describe(&self) -> HashMap<PodId, PodReport> {
        let request = self.numbers.fetch_add(1, Ordering::Relaxed);
        let links = self.all();
        for link in &links {
            link.tell_or_warn(ToProxy::Describe { request });
        }
        let answered =
            self.until_all(|progress| progress.request >= request || progress.process.is_none());
        // A proxy that is just starting says nothing yet.
        let _ = timeout(DESCRIBE_TIMEOUT, answered).await;
        let mut reports: HashMap<PodId, PodReport> = HashMap::new();
        for link in &links {
            for report in &link.progress().reports {
                let so_far = reports.get(&report.pod).map_or(0, |known| known.connections);
                let connections = so_far + report.connections;
                reports.insert(report.pod, PodReport { connections, ..report.clone() });
            }
        }
        reports
    }

    async fn until(&self, holds: impl Fn(&[Arc<Link>]) -> bool) {
        let mut changes = self.changed.subscribe();
        while !holds(&self.all()) {
            // The sender lives as long as `self`.
            let _ = changes.changed().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Link>>> {
        // Every change of the list is a single push or removal: it is whole even after a panic.
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Link ===

impl Link {
    /// Sends a message, in the order of the calls.
    pub(super) fn tell(
        &self,
        message: ToProxy,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), Unreachable> {
        self.queue(Outgoing::Message(message, descriptors))
    }

    /// Returns how far the proxy is.
    pub(super) fn progress(&self) -> MutexGuard<'_, Progress> {
        // Progress is advisory, and each step of it a single assignment.
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops the link after what is queued, and returns its socket; none if the proxy is gone.
    pub(super) async fn hand_over(&self) -> Option<OwnedFd> {
        let (give, given) = oneshot::channel();
        self.queue(Outgoing::HandOver(give)).ok()?;
        given.await.ok()
    }

    /// Returns once `holds` is true of the proxy's progress.
    pub(super) async fn until(&self, holds: impl Fn(&Progress) -> bool) {
        let mut changes = self.changed.subscribe();
        while !holds(&self.progress()) {
            // The sender lives as long as `self`.
            let _ = changes.changed().await;
        }
    }

    fn tell_or_warn(&self, message: ToProxy) {
        if let Err(error) = self.tell(message, Vec::new()) {
            tracing::warn!(proxy = self.number, %error, "message lost");
        }
    }

    fn queue(&self, outgoing: Outgoing) -> Result<(), Unreachable> {
        self.outgoing.try_send(outgoing).map_err(|_| Unreachable)
    }
}

/// Carries messages both ways until the proxy is gone or the link is handed over.
pub(super) async fn carry(
    channel: Channel,
    mut queue: mpsc::Receiver<Outgoing>,
    heard: impl Fn(Received<ToCapture>),
) -> Result<Ended, ChannelError> {
    let hear = async {
        while let Some(received) = channel.receive().await? {
            heard(received);
        }
        Ok::<_, ChannelError>(())
    };
    let tell = async {
        loop {
            match queue.recv().await {
                Some(Outgoing::Message(message, descriptors)) => {
                    let borrowed: Vec<_> =
                        descriptors.iter().map(std::os::fd::AsFd::as_fd).collect();
                    channel.send(&message, &borrowed).await?;
                }
                Some(Outgoing::HandOver(give)) => return Ok::<_, ChannelError>(Some(give)),
                None => return Ok(None),
            }
        }
    };
    // A message is heard whole or not at all: the successor hears the next one.
    let give = tokio::select! {
        ended = hear => { ended?; None }
        told = tell => told?,
    };
    let Some(give) = give else { return Ok(Ended::Gone) };
    // The successor may have given up; the socket is then closed and the proxy linked anew.
    let _ = give.send(channel.into_inner());
    Ok(Ended::HandedOver)
}
