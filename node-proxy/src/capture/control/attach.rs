//! Gives a proxy its pods, and the sockets that only capture can make.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use fairlead_ebpf::ProxyProcess;
use tokio::time::{sleep, timeout};

use super::{Control, Enrolled, Shared, datagrams::give_resolver};
use crate::{
    capture::{
        programs::{Programs, ProgramsError},
        proxies::{Ended, Greeted, Link, PodProgress, Progress, ProxyNumber, Unreachable, carry},
        sockets,
    },
    link::{
        channel::{MAX_DESCRIPTORS, Received},
        message::{PodId, SocketKind, ToCapture, ToProxy},
    },
    supervise::control::Request,
};

/// Time for a proxy to connect one socket.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(5);

/// Pause before a pod is given again to a proxy that had no descriptors left for it.
const GIVE_AGAIN_PAUSE: Duration = Duration::from_secs(1);

/// Why a proxy cannot be given its pods.
#[derive(Debug, thiserror::Error)]
enum AttachError {
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
    #[error(transparent)]
    Programs(#[from] ProgramsError),
    #[error("the proxy does not register itself")]
    Unregistered,
    #[error("cannot duplicate listening sockets: {0}")]
    Duplicate(#[from] io::Error),
}

// === impl Control ===

impl Control {
    /// Serves a proxy until it is gone.
    pub async fn serve_proxy(&self, greeted: Greeted) {
        let shared = &self.0;
        let Greeted { arrival, channel, draining, pods, endpoints: _ } = greeted;
        let progress = Progress::holding(pods.iter().map(|(pod, _)| *pod), draining);
        shared.left().extend(pods);
        let (link, queue) = shared.proxies.add(arrival.number, progress);
        drop(arrival);
        let attached = async {
            if let Err(error) = shared.attach(&link).await {
                tracing::error!(proxy = link.number.0, %error, "cannot serve the proxy");
                return;
            }
            std::future::pending::<()>().await;
        };
        let ended = tokio::select! {
            ended = carry(channel, queue, |received| shared.hear(&link, received)) => ended,
            () = attached => Ok(Ended::Gone),
        };
        shared.proxies.remove(&link);
        match ended {
            Ok(Ended::HandedOver) => return,
            Ok(Ended::Gone) => tracing::info!(proxy = link.number.0, "the proxy is gone"),
            Err(error) => {
                tracing::warn!(proxy = link.number.0, %error, "the link to a proxy broke");
            }
        }
        let mut programs = shared.programs.lock().await;
        shared.exempt_only_proxies(&mut programs);
    }

    /// Captures the connections of processes that were taken for proxies and never said so. Never
    /// returns.
    pub async fn forget_unknown(&self) {
        let shared = &self.0;
        let mut unknown = shared.arrivals.unknown();
        while unknown.changed().await.is_ok() {
            if shared.is_recorded() {
                shared.exempt_only_proxies(&mut *shared.programs.lock().await);
            }
        }
        std::future::pending::<()>().await;
    }
}

// === impl Shared ===

impl Shared {
    /// Exempts a proxy from capture and gives it the pods that it does not have.
    async fn attach(&self, link: &Link) -> Result<(), AttachError> {
        let mut programs = self.programs.lock().await;
        let process = register(&mut programs, link).await?;
        link.progress().process = Some(process);
        let draining = link.progress().draining;
        if !draining {
            link.tell(ToProxy::Endpoints, duplicate(self.endpoints.descriptors())?)?;
            link.tell(self.waiting(), Vec::new())?;
        }
        let pods: Vec<_> = self.pods().values().cloned().collect();
        for enrolled in &pods {
            if enrolled.is_draining() {
                link.progress().pods.insert(enrolled.pod, PodProgress::Releasing);
                link.tell(ToProxy::Release { pod: enrolled.pod }, Vec::new())?;
                supply(link, enrolled)?;
            } else {
                give(link, enrolled)?;
            }
        }
        if self.is_recorded() {
            self.exempt_only_proxies(&mut programs);
            self.settle(link);
        }
        tracing::info!(proxy = link.number.0, pods = pods.len(), "serving a proxy");
        Ok(())
    }

    /// Gives a pod to the proxies.
    pub(super) fn give_all(&self, enrolled: &Enrolled) {
        for link in self.proxies.all() {
            // One that is not registered yet is given the pod when it is.
            if link.progress().process.is_some() {
                give_or_warn(&link, enrolled);
            }
        }
    }

    /// Tells a proxy that it has been given everything, and to let go of what is on no record.
    pub(super) fn settle(&self, link: &Link) {
        let known: Vec<PodId> = self.pods().values().map(|enrolled| enrolled.pod).collect();
        let unknown: Vec<PodId> = {
            let progress = link.progress();
            progress.pods.keys().filter(|pod| !known.contains(pod)).copied().collect()
        };
        for pod in unknown {
            link.progress().pods.insert(pod, PodProgress::Releasing);
            // Lost only with the link: the proxy ends, or hears it again over a new one.
            let _ = link.tell(ToProxy::Cut { pod }, Vec::new());
        }
        // As above.
        let _ = link.tell(ToProxy::Recorded, Vec::new());
    }

    /// Captures the connections of all processes but the proxies. While one has not said who it is
    /// all stays as it is: it may be connecting.
    pub(super) fn exempt_only_proxies(&self, programs: &mut Programs) {
        if *self.arrivals.unknown().borrow() > 0 {
            return;
        }
        if let Err(error) = programs.exempt_only(&self.proxies.processes()) {
            tracing::warn!(%error, "a proxy that is gone is still exempt from capture");
        }
    }

    fn hear(self: &Arc<Self>, link: &Link, received: Received<ToCapture>) {
        if let ToCapture::Need { pod, kind, count } = received.message {
            self.refill(link, pod, kind, count);
            return;
        }
        let message = received.message;
        let refused = matches!(message, ToCapture::Idle { pod } if link.progress().is_given(pod));
        self.proxies.heard(link, message.clone());
        match message {
            ToCapture::Complete => self.supersede(link),
            ToCapture::Quit => self.quit(link),
            ToCapture::Idle { pod } if refused => {
                // One at a time for each pod: until then it is not given, and cannot be refused.
                tokio::spawn(self.clone().give_again(link.number, pod));
            }
            ToCapture::Hello { .. }
            | ToCapture::Holding { .. }
            | ToCapture::HoldingEndpoints
            | ToCapture::Registered
            | ToCapture::Serving { .. }
            | ToCapture::Resolving { .. }
            | ToCapture::RefuseDatagrams { .. }
            | ToCapture::Silent { .. }
            | ToCapture::Idle { .. }
            | ToCapture::Need { .. }
            | ToCapture::Pods { .. }
            | ToCapture::Explained { .. }
            | ToCapture::Unknown => {}
        }
    }

    /// Gives a pod again after a while to a proxy that had no descriptors left for its sockets.
    async fn give_again(self: Arc<Self>, number: ProxyNumber, pod: PodId) {
        sleep(GIVE_AGAIN_PAUSE).await;
        let _programs = self.programs.lock().await;
        let enrolled = {
            let pods = self.pods();
            pods.values().find(|e| e.pod == pod && !e.is_draining()).cloned()
        };
        let link = self.proxies.all().into_iter().find(|link| link.number == number);
        if let (Some(enrolled), Some(link)) = (enrolled, link) {
            give_or_warn(&link, &enrolled);
        }
    }

    /// Drains the proxies that came before `successor`, which serves everything from here on.
    fn supersede(&self, successor: &Link) {
        let grace_ms = u64::try_from(self.drain_timeout.as_millis()).unwrap_or(u64::MAX);
        for link in self.proxies.all() {
            if link.number >= successor.number || link.progress().draining {
                continue;
            }
            link.progress().draining = true;
            tracing::info!(
                proxy = link.number.0,
                successor = successor.number.0,
                "draining a proxy"
            );
            // One that is unreachable has ended, or will when its link is closed.
            let _ = link.tell(ToProxy::Drain { grace_ms, succeeded: true }, Vec::new());
        }
    }

    /// Has the node proxy end, since an operator says so to a proxy. One that was taken over from
    /// shows operators nothing any more: its word does not count.
    fn quit(&self, link: &Link) {
        if link.progress().draining {
            return;
        }
        tracing::info!(proxy = link.number.0, "an operator asks the node proxy to end");
        if let Err(error) = self.superior.ask(Request::Quit) {
            tracing::error!(%error, "cannot pass on that the node proxy is to end");
        }
    }

    fn refill(&self, link: &Link, pod: PodId, kind: SocketKind, count: usize) {
        let netns = {
            let pods = self.pods();
            let found = pods.values().find(|enrolled| enrolled.pod == pod);
            found.map(|enrolled| enrolled.enrolment.netns.clone())
        };
        if netns.is_none() && !self.is_recorded() {
            // On record, perhaps: if so the answer comes with the pod.
            return;
        }
        if !link.begin_refill(pod, kind) {
            return;
        }
        let (made, error) = match netns {
            Some(netns) => sockets::make(&netns, kind, count.min(MAX_DESCRIPTORS)),
            None => (Vec::new(), Some(io::Error::from_raw_os_error(nix::libc::ENODEV))),
        };
        let error = error.and_then(|error| error.raw_os_error());
        // Lost only with the link: the proxy ends, or asks again over a new one.
        let _ = link.tell(ToProxy::Sockets { pod, kind, error }, made);
    }
}

/// Has the proxy connect a socket that exempts it from capture.
async fn register(programs: &mut Programs, link: &Link) -> Result<ProxyProcess, AttachError> {
    let registration = programs.registration()?;
    let socket = registration.socket.as_fd().try_clone_to_owned()?;
    link.tell(ToProxy::Register, vec![socket])?;
    timeout(REGISTER_TIMEOUT, link.until(|progress| progress.registered))
        .await
        .map_err(|_| AttachError::Unregistered)?;
    Ok(programs.registered(&registration)?)
}

fn give_or_warn(link: &Link, enrolled: &Enrolled) {
    if let Err(error) = give(link, enrolled) {
        tracing::warn!(proxy = link.number.0, pod = %enrolled.spec.key(), %error, "cannot give a pod to a proxy");
    }
}

/// Gives a pod to a proxy that accepts connections, with the first of its sockets.
fn give(link: &Link, enrolled: &Enrolled) -> Result<(), AttachError> {
    let Some(listeners) = &enrolled.listeners else { return Ok(()) };
    let pod = enrolled.pod;
    if !link.progress().pods.contains_key(&pod) {
        if link.progress().draining {
            return Ok(());
        }
        link.progress().pods.insert(pod, PodProgress::Given);
        link.tell(ToProxy::Serve(enrolled.served()), duplicate(listeners.descriptors())?)?;
    }
    give_resolver(link, enrolled)?;
    supply(link, enrolled)
}

/// Gives a proxy the first sockets of a pod. One that has the pod from before this process gets them
/// too: it may have asked for them in vain.
fn supply(link: &Link, enrolled: &Enrolled) -> Result<(), AttachError> {
    let pod = enrolled.pod;
    for kind in SocketKind::FIRST.into_iter().filter(|kind| kind.serves(&enrolled.addresses)) {
        let (made, error) = sockets::make(&enrolled.enrolment.netns, kind, sockets::AHEAD);
        let error = error.and_then(|error| error.raw_os_error());
        link.tell(ToProxy::Sockets { pod, kind, error }, made)?;
    }
    Ok(())
}

pub(super) fn duplicate<const N: usize>(
    descriptors: [BorrowedFd<'_>; N],
) -> io::Result<Vec<OwnedFd>> {
    descriptors.iter().map(BorrowedFd::try_clone_to_owned).collect()
}
