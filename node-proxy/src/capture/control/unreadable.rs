//! Pods whose enrolment record makes no sense. Nobody knows which of the captured pods they are, so
//! all of those stay captured, until a person or the container runtime says what is to become of the
//! pod.

use std::{
    collections::BTreeMap,
    sync::{MutexGuard, PoisonError},
};

use super::{Shared, internal};
use crate::{
    api::{ApiError, Origin, PodKey, PodState, PodStatus},
    capture::{programs::Programs, records::Unreadable},
};

// === impl Shared ===

impl Shared {
    /// Notes the records that make no sense.
    pub(super) fn note_unreadable(&self, found: Vec<Unreadable>) {
        let mut unreadable = self.unreadable();
        for record in found {
            let known = unreadable.insert(record.key.clone(), record.clone());
            if known.is_none() {
                tracing::error!(pod = %record.key, "{}", record.problem());
            }
        }
    }

    pub(super) fn is_unreadable(&self, key: &PodKey) -> bool {
        self.unreadable().contains_key(key)
    }

    /// Notes that the record of a pod is whole again or gone. After the last one it is known which
    /// captured pods are strays.
    pub(super) fn resolve_unreadable(&self, programs: &mut Programs, key: &PodKey) {
        if self.unreadable().remove(key).is_none() {
            return;
        }
        tracing::info!(pod = %key, "an unreadable enrolment record is replaced or removed");
        if let Err(error) = self.remove_strays(programs) {
            tracing::warn!(%error, "pods on no record are still captured");
        }
    }

    /// Drops the record of a pod that is to leave the mesh.
    pub(super) fn drop_unreadable(
        &self,
        programs: &mut Programs,
        key: &PodKey,
    ) -> Result<(), ApiError> {
        self.records.remove(key).map_err(|error| internal(&error))?;
        self.resolve_unreadable(programs, key);
        Ok(())
    }

    /// Returns what is known of the pods.
    pub(super) fn list_unreadable(&self) -> Vec<PodStatus> {
        self.unreadable().values().map(status).collect()
    }

    /// Removes the records: nothing is captured any more.
    pub(super) fn drop_all_unreadable(&self) {
        for key in std::mem::take(&mut *self.unreadable()).into_keys() {
            if let Err(error) = self.records.remove(&key) {
                tracing::warn!(pod = %key, %error, "cannot remove the enrolment record");
            }
        }
    }

    fn unreadable(&self) -> MutexGuard<'_, BTreeMap<PodKey, Unreadable>> {
        // Every change of the map is a single insert or remove: it is whole even after a panic.
        self.unreadable.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn status(record: &Unreadable) -> PodStatus {
    PodStatus {
        namespace: record.key.namespace.clone(),
        name: record.key.name.clone(),
        uid: None,
        origin: Origin::default(),
        service_account: None,
        netns: None,
        addresses: Vec::new(),
        state: PodState::Pending,
        problem: Some(record.problem()),
        identity: None,
        connections: 0,
        enrolled_in_ms: 0.0,
    }
}
