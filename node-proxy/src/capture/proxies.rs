//! The proxies that capture serves: one, or two while one takes over from the other.

mod greeting;
mod link;
mod progress;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use fairlead_ebpf::ProxyProcess;
use tokio::{
    sync::{Mutex as AsyncMutex, watch},
    time::timeout,
};

pub use self::greeting::{Arrival, Arrivals, Greeted, GreetingError, ProxyNumber, greet};
use self::link::Queue;
pub(super) use self::{
    link::{Ended, Link, Unreachable, carry},
    progress::{Answers, Explaining, PodProgress, Progress, Reports},
};
use crate::{
    explain::Decision,
    link::message::{PodId, PodReport, ToCapture, ToProxy},
};

/// Time that a description of the pods may take.
const DESCRIBE_TIMEOUT: Duration = Duration::from_millis(500);

/// Time that an explanation may take: a proxy that is busy is to be explained, too.
const EXPLAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// The proxies of this node.
#[derive(Debug)]
pub(super) struct Proxies {
    /// The oldest first.
    links: Mutex<Vec<Arc<Link>>>,
    /// Questions that were asked.
    requests: AtomicU64,
    changed: Arc<watch::Sender<()>>,
    /// One explanation at a time.
    explaining: AsyncMutex<()>,
}

// === impl Proxies ===

impl Proxies {
    pub(super) fn new() -> Self {
        Self {
            links: Mutex::default(),
            requests: AtomicU64::new(1),
            changed: Arc::new(watch::Sender::new(())),
            explaining: AsyncMutex::default(),
        }
    }

    /// Adds a proxy that holds some pods already; returns what it is to be sent, too.
    pub(super) fn add(&self, number: ProxyNumber, progress: Progress) -> (Arc<Link>, Queue) {
        let (link, queue) = Link::new(number, progress, self.changed.clone());
        let link = Arc::new(link);
        {
            let mut links = self.lock();
            let place = links.partition_point(|other| other.number < number);
            links.insert(place, link.clone());
        }
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

    /// Returns the processes of all proxies; none while that of one is not known.
    pub(super) fn processes(&self) -> Vec<ProxyProcess> {
        let processes: Option<_> = self.all().iter().map(|link| link.progress().process).collect();
        processes.unwrap_or_default()
    }

    /// Returns the process of the proxy that accepts connections. Of two the later one: it takes
    /// over.
    pub(super) fn accepting(&self) -> Option<ProxyProcess> {
        self.all().iter().rev().find_map(|link| {
            let progress = link.progress();
            progress.process.filter(|_| !progress.draining)
        })
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

    /// Returns once [`Self::are_done_with`] holds.
    pub(super) async fn until_done_with(&self, pod: PodId) {
        self.until(|links| done_with(links, pod)).await;
    }

    /// Returns whether the proxies have no connection of a released pod, as far as they have been
    /// told of it. Without a proxy nobody knows: one that is about to be linked may have some.
    pub(super) fn are_done_with(&self, pod: PodId) -> bool {
        done_with(&self.all(), pod)
    }

    /// Returns once there is no proxy.
    pub(super) async fn until_none(&self) {
        self.until(<[_]>::is_empty).await;
    }

    /// Returns a receiver that wakes when something changes.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Returns when something has changed.
    pub(super) async fn changed(&self) {
        // The sender lives as long as `self`.
        let _ = self.changed.subscribe().changed().await;
    }

    /// Returns what the proxies say of the pods: of a pod that several have, the sum of its
    /// connections, and what the latest says of its certificate.
    pub(super) async fn describe(&self) -> Reports {
        let request = self.requests.fetch_add(1, Ordering::Relaxed);
        let links = self.all();
        for link in &links {
            link.progress().ask(request);
            link.tell_or_warn(ToProxy::Describe { request });
        }
        let answered =
            self.until_all(|progress| progress.request >= request || progress.process.is_none());
        // A proxy that is just starting says nothing yet.
        let _ = timeout(DESCRIBE_TIMEOUT, answered).await;
        let mut reports = Reports::new();
        for link in &links {
            for (pod, report) in &link.progress().reports {
                let so_far = reports.get(pod).map_or(0, |known| known.connections);
                let connections = so_far.saturating_add(report.connections);
                reports.insert(*pod, PodReport { connections, ..report.clone() });
            }
        }
        reports
    }

    /// Returns what becomes of a connection of `pod`, as the proxy says that accepts for it.
    pub(super) async fn explain(&self, pod: PodId, to: SocketAddr) -> Option<Box<Decision>> {
        let _turn = self.explaining.lock().await;
        let request = self.requests.fetch_add(1, Ordering::Relaxed);
        // Of two the later one: it takes over.
        let serves = |link: &&Arc<Link>| {
            let progress = link.progress();
            !progress.draining && progress.pods.contains_key(&pod)
        };
        let link = self.all().into_iter().rev().find(|link| serves(&link))?;
        link.progress().ask_why(request);
        link.tell_or_warn(ToProxy::Explain { request, pod, to });
        let answered = link.until(|progress| matches!(progress.explaining, Explaining::Told(_)));
        // One that is gone or hangs says nothing.
        let _ = timeout(EXPLAIN_TIMEOUT, answered).await;
        match std::mem::take(&mut link.progress().explaining) {
            Explaining::Told(decision) => decision,
            Explaining::Nothing | Explaining::Asked(_) => None,
        }
    }

    async fn until(&self, holds: impl Fn(&[Arc<Link>]) -> bool) {
        let mut changes = self.changed.subscribe();
        while !holds(&self.all()) {
            // The sender lives as long as `self`.
            let _ = changes.changed().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Link>>> {
        // Every change of the list is a single insert or removal: it is whole even after a panic.
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn done_with(links: &[Arc<Link>], pod: PodId) -> bool {
    let done = |progress: &Progress| progress.process.is_some() && progress.is_idle(pod);
    !links.is_empty() && links.iter().all(|link| done(&link.progress()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{explain::Outcome, link::message::MAX_PROBLEM_BYTES};

    const POD: PodId = PodId { netns: 1, enrolment: 1 };

    #[tokio::test]
    async fn what_a_proxy_says_of_its_pods_does_no_harm() {
        let proxies = Proxies::new();
        let links = [1, 2].map(|number| {
            proxies.add(ProxyNumber(number), Progress::holding([POD].into_iter(), false))
        });
        let process = ProxyProcess { cgroup: 1, tgid: 1, reserved: 0 };
        for (link, _queue) in &links {
            link.progress().process = Some(process);
        }
        let problem = Some(format!("\u{1b}[2Jwrong\n{}", "\u{e4}".repeat(MAX_PROBLEM_BYTES)));
        let pods = vec![PodReport { pod: POD, connections: u64::MAX, problem }];
        let answer = async {
            let request = 1;
            for (link, _queue) in &links {
                let pods = pods.clone();
                proxies.heard(link, ToCapture::Pods { request, pods, last: true });
            }
        };
        let (reports, ()) = tokio::join!(proxies.describe(), answer);
        let report = &reports[&POD];
        assert_eq!(report.connections, u64::MAX);
        let problem = report.problem.as_deref().unwrap();
        assert!(problem.starts_with("[2Jwrong\u{e4}") && problem.len() <= MAX_PROBLEM_BYTES);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_explained_by_the_proxy_that_would_take_it() {
        let outcome = Outcome { passes: true, reason: None, policy: None, because: String::new() };
        let decision = |identity: &str| {
            Some(Box::new(Decision {
                identity: identity.to_owned(),
                destination: None,
                waypoint: None,
                endpoints: None,
                attempts: Vec::new(),
                result: outcome.clone(),
            }))
        };
        let proxies = Proxies::new();
        let to = "10.0.0.1:80".parse().unwrap();
        assert_eq!(proxies.explain(POD, to).await, None, "there is no proxy");
        let add = |number, draining| {
            let progress = Progress::holding([POD].into_iter(), draining);
            proxies.add(ProxyNumber(number), progress)
        };
        let ((active, _queue), (draining, _other)) = (add(1, false), add(2, true));
        assert_eq!(proxies.explain(POD, to).await, None, "it does not answer");
        assert_eq!(proxies.explain(PodId { netns: 2, enrolment: 1 }, to).await, None);
        let request = proxies.requests.load(Ordering::Relaxed);
        let answers = async {
            let told =
                |request, identity| ToCapture::Explained { request, decision: decision(identity) };
            proxies.heard(&draining, told(request, "of another proxy"));
            proxies.heard(&active, told(request - 1, "late"));
            proxies.heard(&active, told(request, "right"));
            proxies.heard(&active, told(request, "again"));
        };
        let (explained, ()) = tokio::join!(proxies.explain(POD, to), answers);
        assert_eq!(explained, decision("right"));
        assert!(matches!(active.progress().explaining, Explaining::Nothing));
    }

    #[test]
    fn connections_of_a_released_pod_may_be_open_while_a_proxy_has_not_said_otherwise() {
        let proxies = Proxies::new();
        assert!(!proxies.are_done_with(POD), "one may be about to be linked");
        let (link, _queue) = proxies.add(ProxyNumber(1), Progress::default());
        assert!(!proxies.are_done_with(POD), "it has not been told yet");
        let process = ProxyProcess { cgroup: 1, tgid: 1, reserved: 0 };
        link.progress().process = Some(process);
        link.progress().pods.insert(POD, PodProgress::Releasing);
        assert!(!proxies.are_done_with(POD));
        link.progress().pods.insert(POD, PodProgress::Silent);
        assert!(!proxies.are_done_with(POD));
        proxies.heard(&link, ToCapture::Idle { pod: POD });
        assert!(proxies.are_done_with(POD));
    }

    #[test]
    fn the_oldest_proxy_is_the_first_however_late_its_first_words_are() {
        let proxies = Proxies::new();
        for number in [2, 3, 1] {
            proxies.add(ProxyNumber(number), Progress::default());
        }
        let numbers: Vec<_> = proxies.all().iter().map(|link| link.number.0).collect();
        assert_eq!(numbers, [1, 2, 3]);
    }

    #[test]
    fn processes_are_told_apart_only_when_all_are_known() {
        let proxies = Proxies::new();
        let process = |tgid| ProxyProcess { cgroup: 1, tgid, reserved: 0 };
        assert_eq!(proxies.processes(), []);
        let (first, _queue) = proxies.add(ProxyNumber(1), Progress::default());
        let (second, _queue) = proxies.add(ProxyNumber(2), Progress::default());
        first.progress().process = Some(process(1));
        assert_eq!(proxies.processes(), [], "one is not registered yet");
        second.progress().process = Some(process(2));
        assert_eq!(proxies.processes(), [process(1), process(2)]);
    }
}
