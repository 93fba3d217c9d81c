//! Pods that operators have named and that are in the mesh when the control plane says so.

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use fairlead_sys::netns::Netns;
use serde::{Deserialize, Serialize};

use super::{
    records::{Keyed, OnDisk, Records},
    vanish,
};
use crate::api::{PodKey, PodSpec};

/// Directory of the registrations, in the run directory.
const DIRECTORY: &str = "registered";

/// The registrations of this node, in memory and on disk.
#[derive(Debug)]
pub(super) struct Registry {
    records: Records<Registration>,
    pods: Mutex<BTreeMap<PodKey, Registered>>,
}

#[derive(Clone, Debug)]
struct Registered {
    spec: PodSpec,
    netns: Arc<Netns>,
}

/// What is remembered of a registration.
#[derive(Debug, Serialize, Deserialize)]
struct Registration {
    spec: PodSpec,
    /// Cookie of the namespace: a path may lead to another one after a restart.
    netns_cookie: u64,
}

// === impl Registry ===

impl Registry {
    /// Starts with what is on disk and still there.
    pub(super) fn open(run_dir: &Path) -> io::Result<Self> {
        let records = Records::<Registration>::open(run_dir, DIRECTORY)?;
        let OnDisk { records: found, unreadable } = records.load()?;
        let registry = Self { records, pods: Mutex::default() };
        for broken in unreadable {
            // If the pod is enrolled, its enrolment says the same.
            tracing::error!(pod = %broken.key, "its registration cannot be read: add it again");
        }
        for Registration { spec, netns_cookie } in found {
            let path = spec.netns.clone().unwrap_or_default();
            match Netns::open(&path) {
                Ok(netns) if netns.cookie().0 == netns_cookie => registry.keep(spec, netns.into()),
                Ok(_) | Err(_) => {
                    let key = spec.key();
                    tracing::info!(pod = %key, "a registered pod is gone; forgotten");
                    registry.records.remove(&key)?;
                }
            }
        }
        Ok(registry)
    }

    /// Registers a pod in this network namespace.
    pub(super) fn add(&self, spec: PodSpec, netns: Arc<Netns>) -> io::Result<()> {
        let netns_cookie = netns.cookie().0;
        self.records.save(&Registration { spec: spec.clone(), netns_cookie })?;
        self.keep(spec, netns);
        Ok(())
    }

    /// Returns whether the pod was registered.
    pub(super) fn remove(&self, key: &PodKey) -> io::Result<bool> {
        self.records.remove(key)?;
        Ok(self.lock().remove(key).is_some())
    }

    pub(super) fn get(&self, key: &PodKey) -> Option<PodSpec> {
        self.lock().get(key).map(|registered| registered.spec.clone())
    }

    /// Returns the registered pods, sorted.
    pub(super) fn all(&self) -> Vec<PodSpec> {
        self.lock().values().map(|registered| registered.spec.clone()).collect()
    }

    /// Returns the pods whose network namespace is no longer where it was.
    pub(super) fn vanished(&self) -> Vec<PodKey> {
        let pods = self.lock();
        let gone = |registered: &&Registered| {
            let path = registered.spec.netns.as_deref();
            path.is_some_and(|path| vanish::is_gone(path, &registered.netns))
        };
        pods.values().filter(gone).map(|registered| registered.spec.key()).collect()
    }

    fn keep(&self, spec: PodSpec, netns: Arc<Netns>) {
        self.lock().insert(spec.key(), Registered { spec, netns });
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PodKey, Registered>> {
        // Every change of the map is a single insert or remove: it is whole even after a panic.
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Registration ===

impl Keyed for Registration {
    fn key(&self) -> PodKey {
        self.spec.key()
    }
}
