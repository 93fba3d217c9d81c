//! What the agent and the operators tell each other of the pods.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::timeout;

use super::{Shared, internal};
use crate::{
    api::{ApiError, ApiErrorKind, Inventory, Note, Origin, PodKey, PodSpec, PodStatus},
    capture::{enrolment::Enrolment, records::Record, registry::Registry},
    cli::Enrol,
    explain::Explanation,
    link::message::{MAX_PROBLEM_BYTES, ToProxy, printable},
};

/// Time that the agent waits for a change before it is answered: shorter than that of a request,
/// and often enough for what changes without being counted.
const CHANGE_WAIT: Duration = Duration::from_secs(5);

/// Said of a registered pod before the agent has said anything.
const UNDECIDED: &str = "the control plane has not said yet whether it takes part";

// === impl Shared ===

impl Shared {
    /// Returns all pods, sorted: the enrolled ones, those on record that make no sense, and those
    /// that are not captured but known.
    pub(super) async fn list(&self) -> Vec<PodStatus> {
        let reports = self.proxies.describe().await;
        let mut listed: BTreeMap<PodKey, PodStatus> = BTreeMap::new();
        listed.extend(self.notes().values().map(|n| (n.key(), PodStatus::not_captured(n.clone()))));
        for spec in self.registry.iter().flat_map(Registry::all) {
            let status = listed.entry(spec.key()).or_insert_with(|| undecided(&spec));
            status.service_account = Some(spec.service_account);
            (status.uid, status.netns) = (spec.uid, spec.netns);
        }
        listed.extend(self.list_unreadable().into_iter().map(|status| (status.key(), status)));
        let pods = self.pods();
        listed.extend(pods.values().map(|e| (e.spec.key(), self.status(e, &reports))));
        listed.into_values().collect()
    }

    /// Returns what becomes of a connection of a pod.
    pub(super) async fn explain(
        &self,
        key: &PodKey,
        to: SocketAddr,
    ) -> Result<Explanation, ApiError> {
        let status = self.list().await.into_iter().find(|status| status.key() == *key);
        let Some(status) = status else {
            let message = format!("no pod {key} is known on this node");
            let remedy = "name one of `fairlead-node pod list`; ask the node that the pod runs on";
            return Err(ApiError::new(ApiErrorKind::NotFound, message, remedy));
        };
        let captured = self.pods().get(key).filter(|enrolled| !enrolled.is_draining()).cloned();
        let decision = match captured {
            Some(enrolled) => self.proxies.explain(enrolled.pod, to).await,
            None => None,
        };
        Ok(Explanation::of(status, to, decision.map(|decision| *decision)))
    }

    /// Returns what the agent needs to know; waits for a change if it knows this version.
    pub(super) async fn inventory(&self, known: Option<u64>) -> Inventory {
        let mut versions = self.version.subscribe();
        if known.is_some() {
            // The sender lives as long as `self`.
            let _ =
                timeout(CHANGE_WAIT, versions.wait_for(|version| Some(*version) != known)).await;
        }
        let version = *versions.borrow_and_update();
        let registered = self.registry.iter().flat_map(Registry::all).collect();
        Inventory { version, pods: self.list().await, registered }
    }

    /// Notes what the agent says of pods. It reads what comes from the network: what it says ends
    /// up in a log or on a terminal.
    pub(super) fn note(&self, notes: Vec<Note>) {
        let clean = |note: Note| Note { reason: printable(note.reason, MAX_PROBLEM_BYTES), ..note };
        *self.notes() = notes.into_iter().map(clean).map(|note| (note.key(), note)).collect();
        self.proxies.tell_active(&self.waiting());
    }

    /// Returns how many pods wait, for the metrics that proxies have.
    pub(super) fn waiting(&self) -> ToProxy {
        let pods = self.notes().values().filter(|note| note.waiting).count();
        ToProxy::Waiting { pods: pods as u64 }
    }

    /// Notes that pods or registry have changed.
    pub(super) fn changed(&self) {
        self.version.send_modify(|version| *version += 1);
    }

    /// Refuses what the agent cannot rightly want: it has no privilege, and gets none from here.
    pub(super) fn allow(&self, spec: &PodSpec) -> Result<(), ApiError> {
        let is_right = match (&self.registry, self.enrol) {
            (Some(registry), _) => registry.get(&spec.key()).as_ref() == Some(spec),
            (None, Enrol::Kubernetes) => spec.netns.is_none() && !spec.addresses.is_empty(),
            (None, Enrol::Manual | Enrol::ControlPlane) => false,
        };
        if is_right {
            return Ok(());
        }
        let message = format!("the agent may not enrol pod {} like this", spec.key());
        Err(ApiError::invalid(message, "see --enrol"))
    }

    /// Names a pod that is to be in the mesh when the control plane says so.
    pub(super) async fn register(self: &Arc<Self>, spec: PodSpec) -> Result<PodStatus, ApiError> {
        let key = spec.key();
        let Some(registry) = &self.registry else { return self.add(spec, Origin::Operator).await };
        if spec.netns.is_none() {
            let message = "a pod that is registered needs the path of its network namespace";
            return Err(ApiError::invalid(message, "give netns"));
        }
        {
            let _programs = self.programs.lock().await;
            let (_, found) = self.find(&spec).await?;
            match registry.get(&key) {
                Some(known) if known == spec => {}
                Some(_) => {
                    let message = format!("pod {key} is registered already, with other data");
                    let remedy = format!("`fairlead-node pod remove {key}` first");
                    return Err(ApiError::new(ApiErrorKind::Conflict, message, remedy));
                }
                None => registry.add(spec.clone(), found.netns).map_err(|e| internal(&e))?,
            }
        }
        self.changed();
        tracing::info!(pod = %key, "pod registered");
        let listed = self.list().await.into_iter().find(|status| status.key() == key);
        Ok(listed.unwrap_or_else(|| undecided(&spec)))
    }

    /// Returns whether the pod was registered.
    pub(super) fn deregister(&self, key: &PodKey) -> Result<bool, ApiError> {
        let Some(registry) = &self.registry else { return Ok(false) };
        let was_registered = registry.remove(key).map_err(|error| internal(&error))?;
        if was_registered {
            self.changed();
        }
        Ok(was_registered)
    }

    /// Forgets registered pods whose network namespace is gone.
    pub(super) fn deregister_vanished(&self) {
        for key in self.registry.iter().flat_map(Registry::vanished) {
            match self.deregister(&key) {
                Ok(_) => tracing::info!(pod = %key, "a registered pod is gone; forgotten"),
                Err(error) => tracing::warn!(pod = %key, %error, "cannot forget a registered pod"),
            }
        }
    }

    /// Makes up for a registration that was lost: nobody but an operator takes a pod back.
    pub(super) fn register_again(
        &self,
        record: &Record,
        enrolment: &Enrolment,
    ) -> Result<(), ApiError> {
        let Some(registry) = &self.registry else { return Ok(()) };
        let is_missing = || registry.get(&record.spec.key()).is_none();
        if record.origin == Origin::Agent && record.spec.netns.is_some() && is_missing() {
            let netns = enrolment.netns.clone();
            registry.add(record.spec.clone(), netns).map_err(|error| internal(&error))?;
        }
        Ok(())
    }

    /// Refuses to release what somebody else answers for.
    pub(super) fn may_remove(&self, key: &PodKey, origin: Origin) -> Result<(), ApiError> {
        let known = self.pods().get(key).map(|enrolled| enrolled.origin);
        let refused = |message: String, remedy: &str| {
            Err(ApiError::new(ApiErrorKind::Conflict, message, remedy))
        };
        match (origin, known, self.enrol) {
            (Origin::Operator, Some(Origin::Agent), Enrol::Kubernetes) => refused(
                format!("pod {key} is in the mesh by its labels, and would be enrolled again"),
                "label it istio.io/dataplane-mode=none",
            ),
            (Origin::Agent, Some(Origin::Operator), _) => {
                refused(format!("pod {key} was enrolled by an operator"), "leave it")
            }
            (Origin::Agent, None, _) if self.is_unreadable(key) => {
                refused(format!("the record of pod {key} cannot be read"), "leave it")
            }
            (Origin::Agent | Origin::Operator, _, _) => Ok(()),
        }
    }

    fn notes(&self) -> MutexGuard<'_, BTreeMap<PodKey, Note>> {
        // It is replaced as a whole.
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn undecided(spec: &PodSpec) -> PodStatus {
    let PodKey { namespace, name } = spec.key();
    let note = Note { namespace, name, waiting: false, reason: UNDECIDED.to_owned() };
    PodStatus::not_captured(note)
}
