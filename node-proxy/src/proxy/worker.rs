//! Worker threads: each has its own single-threaded runtime, accepts for the pods whose home it is,
//! and shares nothing with the others but the mesh's state.

pub(super) mod accept;
pub(super) mod spread;
#[cfg(test)]
mod tests;

use std::{
    cell::RefCell,
    collections::HashMap,
    future::{Future, pending},
    io,
    net::IpAddr,
    rc::Rc,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use fairlead_ebpf::NetnsCookie;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::LocalSet,
    time::{interval, timeout},
};

use self::{accept::Handed, spread::Spread};
use super::{
    connections::{Connections, LiveConnection, idle},
    node::Node,
    pod::Pod,
    upstream::Tunnels,
};
use crate::{
    link::listeners::PodListeners,
    telemetry::{access_log::Sampling, metrics::WorkerMetrics, reason::CloseReason},
};

/// Commands that may wait for a worker. More would mean that it hangs.
const COMMAND_QUEUE: usize = 1024;

/// Time for connections to tell their ends when the process stops, and for accept loops to end.
const STOP_TIME: Duration = Duration::from_secs(1);

/// Pause between looks for idle tunnels.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);

/// What a worker is told.
#[derive(Debug)]
enum Command {
    Serve(Arc<Pod>, Option<PodListeners>, watch::Receiver<()>),
    Take(Handed),
    Release(NetnsCookie),
    Cut(NetnsCookie),
    Drain,
    /// List at most so many connections.
    List(usize, oneshot::Sender<Vec<LiveConnection>>),
    Stop,
}

/// All worker threads.
#[derive(Debug)]
pub struct Workers {
    commands: Vec<mpsc::Sender<Command>>,
    served: Mutex<HashMap<NetnsCookie, Served>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// A pod that is served.
#[derive(Debug)]
struct Served {
    /// Index of the thread that accepts for it.
    home: usize,
    /// Tells when no thread listens for it any more.
    listening: watch::Sender<()>,
}

/// What the tasks of one thread share.
pub(super) struct Worker {
    pub(super) node: Arc<Node>,
    pub(super) metrics: WorkerMetrics,
    pub(super) connections: Rc<Connections>,
    pub(super) tunnels: Tunnels,
    pub(super) spread: Spread,
    pub(super) sampling: Sampling,
    pods: RefCell<HashMap<NetnsCookie, ServedPod>>,
    by_address: RefCell<HashMap<IpAddr, Arc<Pod>>>,
}

/// How the tunnels to a pod end when it leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Their streams finish.
    Drain,
    /// At once: the pod's network is gone, and with it the answers that a good end waits for.
    Cut,
}

/// A pod and what ends its accepting.
struct ServedPod {
    pod: Arc<Pod>,
    /// Dropped to stop accepting and to send GOAWAY on the pod's tunnels.
    draining: watch::Sender<Ending>,
}

// === impl Workers ===

impl Workers {
    /// Starts `count` threads.
    pub fn start(node: &Arc<Node>, count: usize) -> io::Result<Self> {
        let channels = (0..count).map(|_| mpsc::channel(COMMAND_QUEUE));
        let (commands, receivers): (Vec<_>, Vec<_>) = channels.unzip();
        let mut threads = Vec::new();
        let views = Spread::of(&commands).into_iter();
        for (index, (receive, spread)) in receivers.into_iter().zip(views).enumerate() {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let (node, name) = (node.clone(), format!("proxy-{index}"));
            node.metrics.runtimes.add(name.as_str(), runtime.metrics());
            let thread = std::thread::Builder::new().name(name);
            threads.push(thread.spawn(move || {
                LocalSet::new().block_on(&runtime, run(node, spread, receive));
            })?);
        }
        Ok(Self { commands, served: Mutex::default(), threads: Mutex::new(threads) })
    }

    /// Accepts connections of `pod` on the thread that does so for the fewest pods.
    pub async fn serve(&self, pod: &Arc<Pod>, listeners: PodListeners) {
        let (sender, listening) = watch::channel(());
        let home = self.find_home(pod.id, sender);
        let mut listeners = Some(listeners);
        for (index, commands) in self.commands.iter().enumerate() {
            let accepts = if index == home { listeners.take() } else { None };
            tell(commands, Command::Serve(pod.clone(), accepts, listening.clone())).await;
        }
    }

    /// Accepts no more connections of the pod; open ones go on. On return its ports are free.
    pub async fn release(&self, pod: NetnsCookie) {
        self.tell_all(|| Command::Release(pod)).await;
        self.until_silent(pod).await;
    }

    /// Accepts no more connections of the pod and ends those that are open.
    pub async fn cut(&self, pod: NetnsCookie) {
        self.tell_all(|| Command::Cut(pod)).await;
        self.until_silent(pod).await;
        // Those that one thread gave to another one which had been told before.
        self.tell_all(|| Command::Cut(pod)).await;
    }

    /// Accepts no more connections; asks peers to open no more streams; open ones go on. On return
    /// every connection that was accepted counts as open.
    pub async fn drain(&self) {
        self.tell_all(|| Command::Drain).await;
        let listening: Vec<_> = self.served().values().map(|pod| pod.listening.clone()).collect();
        let silent = async {
            for pod in listening {
                pod.closed().await;
            }
        };
        if timeout(STOP_TIME, silent).await.is_err() {
            tracing::warn!("a thread is slow to close the listeners of its pods");
        }
    }

    /// Lists live connections, at most `limit` of each thread.
    pub async fn list(&self, limit: usize) -> Vec<LiveConnection> {
        let mut connections = Vec::new();
        for commands in &self.commands {
            let (answer, answered) = oneshot::channel();
            tell(commands, Command::List(limit, answer)).await;
            // A thread that has ended has none.
            connections.extend(answered.await.unwrap_or_default());
        }
        connections
    }

    /// Ends every connection and every thread.
    pub async fn stop(&self) {
        self.tell_all(|| Command::Stop).await;
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // A thread that panicked has said so; there is nothing to add.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }

    /// Returns once no thread listens for the pod.
    async fn until_silent(&self, pod: NetnsCookie) {
        let served = self.served().remove(&pod);
        if let Some(Served { listening, .. }) = served
            && timeout(STOP_TIME, listening.closed()).await.is_err()
        {
            tracing::warn!(netns = pod.0, "a thread is slow to close the listeners of a pod");
        }
    }

    fn find_home(&self, pod: NetnsCookie, listening: watch::Sender<()>) -> usize {
        let mut served = self.served();
        let pods = |index: &usize| served.values().filter(|pod| pod.home == *index).count();
        let home = (0..self.commands.len()).min_by_key(pods).unwrap_or_default();
        served.insert(pod, Served { home, listening });
        home
    }

    fn served(&self) -> MutexGuard<'_, HashMap<NetnsCookie, Served>> {
        // Every change of the map is a single insert or remove: it is whole even after a panic.
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn tell_all(&self, command: impl Fn() -> Command) {
        for commands in &self.commands {
            tell(commands, command()).await;
        }
    }
}

async fn tell(commands: &mpsc::Sender<Command>, command: Command) {
    if commands.send(command).await.is_err() {
        tracing::error!("a worker thread has ended before its time");
    }
}

async fn run(node: Arc<Node>, spread: Spread, mut commands: mpsc::Receiver<Command>) {
    let mut changes = node.changes();
    let mut sweep = interval(SWEEP_INTERVAL);
    let idle = node.options.idle_timeout;
    let mut looks = interval(idle.map_or(SWEEP_INTERVAL, idle::pause));
    let worker = Rc::new(Worker::new(node, spread));
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                Some(Command::Stop) | None => break,
                Some(command) => worker.obey(command),
            },
            Ok(()) = changes.changed() => worker.connections.judge(&worker.node.state()),
            _ = sweep.tick() => worker.tunnels.sweep(),
            _ = looks.tick() => if let Some(limit) = idle {
                worker.connections.end_idle(Instant::now(), limit);
            },
        }
    }
    worker.obey(Command::Stop);
    // A task that does not end now is dropped with the thread.
    let _ = timeout(STOP_TIME, worker.connections.wait_until_none()).await;
}

// === impl Worker ===

impl Worker {
    fn new(node: Arc<Node>, spread: Spread) -> Self {
        Self {
            spread,
            metrics: node.metrics.worker(),
            sampling: Sampling::new(node.options.access_log_sample),
            connections: Connections::new(node.clone()),
            tunnels: Tunnels::new(),
            pods: RefCell::default(),
            by_address: RefCell::default(),
            node,
        }
    }

    /// Returns the enrolled pod of this node with this address.
    pub(super) fn local_pod(&self, address: IpAddr) -> Option<Arc<Pod>> {
        self.by_address.borrow().get(&address).cloned()
    }

    fn obey(self: &Rc<Self>, command: Command) {
        match command {
            Command::Serve(pod, listeners, listening) => self.serve(&pod, listeners, &listening),
            Command::Take(handed) => {
                if let Err(error) = handed.begin(self) {
                    tracing::warn!(%error, "cannot serve a connection that another thread accepted");
                }
            }
            Command::Release(pod) => self.release(pod),
            Command::Cut(pod) => {
                if let Some(served) = self.pods.borrow().get(&pod) {
                    served.draining.send_replace(Ending::Cut);
                }
                self.release(pod);
                self.connections.close_pod(pod, &CloseReason::PodReleased);
            }
            Command::Drain => self.drain(),
            Command::List(limit, answer) => {
                // Who asked may be gone.
                let _ = answer.send(self.connections.list(limit));
            }
            Command::Stop => self.connections.close_all(&CloseReason::Drained),
        }
    }

    fn serve(
        self: &Rc<Self>,
        pod: &Arc<Pod>,
        listeners: Option<PodListeners>,
        listening: &watch::Receiver<()>,
    ) {
        let draining = watch::Sender::new(Ending::Drain);
        if let Some(listeners) = listeners
            && let Err(error) = accept::start(self, pod, listeners, &draining, listening)
        {
            tracing::error!(pod = %pod.name, %error, "cannot accept connections of the pod");
        }
        let mut by_address = self.by_address.borrow_mut();
        for address in &pod.addresses {
            by_address.insert(*address, pod.clone());
        }
        let served = ServedPod { pod: pod.clone(), draining };
        self.pods.borrow_mut().insert(pod.id, served);
    }

    fn release(&self, pod: NetnsCookie) {
        let Some(served) = self.pods.borrow_mut().remove(&pod) else { return };
        let mut by_address = self.by_address.borrow_mut();
        for address in &served.pod.addresses {
            if by_address.get(address).is_some_and(|owner| owner.id == pod) {
                by_address.remove(address);
            }
        }
        self.tunnels.forget(|peer| peer.pod == pod);
    }

    fn drain(&self) {
        self.pods.borrow_mut().clear();
        self.by_address.borrow_mut().clear();
        self.tunnels.forget(|_| true);
    }
}

/// Completes when the sender is dropped.
pub(super) async fn dropped(mut signal: watch::Receiver<Ending>) {
    while signal.changed().await.is_ok() {}
}

/// Completes when the pod's tunnels must end without a word.
pub(super) async fn cut(mut signal: watch::Receiver<Ending>) {
    if signal.wait_for(|ending| *ending == Ending::Cut).await.is_err() {
        // It drains instead.
        pending::<()>().await;
    }
}

/// Runs `task` on this thread.
pub(super) fn spawn(task: impl Future<Output = ()> + 'static) {
    tokio::task::spawn_local(task);
}
