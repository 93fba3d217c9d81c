//! The link to a proxy: what is told to it waits here, in order and within bounds.

use std::{
    collections::HashSet,
    io,
    os::fd::{AsFd as _, OwnedFd},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use fairlead_ebpf::MAX_PODS;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::{greeting::ProxyNumber, progress::Progress};
use crate::link::{
    channel::{Channel, ChannelError, Received},
    message::{PodId, SocketKind, ToCapture, ToProxy},
};

/// Messages that may wait for a proxy: several for each pod. One that reads no more for so long
/// hangs, and is given up.
const QUEUE: usize = 16 * MAX_PODS as usize;

/// Descriptors that may wait for a proxy: those that all pods begin with, and as many again. One that
/// asks for sockets and reads none of the answers is given up before this process is out of them.
const QUEUED_DESCRIPTORS: usize = 32 * MAX_PODS as usize;

/// A proxy.
#[derive(Debug)]
pub(in crate::capture) struct Link {
    pub(in crate::capture) number: ProxyNumber,
    outgoing: mpsc::Sender<Outgoing>,
    backlog: Arc<Backlog>,
    progress: Mutex<Progress>,
    changed: Arc<watch::Sender<()>>,
}

/// What waits for a proxy, at the link's end.
#[derive(Debug)]
pub(in crate::capture) struct Queue {
    outgoing: mpsc::Receiver<Outgoing>,
    backlog: Arc<Backlog>,
}

/// How far a proxy is behind.
#[derive(Debug, Default)]
struct Backlog {
    /// Descriptors that wait for it.
    descriptors: AtomicUsize,
    /// Kinds of sockets that it has asked for, and that are on their way.
    refills: Mutex<HashSet<(PodId, SocketKind)>>,
    /// Told when too much waits.
    given_up: Notify,
}

/// What a link is to do.
#[derive(Debug)]
enum Outgoing {
    /// Send a message.
    Message(ToProxy, Vec<OwnedFd>),
    /// Stop, and return the socket.
    HandOver(oneshot::Sender<OwnedFd>),
}

/// How a link ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::capture) enum Ended {
    /// The proxy is gone.
    Gone,
    /// A successor has the socket.
    HandedOver,
}

/// The proxy reads no more.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the proxy is gone or reads no more messages")]
pub(in crate::capture) struct Unreachable;

// === impl Link ===

impl Link {
    pub(super) fn new(
        number: ProxyNumber,
        progress: Progress,
        changed: Arc<watch::Sender<()>>,
    ) -> (Self, Queue) {
        let (sender, outgoing) = mpsc::channel(QUEUE);
        let backlog = Arc::<Backlog>::default();
        let queue = Queue { outgoing, backlog: backlog.clone() };
        let progress = Mutex::new(progress);
        (Self { number, outgoing: sender, backlog, progress, changed }, queue)
    }

    /// Sends a message, in the order of the calls.
    pub(in crate::capture) fn tell(
        &self,
        message: ToProxy,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), Unreachable> {
        self.queue(Outgoing::Message(message, descriptors))
    }

    /// Begins to answer a proxy that asks for sockets; returns whether there is to be an answer.
    ///
    /// There is none for a pod that the proxy has nothing of, and none while an earlier one waits for
    /// it: that one answers both. So a proxy that asks all the time has no more sockets made than it
    /// reads.
    pub(in crate::capture) fn begin_refill(&self, pod: PodId, kind: SocketKind) -> bool {
        self.progress().pods.contains_key(&pod) && self.backlog.refills().insert((pod, kind))
    }

    /// Returns how far the proxy is.
    pub(in crate::capture) fn progress(&self) -> MutexGuard<'_, Progress> {
        // Progress is advisory, and each step of it a single assignment.
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops the link after what is queued, and returns its socket; none if the proxy is gone.
    pub(in crate::capture) async fn hand_over(&self) -> Option<OwnedFd> {
        let (give, given) = oneshot::channel();
        self.queue(Outgoing::HandOver(give)).ok()?;
        given.await.ok()
    }

    /// Returns once `holds` is true of the proxy's progress.
    pub(in crate::capture) async fn until(&self, holds: impl Fn(&Progress) -> bool) {
        let mut changes = self.changed.subscribe();
        while !holds(&self.progress()) {
            // The sender lives as long as `self`.
            let _ = changes.changed().await;
        }
    }

    pub(super) fn tell_or_warn(&self, message: ToProxy) {
        if let Err(error) = self.tell(message, Vec::new()) {
            tracing::warn!(proxy = self.number.0, %error, "message lost");
        }
    }

    /// A proxy that is too far behind is given up: what it has missed cannot be told again.
    fn queue(&self, outgoing: Outgoing) -> Result<(), Unreachable> {
        let count = outgoing.descriptors();
        let waiting = self.backlog.descriptors.fetch_add(count, Ordering::Relaxed);
        if count > 0 && waiting + count > QUEUED_DESCRIPTORS
            || self.outgoing.try_send(outgoing).is_err()
        {
            self.backlog.given_up.notify_one();
            return Err(Unreachable);
        }
        Ok(())
    }
}

// === impl Backlog ===

impl Backlog {
    fn refills(&self) -> MutexGuard<'_, HashSet<(PodId, SocketKind)>> {
        // Every change of the set is a single insert or remove: it is whole even after a panic.
        self.refills.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a message is with the proxy.
    fn sent(&self, message: &ToProxy, descriptors: usize) {
        self.descriptors.fetch_sub(descriptors, Ordering::Relaxed);
        if let ToProxy::Sockets { pod, kind, .. } = message {
            self.refills().remove(&(*pod, *kind));
        }
    }
}

// === impl Outgoing ===

impl Outgoing {
    fn descriptors(&self) -> usize {
        match self {
            Self::Message(_, descriptors) => descriptors.len(),
            Self::HandOver(_) => 0,
        }
    }
}

/// Carries messages both ways until the proxy is gone or given up, or the link is handed over.
pub(in crate::capture) async fn carry(
    channel: Channel,
    Queue { mut outgoing, backlog }: Queue,
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
            match outgoing.recv().await {
                Some(Outgoing::Message(message, descriptors)) => {
                    let borrowed: Vec<_> =
                        descriptors.iter().map(|descriptor| descriptor.as_fd()).collect();
                    channel.send(&message, &borrowed).await?;
                    backlog.sent(&message, descriptors.len());
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
        () = backlog.given_up.notified() => return Err(io::Error::other(Unreachable).into()),
    };
    let Some(give) = give else { return Ok(Ended::Gone) };
    // The successor may have given up; the socket is then closed and the proxy linked anew.
    let _ = give.send(channel.into_inner());
    Ok(Ended::HandedOver)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::{
        capture::proxies::PodProgress,
        capture::sockets::AHEAD,
        link::channel::{MAX_DESCRIPTORS, pair},
    };

    const POD: PodId = PodId { netns: 1, enrolment: 1 };

    fn link() -> (Link, Queue) {
        Link::new(ProxyNumber(1), Progress::default(), Arc::new(watch::Sender::new(())))
    }

    fn tell(link: &Link, sockets: usize) -> Result<(), Unreachable> {
        let one = |_| File::open("/dev/null").unwrap().into();
        let message = ToProxy::Sockets { pod: POD, kind: SocketKind::OutboundV4, error: None };
        link.tell(message, (0..sockets).map(one).collect())
    }

    /// The other end reads nothing.
    async fn assert_given_up(queue: Queue) {
        let (ours, _theirs) = pair().unwrap();
        let ended = carry(Channel::new(ours).unwrap(), queue, |_| ()).await;
        assert!(ended.unwrap_err().to_string().contains("reads no more"));
    }

    #[tokio::test]
    async fn a_proxy_that_reads_no_messages_is_given_up() {
        let (link, queue) = link();
        for _ in 0..QUEUE {
            tell(&link, 0).unwrap();
        }
        tell(&link, 0).unwrap_err();
        assert_given_up(queue).await;
    }

    #[tokio::test]
    async fn a_proxy_that_asks_for_sockets_and_reads_none_is_given_up() {
        let (link, queue) = link();
        link.backlog.descriptors.store(QUEUED_DESCRIPTORS - MAX_DESCRIPTORS, Ordering::Relaxed);
        tell(&link, MAX_DESCRIPTORS).unwrap();
        tell(&link, 0).unwrap();
        tell(&link, 1).unwrap_err();
        assert_given_up(queue).await;
        // What every pod begins with has room: listening sockets, those by which names are resolved,
        // and some of each kind.
        let first = 3 + 3 + AHEAD * SocketKind::FIRST.len();
        assert!(first * MAX_PODS as usize <= QUEUED_DESCRIPTORS);
    }

    #[tokio::test]
    async fn descriptors_that_were_read_no_longer_count() {
        let (ours, theirs) = pair().unwrap();
        let (ours, theirs) = (Channel::new(ours).unwrap(), Channel::new(theirs).unwrap());
        let (link, queue) = link();
        link.backlog.descriptors.store(QUEUED_DESCRIPTORS - MAX_DESCRIPTORS, Ordering::Relaxed);
        let read = async {
            for _ in 0..4 {
                tell(&link, MAX_DESCRIPTORS).unwrap();
                let received = theirs.receive::<ToProxy>().await.unwrap().unwrap();
                assert_eq!(received.descriptors.len(), MAX_DESCRIPTORS);
            }
        };
        tokio::select! {
            biased;
            ended = carry(ours, queue, |_| ()) => panic!("{ended:?}"),
            () = read => {}
        }
    }

    #[tokio::test]
    async fn one_refill_of_a_kind_is_under_way() {
        let (ours, theirs) = pair().unwrap();
        let (ours, theirs) = (Channel::new(ours).unwrap(), Channel::new(theirs).unwrap());
        let (link, queue) = link();
        let begin = || link.begin_refill(POD, SocketKind::OutboundV4);
        assert!(!begin(), "the proxy was not given the pod");
        link.progress().pods.insert(POD, PodProgress::Serving);
        assert!(begin());
        assert!(!begin(), "one is under way");
        assert!(link.begin_refill(POD, SocketKind::DeliveryV4), "of another kind");
        tell(&link, 1).unwrap();
        assert!(!begin(), "it waits for the proxy");
        tokio::select! {
            biased;
            ended = carry(ours, queue, |_| ()) => panic!("{ended:?}"),
            received = theirs.receive::<ToProxy>() => assert!(received.unwrap().is_some()),
        }
        assert!(begin());
    }
}
