//! How a pod enters and leaves the mesh.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use fairlead_ebpf::MAX_PODS;
use nix::time::{ClockId, clock_gettime};
use tokio::time::{interval, timeout};

use super::{Control, Enrolled, Shared, internal};
use crate::{
    api::{ApiError, ApiErrorKind, Origin, PodKey, PodSpec, PodStatus},
    capture::{
        enrolment::{EnrolError, Enrolment},
        programs::Programs,
        proxies::PodProgress,
        records::Record,
        vanish::INTERVAL,
    },
    link::message::{PodId, ToProxy},
};

/// Time for proxies to close the listeners of a pod.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(1);

/// Time for a proxy to serve a pod that it was given.
const SERVING_TIMEOUT: Duration = Duration::from_secs(1);

/// Time for a proxy to end after its drain period.
const PROXY_EXIT_TIME: Duration = Duration::from_secs(3);

/// A pod that is to be enrolled, and where.
pub(super) struct Who {
    pub(super) spec: PodSpec,
    pub(super) origin: Origin,
    pub(super) path: PathBuf,
    pub(super) pod: PodId,
}

/// What becomes of capture when the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtExit {
    /// Everything in the kernel is undone; pods go on without the mesh.
    Remove,
    /// Capture stays pinned; connections are refused until a successor runs.
    KeepPinned,
}

// === impl Control ===

impl Control {
    /// Releases pods whose namespace disappears. Never returns.
    pub async fn release_vanished(&self) {
        let mut tick = interval(INTERVAL);
        loop {
            tick.tick().await;
            self.0.deregister_vanished();
            if self.0.displaced().is_empty() {
                continue;
            }
            let mut programs = self.0.programs.lock().await;
            // Asked again: another change may have come first.
            for enrolled in self.0.vanished().await {
                self.0.forget(&mut programs, &enrolled).await;
            }
        }
    }

    /// Ends the service: connections that are open get the drain period to finish.
    pub async fn shut_down(&self, at_exit: AtExit) {
        let shared = &self.0;
        let mut programs = shared.programs.lock().await;
        let pods: Vec<_> = shared.pods().values().cloned().collect();
        if at_exit == AtExit::Remove {
            for enrolled in &pods {
                warn(programs.release(enrolled.pod.netns()), enrolled, "release");
            }
        }
        if at_exit == AtExit::KeepPinned {
            // Nobody is going to answer.
            shared.end_queries(&mut programs);
        }
        let grace = shared.drain_timeout;
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        shared.proxies.tell_active(&ToProxy::Drain { grace_ms, succeeded: false });
        if timeout(grace + PROXY_EXIT_TIME, shared.proxies.until_none()).await.is_err() {
            tracing::warn!("a proxy does not end");
        }
        if at_exit == AtExit::Remove {
            for enrolled in &pods {
                warn(enrolled.enrolment.restore().await, enrolled, "restore the routing of");
                warn(shared.records.remove(&enrolled.spec.key()), enrolled, "forget");
            }
            shared.drop_all_unreadable();
            if let Err(error) = programs.unload() {
                tracing::error!(%error, "cannot remove the BPF programs");
            }
        }
    }
}

// === impl Shared ===

impl Shared {
    pub(super) async fn add(
        self: &Arc<Self>,
        spec: PodSpec,
        origin: Origin,
    ) -> Result<PodStatus, ApiError> {
        let started = Instant::now();
        let mut programs = self.programs.lock().await;
        let (path, mut enrolment) = self.find(&spec).await?;
        for gone in self.vanished().await {
            self.forget(&mut programs, &gone).await;
        }
        if let Some(known) = self.find_known(&spec, &enrolment)? {
            return Ok(self.status(&known, &self.proxies.describe().await));
        }
        let key = spec.key();
        let netns = enrolment.netns.cookie();
        let draining = self.pods().values().find(|known| known.pod.netns() == netns).cloned();
        if let Some(draining) = draining {
            // Its values are those from before the first enrolment, under whatever name.
            enrolment.sysctls.clone_from(&draining.enrolment.sysctls);
        }
        let enrolment = Arc::new(enrolment);
        let pod = PodId { netns: netns.0, enrolment: nanoseconds_of_machine() };
        let who = Who { spec, origin, path, pod };
        match self.enrol(&mut programs, who, enrolment.clone(), started).await {
            Ok(enrolled) => {
                self.resolve_unreadable(&mut programs, &key);
                drop(programs);
                Ok(self.status_when_served(&enrolled).await)
            }
            // It may have been captured before, and stays so.
            Err(error) if self.is_unreadable(&key) => Err(error),
            Err(error) => {
                enrolment.undo(&mut programs).await;
                // What failed may have been the writing of the record.
                let _ = self.records.remove(&key);
                Err(error)
            }
        }
    }

    pub(super) async fn remove(
        self: &Arc<Self>,
        key: &PodKey,
        origin: Origin,
    ) -> Result<(), ApiError> {
        let mut programs = self.programs.lock().await;
        self.may_remove(key, origin)?;
        let was_registered = origin == Origin::Operator && self.deregister(key)?;
        let found = self.pods().get(key).filter(|enrolled| !enrolled.is_draining()).cloned();
        let Some(mut enrolled) = found else {
            if self.is_unreadable(key) {
                return self.drop_unreadable(&mut programs, key);
            }
            if was_registered {
                return Ok(());
            }
            return Err(ApiError::new(
                ApiErrorKind::NotFound,
                format!("pod {key} is not enrolled"),
                "`fairlead-node pod list` shows the enrolled pods",
            ));
        };
        programs.release(enrolled.pod.netns()).map_err(|e| internal(&e))?;
        enrolled.listeners = None;
        enrolled.resolver = None;
        self.set(enrolled.clone());
        self.let_go(&ToProxy::Release { pod: enrolled.pod }, enrolled.pod).await;
        self.records.save(&enrolled.record()).map_err(|e| internal(&e))?;
        tokio::spawn(self.clone().finish_release(enrolled));
        Ok(())
    }

    /// Captures a pod and gives it to the proxies, with the listening sockets of a predecessor if
    /// they are left. A failure leaves what was done so far.
    pub(super) async fn enrol(
        &self,
        programs: &mut Programs,
        Who { spec, origin, path, pod }: Who,
        enrolment: Arc<Enrolment>,
        started: Instant,
    ) -> Result<Enrolled, ApiError> {
        let left = self.left().remove(&pod);
        let enrolled = enrolment.enrol(programs, left, self.datagrams).await;
        let (listeners, resolver) = enrolled.map_err(|e| internal(&e))?;
        let addresses = enrolment.addresses.clone();
        let listeners = Some(Arc::new(listeners));
        let resolver = resolver.map(Arc::new);
        let took = started.elapsed();
        let enrolled =
            Enrolled { spec, origin, path, pod, addresses, enrolment, listeners, resolver, took };
        self.records.save(&enrolled.record()).map_err(|e| internal(&e))?;
        self.set(enrolled.clone());
        self.give_all(&enrolled);
        let key = enrolled.spec.key();
        tracing::info!(pod = %key, took_ms = took.as_secs_f64() * 1e3, "pod enrolled");
        Ok(enrolled)
    }

    /// Has the proxies let go of a pod; returns when its ports are free.
    async fn let_go(&self, message: &ToProxy, pod: PodId) {
        self.proxies.let_go(message, pod);
        let silent = self.proxies.until_all(|progress| progress.is_silent(pod));
        if timeout(SILENCE_TIMEOUT, silent).await.is_err() {
            tracing::warn!(netns = pod.netns, "a proxy is slow to close the listeners of a pod");
        }
    }

    /// Undoes the routing once the captured connections of a released pod have ended.
    pub(super) async fn finish_release(self: Arc<Self>, enrolled: Enrolled) {
        let (key, pod) = (enrolled.spec.key(), enrolled.pod);
        let _programs = loop {
            self.proxies.until_done_with(pod).await;
            let programs = self.programs.lock().await;
            // Asked again, while no proxy comes or goes: a proxy may have been linked anew.
            if self.proxies.are_done_with(pod) {
                break programs;
            }
        };
        if self.pods().get(&key).is_none_or(|known| known.pod != pod) {
            // Enrolled anew in the meantime: the routing belongs to its successor.
            return;
        }
        let same_netns = |known: &Enrolled| known.pod.netns() == pod.netns() && known.pod != pod;
        let renamed = self.pods().values().any(same_netns);
        if !renamed {
            warn(enrolled.enrolment.restore().await, &enrolled, "restore the routing of");
        }
        warn(self.records.remove(&key), &enrolled, "forget");
        self.unset(&key);
        tracing::info!(pod = %key, "pod released");
    }

    /// Drops a pod whose namespace is gone, with its connections.
    async fn forget(&self, programs: &mut Programs, enrolled: &Enrolled) {
        warn(programs.release(enrolled.pod.netns()), enrolled, "release");
        let key = enrolled.spec.key();
        self.unset(&key);
        self.let_go(&ToProxy::Cut { pod: enrolled.pod }, enrolled.pod).await;
        warn(self.records.remove(&key), enrolled, "forget");
        tracing::info!(pod = %key, "the pod's network namespace is gone; pod released");
    }

    /// Returns the status of a pod just enrolled, once a proxy serves it.
    async fn status_when_served(&self, enrolled: &Enrolled) -> PodStatus {
        let serving = Some(&PodProgress::Serving);
        let served = self.proxies.until_any(|p| p.pods.get(&enrolled.pod) == serving);
        // Without a proxy the pod is captured all the same, and its connections wait.
        let _ = timeout(SERVING_TIMEOUT, served).await;
        self.status(enrolled, &self.proxies.describe().await)
    }

    /// Returns a pod that is enrolled just like that; fails if it is in conflict with
    /// one that is.
    fn find_known(
        &self,
        spec: &PodSpec,
        enrolment: &Enrolment,
    ) -> Result<Option<Enrolled>, ApiError> {
        let pods = self.pods();
        let mut active = pods.values().filter(|enrolled| !enrolled.is_draining());
        if active.clone().count() >= MAX_PODS as usize {
            self.proxies.tell_active(&ToProxy::PodLimitReached);
            let message = format!("{MAX_PODS} pods are enrolled, which is the limit of a node");
            let remedy = "release pods that need no mesh";
            return Err(ApiError::new(ApiErrorKind::Internal, message, remedy));
        }
        let clash = active.find(|enrolled| {
            let same_netns = enrolled.pod.netns() == enrolment.netns.cookie();
            let same_address = enrolment.addresses.iter().any(|a| enrolled.addresses.contains(a));
            enrolled.spec.key() == spec.key() || same_netns || same_address
        });
        let Some(known) = clash else { return Ok(None) };
        let same_pod = known.spec.key() == spec.key()
            && known.spec.service_account == spec.service_account
            && (known.spec.uid == spec.uid || known.spec.uid.is_none() || spec.uid.is_none())
            && known.pod.netns() == enrolment.netns.cookie();
        if same_pod {
            return Ok(Some(known.clone()));
        }
        Err(ApiError::new(
            ApiErrorKind::Conflict,
            format!(
                "pod {} is enrolled with the same name, network namespace or address",
                known.spec.key()
            ),
            "release that pod first",
        ))
    }
}

// === impl Enrolled ===

impl Enrolled {
    fn record(&self) -> Record {
        Record {
            spec: self.spec.clone(),
            origin: self.origin,
            found_at: Some(self.path.clone()).filter(|_| self.spec.netns.is_none()),
            netns_cookie: self.pod.netns,
            enrolment: self.pod.enrolment,
            addresses: self.addresses.clone(),
            sysctls: self.enrolment.sysctls.clone(),
            draining: self.is_draining(),
        }
    }
}

/// Tells enrolments apart, also across restarts of this process.
fn nanoseconds_of_machine() -> u64 {
    // The clock exists on every Linux.
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

pub(super) fn rejected(error: &EnrolError) -> ApiError {
    ApiError::invalid(error.to_string(), "give the path of the pod's own network namespace")
}

fn warn<E: std::fmt::Display>(result: Result<(), E>, enrolled: &Enrolled, what: &str) {
    if let Err(error) = result {
        tracing::warn!(pod = %enrolled.spec.key(), %error, "cannot {what} the pod");
    }
}
