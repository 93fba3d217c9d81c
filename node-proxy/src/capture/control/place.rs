//! Where a pod's network namespace is.

use std::path::{Path, PathBuf};

use super::{Enrolled, Shared, internal, lifecycle::rejected};
use crate::{
    api::{ApiError, ApiErrorKind, PodSpec},
    capture::{enrolment::Enrolment, records::Record, vanish},
};

// === impl Shared ===

impl Shared {
    /// Finds the network namespace of a pod, and what an enrolment would work on there.
    pub(super) async fn find(&self, spec: &PodSpec) -> Result<(PathBuf, Enrolment), ApiError> {
        if let Some(path) = &spec.netns {
            let enrolment = inspect(path, spec).await?;
            return Ok((path.clone(), enrolment));
        }
        let mut refused = ApiError::new(
            ApiErrorKind::NotFound,
            format!("no process of the pod with the uid {} is found", spec.uid()),
            "it may just be starting; if it runs, see --proc-dir, and hostPID in a container",
        );
        for path in self.namespaces_of(&spec.uid()).await? {
            match inspect(&path, spec).await {
                Ok(enrolment) => return Ok((path, enrolment)),
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    /// Finds the namespace of a pod on record again. Its path may lead elsewhere by now, since that
    /// of a process is good for the life of the process only.
    pub(super) async fn find_again(
        &self,
        record: &Record,
    ) -> Result<Option<(PathBuf, Enrolment)>, ApiError> {
        let known = record.spec.netns.as_ref().or(record.found_at.as_ref());
        let mut paths: Vec<_> = known.cloned().into_iter().collect();
        if record.spec.netns.is_none() {
            paths.extend(self.namespaces_of(&record.spec.uid()).await?);
        }
        for path in paths {
            match Enrolment::inspect(&path).await {
                Ok(found) if found.netns.cookie().0 == record.netns_cookie => {
                    return Ok(Some((path, found)));
                }
                Ok(_) => {}
                Err(error) if error.is_gone() => {}
                // What failed may work later; until then the pod keeps its capture.
                Err(error) => return Err(internal(&error)),
            }
        }
        Ok(None)
    }

    /// Returns the enrolled pods whose namespace is no longer where it was.
    pub(super) fn displaced(&self) -> Vec<Enrolled> {
        let pods = self.pods();
        let gone = |e: &&Enrolled| vanish::is_gone(&e.path, &e.enrolment.netns);
        pods.values().filter(gone).cloned().collect()
    }

    /// Returns the enrolled pods whose namespace is gone. Those that were found by a process which
    /// has ended are found by another one.
    pub(super) async fn vanished(&self) -> Vec<Enrolled> {
        let mut vanished = Vec::new();
        for enrolled in self.displaced() {
            match self.another_path(&enrolled).await {
                Ok(Some(path)) => self.note_path(&enrolled, path),
                Ok(None) => vanished.push(enrolled),
                // It says nothing of the pod.
                Err(error) => tracing::warn!(%error, "cannot look for the processes of a pod"),
            }
        }
        vanished
    }

    async fn another_path(&self, enrolled: &Enrolled) -> Result<Option<PathBuf>, ApiError> {
        if enrolled.spec.netns.is_some() {
            return Ok(None);
        }
        let paths = self.namespaces_of(&enrolled.spec.uid()).await?;
        let netns = &enrolled.enrolment.netns;
        Ok(paths.into_iter().find(|path| !vanish::is_gone(path, netns)))
    }

    fn note_path(&self, enrolled: &Enrolled, path: PathBuf) {
        let mut pods = self.pods();
        let known = pods.get_mut(&enrolled.spec.key()).filter(|known| known.pod == enrolled.pod);
        if let Some(known) = known {
            known.path = path;
        }
    }

    async fn namespaces_of(&self, uid: &str) -> Result<Vec<PathBuf>, ApiError> {
        let (processes, uid) = (self.processes.clone(), uid.to_owned());
        let found = tokio::task::spawn_blocking(move || processes.namespaces_of(&uid)).await;
        found.map_err(|error| internal(&error))?.map_err(|error| internal(&error))
    }
}

async fn inspect(path: &Path, spec: &PodSpec) -> Result<Enrolment, ApiError> {
    let found = Enrolment::inspect(path).await.map_err(|e| rejected(&e))?;
    found.ensure_addresses(path, &spec.addresses).map_err(|e| rejected(&e))?;
    Ok(found)
}
