//! How a pod enters and leaves the mesh.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use fairlead_ebpf::MAX_PODS;
use mesh_api::identity::Identity;
use tokio::time::{interval, timeout};

use super::{Control, Enrolled, Shared, internal};
use crate::{
    api::{ApiError, ApiErrorKind, PodKey, PodSpec, PodStatus},
    capture::{
        enrolment::{EnrolError, Enrolment},
        programs::Programs,
        records::Record,
        vanish,
    },
    proxy::pod::{Pod, PodConnections, PodSockets},
};

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
        let mut tick = interval(vanish::INTERVAL);
        loop {
            tick.tick().await;
            if self.0.vanished().is_empty() {
                continue;
            }
            let mut programs = self.0.programs.lock().await;
            // Asked again: another change may have come first.
            for enrolled in self.0.vanished() {
                self.0.forget(&mut programs, &enrolled).await;
            }
        }
    }

    /// Ends the service: connections that are open get `grace` to finish.
    pub async fn shut_down(self, at_exit: AtExit, grace: Duration) {
        let shared = &self.0;
        let mut programs = shared.programs.lock().await;
        let pods: Vec<_> = shared.pods().values().cloned().collect();
        if at_exit == AtExit::Remove {
            for enrolled in &pods {
                warn(programs.release(enrolled.pod.id), enrolled, "release");
            }
        }
        shared.workers.drain().await;
        let drained = async {
            for enrolled in &pods {
                enrolled.pod.connections.wait_until_none().await;
            }
        };
        if timeout(grace, drained).await.is_err() {
            let open = shared.node.open_connections();
            tracing::warn!(open, "the drain period is over; ending the connections still open");
        }
        shared.workers.stop().await;
        if at_exit == AtExit::Remove {
            for enrolled in &pods {
                warn(enrolled.enrolment.restore().await, enrolled, "restore the routing of");
                warn(shared.records.remove(&enrolled.spec.key()), enrolled, "forget");
            }
            if let Err(error) = programs.unload() {
                tracing::error!(%error, "cannot remove the BPF programs");
            }
        }
    }
}

// === impl Shared ===

impl Shared {
    pub(super) async fn add(self: &Arc<Self>, spec: PodSpec) -> Result<PodStatus, ApiError> {
        let started = Instant::now();
        let mut programs = self.programs.lock().await;
        let mut enrolment = Enrolment::inspect(&spec.netns).await.map_err(|e| rejected(&e))?;
        for gone in self.vanished() {
            self.forget(&mut programs, &gone).await;
        }
        if let Some(known) = self.find_known(&spec, &enrolment)? {
            return Ok(known);
        }
        let key = spec.key();
        let draining = self.pods().get(&key).cloned();
        if let Some(draining) = draining.filter(|d| d.pod.id == enrolment.netns.cookie()) {
            // Its values are those from before the first enrolment.
            enrolment.sysctls.clone_from(&draining.enrolment.sysctls);
        }
        let enrolment = Arc::new(enrolment);
        match self.enrol(&mut programs, spec, enrolment.clone(), started).await {
            Ok(enrolled) => Ok(enrolled.status()),
            Err(error) => {
                enrolment.undo(&mut programs).await;
                // What failed may have been the writing of the record.
                let _ = self.records.remove(&key);
                Err(error)
            }
        }
    }

    pub(super) async fn remove(self: &Arc<Self>, key: &PodKey) -> Result<(), ApiError> {
        let mut programs = self.programs.lock().await;
        let found = self.pods().get(key).filter(|enrolled| !enrolled.draining).cloned();
        let Some(mut enrolled) = found else {
            return Err(ApiError::new(
                ApiErrorKind::NotFound,
                format!("pod {key} is not enrolled"),
                "`fairlead-node pod list` shows the enrolled pods",
            ));
        };
        programs.release(enrolled.pod.id).map_err(|e| internal(&e))?;
        self.workers.release(enrolled.pod.id).await;
        enrolled.draining = true;
        self.records.save(&enrolled.record()).map_err(|e| internal(&e))?;
        self.node.metrics.pods_enrolled.dec();
        self.pods().insert(key.clone(), enrolled.clone());
        tokio::spawn(self.clone().finish_release(enrolled));
        Ok(())
    }

    /// Captures a pod and hands it to the proxy. A failure leaves what was done so far.
    pub(super) async fn enrol(
        &self,
        programs: &mut Programs,
        spec: PodSpec,
        enrolment: Arc<Enrolment>,
        started: Instant,
    ) -> Result<Enrolled, ApiError> {
        let identity = Identity {
            trust_domain: self.trust_domain.clone(),
            namespace: spec.namespace.clone(),
            service_account: spec.service_account.clone(),
        };
        let listeners = enrolment.enrol(programs).await.map_err(|e| internal(&e))?;
        let pod = Arc::new(Pod {
            id: enrolment.netns.cookie(),
            name: spec.name.as_str().into(),
            svid: self.identities.acquire(&identity),
            identity,
            addresses: enrolment.addresses.clone(),
            sockets: PodSockets::new(enrolment.netns.clone()),
            connections: PodConnections::new(),
        });
        let took = started.elapsed();
        let enrolled = Enrolled { spec, pod, enrolment, took, draining: false };
        self.records.save(&enrolled.record()).map_err(|e| internal(&e))?;
        self.workers.serve(&enrolled.pod, listeners).await;
        self.pods().insert(enrolled.spec.key(), enrolled.clone());
        self.node.metrics.pods_enrolled.inc();
        let key = enrolled.spec.key();
        tracing::info!(pod = %key, took_ms = took.as_secs_f64() * 1e3, "pod enrolled");
        Ok(enrolled)
    }

    /// Undoes the routing once the captured connections of a released pod have ended.
    async fn finish_release(self: Arc<Self>, enrolled: Enrolled) {
        enrolled.pod.connections.wait_until_none().await;
        let _programs = self.programs.lock().await;
        let key = enrolled.spec.key();
        let current = self.pods().get(&key).is_some_and(|c| Arc::ptr_eq(&c.pod, &enrolled.pod));
        // Enrolled anew in the meantime: the routing belongs to its successor.
        if !current {
            return;
        }
        warn(enrolled.enrolment.restore().await, &enrolled, "restore the routing of");
        warn(self.records.remove(&key), &enrolled, "forget");
        self.pods().remove(&key);
        tracing::info!(pod = %key, "pod released");
    }

    /// Drops a pod whose namespace is gone, with its connections.
    async fn forget(&self, programs: &mut Programs, enrolled: &Enrolled) {
        warn(programs.release(enrolled.pod.id), enrolled, "release");
        self.workers.cut(enrolled.pod.id).await;
        let key = enrolled.spec.key();
        warn(self.records.remove(&key), enrolled, "forget");
        if self.pods().remove(&key).is_some_and(|known| !known.draining) {
            self.node.metrics.pods_enrolled.dec();
        }
        tracing::info!(pod = %key, "the pod's network namespace is gone; pod released");
    }

    fn vanished(&self) -> Vec<Enrolled> {
        let pods = self.pods();
        let gone = |e: &&Enrolled| vanish::is_gone(&e.spec.netns, &e.enrolment.netns);
        pods.values().filter(gone).cloned().collect()
    }

    /// Returns the status of a pod that is enrolled just like that; fails if it is in conflict with
    /// one that is.
    fn find_known(
        &self,
        spec: &PodSpec,
        enrolment: &Enrolment,
    ) -> Result<Option<PodStatus>, ApiError> {
        let pods = self.pods();
        let mut active = pods.values().filter(|enrolled| !enrolled.draining);
        if active.clone().count() >= MAX_PODS as usize {
            self.node.metrics.limit("pods").inc();
            let message = format!("{MAX_PODS} pods are enrolled, which is the limit of a node");
            let remedy = "release pods that need no mesh";
            return Err(ApiError::new(ApiErrorKind::Internal, message, remedy));
        }
        let clash = active.find(|enrolled| {
            let same_netns = enrolled.pod.id == enrolment.netns.cookie();
            let same_address = enrolment.addresses.iter().any(|a| enrolled.pod.owns(*a));
            enrolled.spec.key() == spec.key() || same_netns || same_address
        });
        let Some(known) = clash else { return Ok(None) };
        let same_pod = known.spec.key() == spec.key()
            && known.spec.service_account == spec.service_account
            && known.pod.id == enrolment.netns.cookie();
        if same_pod {
            return Ok(Some(known.status()));
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
            netns_cookie: self.pod.id.0,
            addresses: self.pod.addresses.clone(),
            sysctls: self.enrolment.sysctls.clone(),
            draining: self.draining,
        }
    }
}

fn rejected(error: &EnrolError) -> ApiError {
    ApiError::invalid(error.to_string(), "give the path of the pod's own network namespace")
}

fn warn<E: std::fmt::Display>(result: Result<(), E>, enrolled: &Enrolled, what: &str) {
    if let Err(error) = result {
        tracing::warn!(pod = %enrolled.spec.key(), %error, "cannot {what} the pod");
    }
}
