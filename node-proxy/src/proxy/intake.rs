//! What the proxy gets from capture: pods with their listening sockets, and sockets made inside pods.

mod datagrams;
mod links;
mod preparation;

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    os::fd::OwnedFd,
    sync::Arc,
    time::Duration,
};

use fairlead_ebpf::{MAX_PODS, REGISTRATION_ADDRESS};
use fairlead_sys::socket::waiting;
use fairlead_tunnel::identity::IdentityStore;
use mesh_api::identity::{Identity, TrustDomain};
use socket2::Socket;
use tokio::{
    sync::{Notify, mpsc, watch},
    time::interval,
};

use self::preparation::prepare;
use super::{
    explain,
    hostnames::Told,
    node::Node,
    pod::{OpenConnections, Peers, Pod},
    ready_sockets::ReadySockets,
    resolver::Resolver,
    worker::Workers,
};
use crate::{
    link::{
        VERSION,
        channel::{Channel, ChannelError, Received},
        listeners::{EndpointListeners, PodListeners},
        message::{
            MAX_PODS_PER_MESSAGE, MAX_PROBLEM_BYTES, PodId, PodReport, ServedPod, ToCapture,
            ToProxy,
        },
        resolver::ResolverSockets,
        understands,
    },
    telemetry::readiness::Gate,
};

/// Answers that may wait for capture: several for each pod. The proxy never sends more unasked.
const QUEUE: usize = 16 * MAX_PODS as usize;

/// Pause between looks for sockets that nobody uses.
const TIDY_INTERVAL: Duration = Duration::from_secs(5);

/// Gets pods from capture and has them served.
#[derive(Debug)]
pub struct Intake {
    parts: Parts,
    /// True once pods can be served.
    prepared: watch::Receiver<bool>,
    pods: HashMap<PodId, Served>,
    endpoints: Option<EndpointListeners>,
    progress: Progress,
    draining: bool,
    answers: mpsc::Sender<ToCapture>,
}

/// Whether pods are served. Until the mesh is known and there are certificates they wait, as they
/// would without a proxy: a predecessor, which has both, goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// Pods wait.
    Waiting,
    /// Pods wait; all on record are here.
    WaitingComplete,
    /// Pods are served.
    Serving,
}

/// What an intake works with.
#[derive(Debug)]
pub struct Parts {
    /// The proxy.
    pub node: Arc<Node>,
    /// True once the mesh is known.
    pub configured: watch::Receiver<bool>,
    /// Its threads.
    pub workers: Arc<Workers>,
    /// What answers DNS queries.
    pub resolver: Arc<Resolver>,
    /// Certificates.
    pub identities: IdentityStore,
    /// Trust domain of this node's pods.
    pub trust_domain: TrustDomain,
    /// Opened once all pods on record are served.
    pub recorded: Gate,
    /// Gets the listening sockets for operators.
    pub endpoints: mpsc::Sender<EndpointListeners>,
    /// Told when an operator asks that the node proxy ends.
    pub quit: Arc<Notify>,
    /// Gets word when this process is to end.
    pub drain: mpsc::Sender<Drain>,
}

/// Capture's wish that this process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// Time for open connections to finish.
    pub grace: Duration,
    /// Whether another proxy goes on for this one.
    pub succeeded: bool,
}

#[derive(Debug)]
struct Served {
    pod: Arc<Pod>,
    /// Given back to a capture process that is started anew; none once the pod is released.
    listeners: Option<PodListeners>,
    /// Until names are resolved by them.
    resolver: Option<ResolverSockets>,
    /// Whether capture was told to refuse datagrams, and what.
    refuses: Option<bool>,
}

/// Why this process cannot work with capture.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// The link broke.
    #[error("the link to capture broke: {0}")]
    Channel(#[from] ChannelError),
    /// A socket cannot be used.
    #[error("a socket of capture's cannot be used: {0}")]
    Io(#[from] std::io::Error),
    /// Capture is of a release that this one does not understand.
    #[error("capture speaks version {0} of the protocol; this release speaks {VERSION}")]
    Version(u16),
    /// A message came without its sockets.
    #[error("a message of capture's came without its sockets; is this process out of descriptors?")]
    Sockets,
    /// Capture has closed the link, and nobody links this process anew.
    #[error("capture serves this process no more: it was too slow, or broke the protocol")]
    GivenUp,
}

// === impl Intake ===

impl Intake {
    /// Serves the pods that come by `links`, of which the latest counts, until there are no more
    /// links: nobody supervises this process any more.
    pub async fn run(parts: Parts, mut links: mpsc::Receiver<OwnedFd>) -> Result<(), IntakeError> {
        let (answers, mut queue) = mpsc::channel(QUEUE);
        let (pods, endpoints) = (HashMap::new(), None);
        let (progress, draining) = (Progress::Waiting, false);
        let prepared = prepare(parts.configured.clone(), parts.identities.clone());
        let mut intake = Self { parts, prepared, pods, endpoints, progress, draining, answers };
        let mut link = links.recv().await;
        while let Some(socket) = link {
            tokio::select! {
                next = links.recv() => { link = next; continue }
                talked = intake.talk(socket, &mut queue) => talked?,
            }
            tracing::info!("capture is gone; waiting for its successor");
            link = links::next(&mut links, intake.draining).await?;
        }
        Ok(())
    }

    /// Carries messages both ways until capture is gone.
    async fn talk(
        &mut self,
        socket: OwnedFd,
        queue: &mut mpsc::Receiver<ToCapture>,
    ) -> Result<(), IntakeError> {
        let channel = Channel::new(socket)?;
        self.parts.node.metrics.pod_connections.begin();
        let mut tidy = interval(TIDY_INTERVAL);
        let mut changes = self.parts.node.changes();
        let tell = async {
            while let Some(answer) = queue.recv().await {
                channel.send(&answer, &[]).await?;
            }
            Ok(())
        };
        let hear = async {
            loop {
                tokio::select! {
                    received = channel.receive() => match received? {
                        Some(received) => self.obey(&channel, received).await?,
                        None => return Ok(()),
                    },
                    () = is_true(&mut self.prepared),
                        if self.progress != Progress::Serving => self.begin().await?,
                    () = self.parts.quit.notified() => self.answer(ToCapture::Quit),
                    Ok(()) = changes.changed() => self.judge_datagrams(),
                    _ = tidy.tick() => self.pods.values().for_each(|s| s.pod.sockets.tidy()),
                }
            }
        };
        tokio::select! {
            told = tell => told,
            heard = hear => heard,
        }
    }

    async fn obey(
        &mut self,
        channel: &Channel,
        received: Received<ToProxy>,
    ) -> Result<(), IntakeError> {
        let Received { message, descriptors } = received;
        match message {
            ToProxy::Hello { version } if !understands(version) => {
                return Err(IntakeError::Version(version));
            }
            ToProxy::Hello { .. } => return self.introduce(channel).await,
            ToProxy::Register => self.register(descriptors)?,
            ToProxy::Endpoints => self.take_endpoints(descriptors)?,
            ToProxy::Serve(pod) => self.serve(pod, descriptors).await?,
            ToProxy::Sockets { pod, kind, error } => {
                if let Some(served) = self.pods.get(&pod) {
                    served.pod.sockets.add(kind, descriptors, error);
                }
            }
            ToProxy::Resolve { pod } => self.take_resolver(pod, descriptors),
            ToProxy::Recorded => self.complete(),
            ToProxy::Release { pod } => self.release(pod),
            ToProxy::Cut { pod } => self.cut(pod),
            ToProxy::Describe { request } => self.describe(request),
            ToProxy::Explain { request, pod, to } => self.explain(request, pod, to),
            ToProxy::PodLimitReached => {
                self.parts.node.metrics.limit("pods").inc();
            }
            ToProxy::Waiting { pods } => {
                self.parts.node.metrics.pods_waiting.set(pods.try_into().unwrap_or(i64::MAX));
            }
            ToProxy::Counted { pods, last } => {
                self.parts.node.metrics.pod_connections.take(pods, last);
            }
            ToProxy::Drain { grace_ms, succeeded } => {
                self.draining = true;
                let drain = Drain { grace: Duration::from_millis(grace_ms), succeeded };
                // Told before: that one counts.
                let _ = self.parts.drain.try_send(drain);
            }
            ToProxy::Unknown => tracing::warn!("ignored a message of a later release"),
        }
        Ok(())
    }

    /// Serves the pods that have waited.
    async fn begin(&mut self) -> Result<(), IntakeError> {
        let before = std::mem::replace(&mut self.progress, Progress::Serving);
        if self.draining {
            return Ok(());
        }
        for (pod, served) in &self.pods {
            if let Some(listeners) = &served.listeners {
                self.start(*pod, &served.pod, listeners).await?;
            }
        }
        self.begin_datagrams();
        if before == Progress::WaitingComplete {
            self.complete();
        }
        Ok(())
    }

    /// Every pod on record is here.
    fn complete(&mut self) {
        match self.progress {
            Progress::Waiting | Progress::WaitingComplete => {
                self.progress = Progress::WaitingComplete;
            }
            Progress::Serving => {
                self.parts.recorded.open();
                self.answer(ToCapture::Complete);
            }
        }
    }

    /// Says what this process has, also to a capture process that is started anew.
    async fn introduce(&mut self, channel: &Channel) -> Result<(), IntakeError> {
        let held = |served: &Served| served.listeners.is_some();
        let pods = self.pods.values().filter(|served| held(served)).count();
        let holding = pods + usize::from(self.endpoints.is_some());
        let draining = self.draining;
        channel.send(&ToCapture::Hello { version: VERSION, holding, draining }, &[]).await?;
        for (pod, served) in &self.pods {
            if let Some(listeners) = &served.listeners {
                channel.send(&ToCapture::Holding { pod: *pod }, &listeners.descriptors()).await?;
            }
        }
        if let Some(endpoints) = &self.endpoints {
            channel.send(&ToCapture::HoldingEndpoints, &endpoints.descriptors()).await?;
        }
        for served in self.pods.values() {
            served.pod.sockets.ask_again();
        }
        self.judge_datagrams_anew();
        Ok(())
    }

    fn register(&mut self, descriptors: Vec<OwnedFd>) -> Result<(), IntakeError> {
        let socket = descriptors.into_iter().next().ok_or(IntakeError::Sockets)?;
        let address = SocketAddrV4::new(Ipv4Addr::from(REGISTRATION_ADDRESS), 1);
        // The hook refuses the connection; what counts is what it wrote down.
        let _ = Socket::from(socket).connect(&address.into());
        self.answer(ToCapture::Registered);
        Ok(())
    }

    fn take_endpoints(&mut self, descriptors: Vec<OwnedFd>) -> Result<(), IntakeError> {
        let endpoints =
            EndpointListeners::from_descriptors(descriptors).ok_or(IntakeError::Sockets)?;
        if self.endpoints.is_none() {
            // The receiver serves them to the end of the process.
            let _ = self.parts.endpoints.try_send(endpoints.try_clone()?);
            self.endpoints = Some(endpoints);
        }
        Ok(())
    }

    async fn serve(&mut self, pod: ServedPod, sockets: Vec<OwnedFd>) -> Result<(), IntakeError> {
        let id = pod.pod;
        let Some(listeners) = PodListeners::from_descriptors(sockets) else {
            self.parts.node.metrics.limit("descriptors").inc();
            tracing::error!(pod = %pod.name, "no descriptors are left for the sockets of a pod");
            // Capture gives it again.
            self.answer(ToCapture::Idle { pod: id });
            return Ok(());
        };
        let name = pod.name.as_str().into();
        let identity = Identity {
            trust_domain: self.parts.trust_domain.clone(),
            namespace: pod.namespace,
            service_account: pod.service_account,
        };
        let pod = Arc::new(Pod {
            id: id.netns(),
            name,
            svid: self.parts.identities.acquire(&identity),
            identity,
            addresses: pod.addresses,
            sockets: ReadySockets::new(id, self.answers.clone()),
            told: Told::default(),
            connections: OpenConnections::new(),
            peers: Peers::new(),
        });
        if self.progress == Progress::Serving {
            self.start(id, &pod, &listeners).await?;
        }
        self.parts.node.metrics.pods.start();
        self.pods
            .insert(id, Served { pod, listeners: Some(listeners), resolver: None, refuses: None });
        self.judge_datagrams();
        Ok(())
    }

    /// Accepts the pod's connections.
    async fn start(
        &self,
        id: PodId,
        pod: &Arc<Pod>,
        listeners: &PodListeners,
    ) -> Result<(), IntakeError> {
        self.count_waiting(listeners, &pod.name);
        self.parts.workers.serve(pod, listeners.try_clone()?).await;
        self.answer(ToCapture::Serving { pod: id });
        Ok(())
    }

    /// Counts the connections that were made while no proxy ran.
    fn count_waiting(&self, listeners: &PodListeners, pod: &Arc<str>) {
        let counts = [
            waiting(&listeners.outbound),
            waiting(&listeners.inbound_hbone),
            waiting(&listeners.inbound_plaintext),
        ];
        let connections: u32 = counts.into_iter().filter_map(Result::ok).sum();
        if connections > 0 {
            self.parts.node.metrics.connections_waited.inc_by(u64::from(connections));
            tracing::info!(%pod, connections, "connections have waited for this proxy");
        }
    }

    fn release(&mut self, pod: PodId) {
        self.forget_idle();
        let Some(served) = self.pods.get_mut(&pod) else {
            self.answer(ToCapture::Silent { pod });
            return self.answer(ToCapture::Idle { pod });
        };
        if served.listeners.take().is_some() {
            self.parts.node.metrics.pods.stop();
        }
        served.resolver = None;
        self.parts.resolver.release(pod.netns());
        let (served, workers) = (served.pod.clone(), self.parts.workers.clone());
        let answers = self.answers.clone();
        tokio::spawn(async move {
            workers.release(pod.netns()).await;
            answer(&answers, ToCapture::Silent { pod });
            served.connections.wait_until_none().await;
            answer(&answers, ToCapture::Idle { pod });
        });
    }

    fn cut(&mut self, pod: PodId) {
        let served = self.pods.remove(&pod);
        if served.is_some_and(|served| served.listeners.is_some()) {
            self.parts.node.metrics.pods.stop();
        }
        self.parts.resolver.release(pod.netns());
        let (workers, answers) = (self.parts.workers.clone(), self.answers.clone());
        tokio::spawn(async move {
            workers.cut(pod.netns()).await;
            answer(&answers, ToCapture::Silent { pod });
            answer(&answers, ToCapture::Idle { pod });
        });
    }

    fn describe(&mut self, request: u64) {
        self.forget_idle();
        let reports: Vec<_> = self.pods.iter().map(|(pod, served)| served.report(*pod)).collect();
        let mut parts = reports.chunks(MAX_PODS_PER_MESSAGE).peekable();
        loop {
            let pods = parts.next().unwrap_or_default().to_vec();
            let last = parts.peek().is_none();
            self.answer(ToCapture::Pods { request, pods, last });
            if last {
                return;
            }
        }
    }

    fn explain(&self, request: u64, pod: PodId, to: SocketAddr) {
        let serves = |served: &&Served| served.listeners.is_some();
        let pods = || self.pods.values().filter(serves).map(|served| &served.pod);
        let is_neighbour = |address| pods().any(|pod| pod.owns(address));
        let known = self.pods.get(&pod).filter(serves);
        let decision = known.map(|served| {
            Box::new(explain::decide(&self.parts.node, &served.pod, to, is_neighbour))
        });
        self.answer(ToCapture::Explained { request, decision });
    }

    /// Forgets released pods without a connection.
    fn forget_idle(&mut self) {
        self.pods
            .retain(|_, served| served.listeners.is_some() || served.pod.connections.open() > 0);
    }

    fn answer(&self, message: ToCapture) {
        answer(&self.answers, message);
    }
}

/// Returns once it is.
async fn is_true(prepared: &mut watch::Receiver<bool>) {
    if prepared.wait_for(|prepared| *prepared).await.is_err() {
        // It is never going to be; this process is about to end.
        std::future::pending::<()>().await;
    }
}

/// Queues an answer.
fn answer(answers: &mpsc::Sender<ToCapture>, message: ToCapture) {
    if answers.try_send(message).is_err() {
        // Only a capture process that is gone for long reads nothing; its successor asks anew.
        tracing::warn!("an answer to capture is lost");
    }
}

// === impl Served ===

impl Served {
    fn report(&self, pod: PodId) -> PodReport {
        let problem = self.pod.svid.current().err().map(|error| {
            let mut text = error.to_string();
            text.truncate(text.floor_char_boundary(MAX_PROBLEM_BYTES));
            text
        });
        PodReport { pod, connections: self.pod.connections.open() as u64, problem }
    }
}

#[cfg(test)]
mod tests;
