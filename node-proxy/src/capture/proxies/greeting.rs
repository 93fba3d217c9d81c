//! The first words with a proxy.

use std::{
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use fairlead_ebpf::{HBONE_PORT, MAX_PODS};
use fairlead_sys::socket::listens;
use tokio::{sync::watch, time::timeout};

use crate::link::{
    VERSION,
    channel::{Channel, ChannelError},
    listeners::{EndpointListeners, INBOUND_PLAINTEXT_PORT, OUTBOUND_PORT, PodListeners},
    message::{PodId, ToCapture, ToProxy},
    understands,
};

/// Time that the first words may take: a proxy that is just starting reads its configuration first.
const GREETING_TIMEOUT: Duration = Duration::from_secs(20);

/// Most messages with sockets that a proxy may have: those of all pods and those for operators.
const MOST_HELD: usize = MAX_PODS as usize + 1;

/// Place of a proxy among the others: of two, the one whose link came later has the higher number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProxyNumber(pub(in crate::capture) u64);

/// Numbers proxies as their links come, and knows how many have not said yet who they are. Who does
/// so first is not the one that came first: a proxy that drains may be the busiest. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Arrivals {
    last: Arc<AtomicU64>,
    unknown: Arc<watch::Sender<usize>>,
}

/// A proxy whose link has come. Until this is dropped it counts as one that is not known.
#[derive(Debug)]
pub struct Arrival {
    pub(in crate::capture) number: ProxyNumber,
    unknown: Arc<watch::Sender<usize>>,
}

/// A proxy that has said who it is.
#[derive(Debug)]
pub struct Greeted {
    pub(in crate::capture) arrival: Arrival,
    pub(in crate::capture) channel: Channel,
    pub(in crate::capture) draining: bool,
    /// Listening sockets of pods, from before this capture process was started.
    pub(in crate::capture) pods: Vec<(PodId, PodListeners)>,
    /// Listening sockets for operators, likewise.
    pub endpoints: Option<EndpointListeners>,
}

/// Why a proxy cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum GreetingError {
    /// The link broke.
    #[error("the link to a proxy broke: {0}")]
    Channel(#[from] ChannelError),
    /// The proxy ended, or was linked anew.
    #[error("the proxy is gone")]
    Gone,
    /// The proxy says nothing.
    #[error("the proxy does not answer")]
    Timeout,
    /// The proxy is of a release that this one does not understand.
    #[error("the proxy speaks version {0} of the protocol; this release speaks {VERSION}")]
    Version(u16),
    /// A message came without its sockets.
    #[error("the proxy sent a message without its sockets; is the process out of descriptors?")]
    Sockets,
    /// More is announced than there can be.
    #[error("the proxy claims to hold the sockets of {0} pods, more than a node has")]
    TooMany(usize),
    /// Sockets are not what they are said to be.
    #[error("the proxy sent sockets that do not listen in the network namespace of pod {0}")]
    Foreign(PodId),
}

/// Exchanges the first words over a link.
pub async fn greet(socket: OwnedFd, arrival: Arrival) -> Result<Greeted, GreetingError> {
    let channel = Channel::new(socket).map_err(ChannelError::from)?;
    let exchanged = timeout(GREETING_TIMEOUT, exchange(channel, arrival)).await;
    exchanged.map_err(|_| GreetingError::Timeout)?
}

async fn exchange(channel: Channel, arrival: Arrival) -> Result<Greeted, GreetingError> {
    channel.send(&ToProxy::Hello { version: VERSION }, &[]).await?;
    let (mut expected, draining) = loop {
        // What was meant for a predecessor is of no use any more; the proxy asks again.
        let Some(received) = channel.receive().await? else { return Err(GreetingError::Gone) };
        let ToCapture::Hello { version, holding, draining } = received.message else { continue };
        if !understands(version) {
            return Err(GreetingError::Version(version));
        }
        if holding > MOST_HELD {
            return Err(GreetingError::TooMany(holding));
        }
        break (holding, draining);
    };
    let (mut pods, mut endpoints) = (Vec::new(), None);
    while expected > 0 {
        let Some(received) = channel.receive().await? else { return Err(GreetingError::Gone) };
        match received.message {
            ToCapture::Holding { pod } => {
                let listeners = PodListeners::from_descriptors(received.descriptors);
                let listeners = listeners.ok_or(GreetingError::Sockets)?;
                if !belong(&listeners, pod) {
                    return Err(GreetingError::Foreign(pod));
                }
                pods.push((pod, listeners));
            }
            ToCapture::HoldingEndpoints => {
                let listeners = EndpointListeners::from_descriptors(received.descriptors);
                endpoints = Some(listeners.ok_or(GreetingError::Sockets)?);
            }
            ToCapture::Hello { .. }
            | ToCapture::Registered
            | ToCapture::Serving { .. }
            | ToCapture::Resolving { .. }
            | ToCapture::RefuseDatagrams { .. }
            | ToCapture::Complete
            | ToCapture::Silent { .. }
            | ToCapture::Idle { .. }
            | ToCapture::Need { .. }
            | ToCapture::Quit
            | ToCapture::Pods { .. }
            | ToCapture::Explained { .. }
            | ToCapture::Unknown => continue,
        }
        expected -= 1;
    }
    Ok(Greeted { arrival, channel, draining, pods, endpoints })
}

// === impl Arrivals ===

impl Arrivals {
    /// Notes that the link of a proxy has come.
    pub fn arrive(&self) -> Arrival {
        self.arrive_again(ProxyNumber(self.last.fetch_add(1, Ordering::Relaxed) + 1))
    }

    /// Notes that the link of a proxy that was known has come back.
    pub(in crate::capture) fn arrive_again(&self, number: ProxyNumber) -> Arrival {
        self.unknown.send_modify(|unknown| *unknown += 1);
        Arrival { number, unknown: self.unknown.clone() }
    }

    /// Returns how many proxies have not said who they are, as it changes.
    pub(in crate::capture) fn unknown(&self) -> watch::Receiver<usize> {
        self.unknown.subscribe()
    }
}

// === impl Arrival ===

impl Drop for Arrival {
    fn drop(&mut self) {
        self.unknown.send_modify(|unknown| *unknown -= 1);
    }
}

/// Returns whether the sockets are those of the pod. They are steered to again, and are given to
/// the next proxy, so the word of this one is not enough.
fn belong(listeners: &PodListeners, pod: PodId) -> bool {
    let [outbound, inbound_hbone, inbound_plaintext] = listeners.descriptors();
    [
        (outbound, OUTBOUND_PORT),
        (inbound_hbone, HBONE_PORT),
        (inbound_plaintext, INBOUND_PLAINTEXT_PORT),
    ]
    .iter()
    .all(|(socket, port)| listens(socket, pod.netns(), *port).unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use std::{
        net::TcpListener,
        os::fd::{AsFd, BorrowedFd},
    };

    use super::*;
    use crate::link::channel::pair;
    use fairlead_sys::socket::{netns_cookie, probe};

    fn hello(holding: usize) -> ToCapture {
        ToCapture::Hello { version: VERSION, holding, draining: false }
    }

    /// Greets a proxy that says `messages`.
    async fn hear(messages: &[(ToCapture, &[BorrowedFd<'_>])]) -> Result<Greeted, GreetingError> {
        let (ours, theirs) = pair().unwrap();
        let theirs = Channel::new(theirs).unwrap();
        for (message, descriptors) in messages {
            theirs.send(message, descriptors).await.unwrap();
        }
        greet(ours, Arrivals::default().arrive()).await
    }

    #[tokio::test]
    async fn what_was_meant_for_a_predecessor_is_passed_over() {
        let greeted = hear(&[(ToCapture::Complete, &[]), (hello(0), &[])]).await.unwrap();
        assert!(greeted.pods.is_empty() && greeted.endpoints.is_none() && !greeted.draining);
    }

    #[tokio::test]
    async fn a_proxy_is_unknown_until_it_has_said_who_it_is_or_never_will() {
        let arrivals = Arrivals::default();
        let unknown = arrivals.unknown();
        let (ours, theirs) = pair().unwrap();
        let (silent, talking) = (arrivals.arrive(), arrivals.arrive());
        assert!(silent.number < talking.number);
        assert_eq!(*unknown.borrow(), 2);
        drop(theirs);
        assert!(matches!(greet(ours, silent).await, Err(GreetingError::Gone)));
        assert_eq!(*unknown.borrow(), 1);
        let (ours, theirs) = pair().unwrap();
        Channel::new(theirs).unwrap().send(&hello(0), &[]).await.unwrap();
        let greeted = greet(ours, talking).await.unwrap();
        assert_eq!(*unknown.borrow(), 1, "nobody has taken note of it");
        drop(greeted);
        assert_eq!(*unknown.borrow(), 0);
    }

    #[tokio::test]
    async fn a_proxy_that_claims_too_much_is_not_listened_to() {
        let error = hear(&[(hello(MOST_HELD + 1), &[])]).await.unwrap_err();
        assert!(matches!(error, GreetingError::TooMany(_)), "{error}");
    }

    #[tokio::test]
    async fn sockets_that_are_not_the_pods_are_refused() {
        let netns = netns_cookie(&probe().unwrap()).unwrap().0;
        let pod = PodId { netns, enrolment: 1 };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let other_ports = [listener.as_fd(); 3];
        let said = [(hello(1), &[][..]), (ToCapture::Holding { pod }, &other_ports[..])];
        let error = hear(&said).await.unwrap_err();
        assert!(matches!(error, GreetingError::Foreign(found) if found == pod), "{error}");
        let said = [(hello(1), &[][..]), (ToCapture::Holding { pod }, &other_ports[..2])];
        let error = hear(&said).await.unwrap_err();
        assert!(matches!(error, GreetingError::Sockets), "{error}");
    }
}
