//! What is known of the objects whose status is to be written.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio::sync::watch;

use crate::{
    mesh::{Condition, Judgement, Mesh, ParentJudgement, Provision},
    object::ObjectKey,
    source::kubernetes::{Stamp, Stamps},
};

/// The judgements of a mesh, each of the version of the object that the stamp names.
#[derive(Clone, Debug)]
pub struct Standing {
    pub(super) mesh: Arc<RwLock<Mesh>>,
    pub(super) stamps: Arc<Mutex<Stamps>>,
    /// Says that something may be different.
    pub(super) changed: watch::Receiver<()>,
}

// === impl Standing ===

impl Standing {
    /// Waits for a change. Returns false if there will be none.
    pub async fn changed(&mut self) -> bool {
        self.changed.changed().await.is_ok()
    }

    /// Returns whether this is the version of an object that has been taken.
    pub fn is_at(&self, key: &ObjectKey, version: &str) -> bool {
        let stamps = self.stamps.lock().unwrap_or_else(PoisonError::into_inner);
        stamps.get(key).is_some_and(|stamp| *stamp.version == *version)
    }

    /// Returns what is to be done about waypoints that are provided.
    pub fn provision(&self) -> Provision {
        self.mesh.read().unwrap_or_else(PoisonError::into_inner).provision()
    }

    /// Returns at most `most` of the results of `look` at all objects and their judgements.
    pub fn look<T>(
        &self,
        most: usize,
        mut look: impl FnMut(&ObjectKey, &Stamp, Option<&(Condition, Judgement)>) -> Option<T>,
    ) -> Vec<T> {
        // In the order in which they are written.
        let mesh = self.mesh.read().unwrap_or_else(PoisonError::into_inner);
        let stamps = self.stamps.lock().unwrap_or_else(PoisonError::into_inner);
        let found = stamps.iter().filter_map(|(key, stamp)| look(key, stamp, mesh.judgement(key)));
        found.take(most).collect()
    }

    /// Returns at most `most` of the results of `look` at all routes and what is to be said of their
    /// parents.
    pub fn look_at_routes<T>(
        &self,
        most: usize,
        mut look: impl FnMut(&ObjectKey, &Stamp, &[ParentJudgement]) -> Option<T>,
    ) -> Vec<T> {
        let mesh = self.mesh.read().unwrap_or_else(PoisonError::into_inner);
        let stamps = self.stamps.lock().unwrap_or_else(PoisonError::into_inner);
        let routes = stamps.iter().filter(|(key, _)| key.kind.is_route());
        let found = routes.filter_map(|(key, stamp)| look(key, stamp, mesh.parents(key)));
        found.take(most).collect()
    }
}
