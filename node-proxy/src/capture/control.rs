//! Enrolled pods: what the unix socket API controls.

mod lifecycle;
mod restore;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use mesh_api::identity::TrustDomain;
use tokio::sync::Mutex as AsyncMutex;

pub use self::lifecycle::AtExit;
use super::{enrolment::Enrolment, programs::Programs, records::Records};
use crate::{
    api::{ApiError, ApiErrorKind, PodControl, PodKey, PodSpec, PodState, PodStatus},
    identity::IdentityStore,
    proxy::{node::Node, pod::Pod, worker::Workers},
};

/// Controls the pods of one node. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Control(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// One change at a time: its holder may change the kernel's state.
    programs: AsyncMutex<Programs>,
    pods: Mutex<BTreeMap<PodKey, Enrolled>>,
    records: Records,
    node: Arc<Node>,
    workers: Workers,
    identities: IdentityStore,
    trust_domain: TrustDomain,
}

/// A pod in the mesh, or on its way out.
#[derive(Clone, Debug)]
struct Enrolled {
    spec: PodSpec,
    pod: Arc<Pod>,
    enrolment: Arc<Enrolment>,
    took: Duration,
    draining: bool,
}

/// What control works with.
#[derive(Debug)]
pub struct Parts {
    /// Loaded programs.
    pub programs: Programs,
    /// The proxy that gets the pods.
    pub node: Arc<Node>,
    /// Its threads.
    pub workers: Workers,
    /// Certificates.
    pub identities: IdentityStore,
    /// Trust domain of this node's pods.
    pub trust_domain: TrustDomain,
}

// === impl Control ===

impl Control {
    /// Starts with no pod; `run_dir` holds the records of enrolments.
    pub fn new(parts: Parts, run_dir: &Path) -> std::io::Result<Self> {
        let Parts { programs, node, workers, identities, trust_domain } = parts;
        Ok(Self(Arc::new(Shared {
            programs: AsyncMutex::new(programs),
            pods: Mutex::default(),
            records: Records::open(run_dir)?,
            node,
            workers,
            identities,
            trust_domain,
        })))
    }
}

impl PodControl for Control {
    async fn add(&self, spec: PodSpec) -> Result<PodStatus, ApiError> {
        let shared = self.0.clone();
        // A client that goes away must not leave a pod half enrolled.
        finish(tokio::spawn(async move { shared.add(spec).await })).await
    }

    async fn remove(&self, key: &PodKey) -> Result<(), ApiError> {
        let (shared, key) = (self.0.clone(), key.clone());
        finish(tokio::spawn(async move { shared.remove(&key).await })).await
    }

    async fn list(&self) -> Vec<PodStatus> {
        self.0.pods().values().map(Enrolled::status).collect()
    }
}

async fn finish<T>(task: tokio::task::JoinHandle<Result<T, ApiError>>) -> Result<T, ApiError> {
    task.await.unwrap_or_else(|error| Err(internal(&error)))
}

fn internal(error: &dyn std::fmt::Display) -> ApiError {
    ApiError::new(
        ApiErrorKind::Internal,
        error.to_string(),
        "the pod is not in the mesh; see the log of fairlead-node, and `fairlead-node check`",
    )
}

// === impl Shared ===

impl Shared {
    fn pods(&self) -> MutexGuard<'_, BTreeMap<PodKey, Enrolled>> {
        // Every change of the map is a single insert or remove: it is whole even after a panic.
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Enrolled ===

impl Enrolled {
    fn status(&self) -> PodStatus {
        let state = if self.draining {
            PodState::Draining
        } else if self.pod.svid.current().is_ok() {
            PodState::Ready
        } else {
            PodState::Pending
        };
        let problem = self.pod.svid.current().err().map(|error| error.to_string());
        PodStatus {
            namespace: self.spec.namespace.clone(),
            name: self.spec.name.clone(),
            service_account: self.spec.service_account.clone(),
            netns: self.spec.netns.clone(),
            addresses: self.pod.addresses.clone(),
            state,
            problem,
            identity: self.pod.identity.to_string(),
            connections: self.pod.connections.open() as u64,
            enrolled_in_ms: self.took.as_secs_f64() * 1e3,
        }
    }
}
