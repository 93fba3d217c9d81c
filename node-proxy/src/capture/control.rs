//! Enrolled pods: what the unix socket API controls, and what proxies are given.

mod agent;
mod attach;
mod counted;
mod datagrams;
mod kubelet;
mod lifecycle;
mod place;
mod profile;
mod restore;
mod unreadable;

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use fairlead_component::logging::{LevelChange, Levels};
use fairlead_ebpf::datagrams::DatagramRules;
use mesh_api::identity::{Identity, TrustDomain};
use tokio::sync::{Mutex as AsyncMutex, watch};

pub use self::lifecycle::AtExit;
use super::{
    enrolment::Enrolment,
    processes::Processes,
    programs::Programs,
    proxies::{Arrivals, Proxies, Reports},
    records::{ENROLMENTS, Record, Records, Unreadable},
    registry::Registry,
};
use crate::{
    api::{
        ApiError, ApiErrorKind, Inventory, Logging, Note, Origin, PodControl, PodKey, PodSpec,
        PodState, PodStatus,
    },
    cli::Enrol,
    explain::Explanation,
    link::{
        listeners::{EndpointListeners, PodListeners},
        message::{PodId, ServedPod},
        resolver::ResolverSockets,
    },
    profile::{Kind, Window},
    supervise::control::{Request, Superior},
};

/// Controls the pods of one node. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Control(pub(super) Arc<Shared>);

#[derive(Debug)]
pub(super) struct Shared {
    /// One change at a time: its holder may change the kernel's state.
    pub(super) programs: AsyncMutex<Programs>,
    pods: Mutex<BTreeMap<PodKey, Enrolled>>,
    records: Records<Record>,
    /// Pods that the control plane decides about, where it does.
    registry: Option<Registry>,
    /// What the agent says of pods that are not captured.
    notes: Mutex<BTreeMap<PodKey, Note>>,
    /// Counts changes of the pods and the registry.
    version: watch::Sender<u64>,
    /// Who decides which pods are enrolled.
    enrol: Enrol,
    processes: Processes,
    /// Pods whose record makes no sense.
    unreadable: Mutex<BTreeMap<PodKey, Unreadable>>,
    pub(super) proxies: Proxies,
    pub(super) arrivals: Arrivals,
    pub(super) endpoints: EndpointListeners,
    /// What becomes of the datagrams of pods.
    datagrams: DatagramRules,
    /// Listening sockets of pods on record that outlived this process's predecessor.
    left: Mutex<HashMap<PodId, PodListeners>>,
    /// Whether the pods on record are enrolled again.
    recorded: AtomicBool,
    trust_domain: TrustDomain,
    drain_timeout: Duration,
    /// What ends the node proxy, and tells others what to log.
    pub(super) superior: Superior,
    /// What this process logs.
    levels: Levels,
    /// Held while a profile is taken.
    profiling: Arc<AsyncMutex<()>>,
}

/// A pod in the mesh, or on its way out.
#[derive(Clone, Debug)]
struct Enrolled {
    spec: PodSpec,
    origin: Origin,
    /// Where its network namespace is found.
    path: PathBuf,
    pod: PodId,
    addresses: Vec<IpAddr>,
    enrolment: Arc<Enrolment>,
    /// None once the pod is released: its ports are free then.
    listeners: Option<Arc<PodListeners>>,
    /// None where name servers answer its DNS queries.
    resolver: Option<Arc<ResolverSockets>>,
    took: Duration,
}

/// What control works with.
#[derive(Debug)]
pub struct Parts {
    /// Loaded programs.
    pub programs: Programs,
    /// The listening sockets for operators, which proxies serve.
    pub endpoints: EndpointListeners,
    /// Listening sockets of pods that outlived a predecessor.
    pub left: HashMap<PodId, PodListeners>,
    /// What becomes of the datagrams of pods.
    pub datagrams: DatagramRules,
    /// Proxies whose links have come.
    pub arrivals: Arrivals,
    /// Who decides which pods are enrolled.
    pub enrol: Enrol,
    /// The processes of the node, by which pods are found.
    pub processes: Processes,
    /// Trust domain of this node's pods.
    pub trust_domain: TrustDomain,
    /// Time that open connections get to finish when a proxy is to end.
    pub drain_timeout: Duration,
    /// What ends the node proxy, and tells others what to log.
    pub superior: Superior,
    /// What this process logs.
    pub levels: Levels,
}

// === impl Control ===

impl Control {
    /// Starts with no pod; `run_dir` holds the records of enrolments.
    pub fn new(parts: Parts, run_dir: &Path) -> std::io::Result<Self> {
        let Parts {
            programs,
            endpoints,
            left,
            datagrams,
            arrivals,
            enrol,
            processes,
            trust_domain,
            drain_timeout,
            superior,
            levels,
        } = parts;
        let registry = match enrol {
            Enrol::ControlPlane => Some(Registry::open(run_dir)?),
            Enrol::Manual | Enrol::Kubernetes => None,
        };
        Ok(Self(Arc::new(Shared {
            programs: AsyncMutex::new(programs),
            pods: Mutex::default(),
            records: Records::open(run_dir, ENROLMENTS)?,
            registry,
            notes: Mutex::default(),
            version: watch::Sender::new(0),
            enrol,
            processes,
            unreadable: Mutex::default(),
            proxies: Proxies::new(),
            arrivals,
            endpoints,
            datagrams,
            left: Mutex::new(left),
            recorded: AtomicBool::new(false),
            trust_domain,
            drain_timeout,
            superior,
            levels,
            profiling: Arc::default(),
        })))
    }
}

impl PodControl for Control {
    async fn add(&self, spec: PodSpec, origin: Origin) -> Result<PodStatus, ApiError> {
        let shared = self.0.clone();
        // A client that goes away must not leave a pod half enrolled.
        finish(tokio::spawn(async move {
            match origin {
                Origin::Operator if shared.registry.is_some() => shared.register(spec).await,
                Origin::Operator => shared.add(spec, origin).await,
                Origin::Agent => {
                    shared.allow(&spec)?;
                    shared.add(spec, origin).await
                }
            }
        }))
        .await
    }

    async fn remove(&self, key: &PodKey, origin: Origin) -> Result<(), ApiError> {
        let (shared, key) = (self.0.clone(), key.clone());
        finish(tokio::spawn(async move { shared.remove(&key, origin).await })).await
    }

    async fn list(&self) -> Vec<PodStatus> {
        self.0.list().await
    }

    async fn explain(&self, pod: &PodKey, to: SocketAddr) -> Result<Explanation, ApiError> {
        self.0.explain(pod, to).await
    }

    async fn inventory(&self, known: Option<u64>) -> Inventory {
        self.0.inventory(known).await
    }

    fn note(&self, notes: Vec<Note>) {
        self.0.note(notes);
    }

    fn logging(&self) -> Logging {
        Logging { level: self.0.levels.to_string() }
    }

    fn log(&self, change: LevelChange) -> Result<Logging, ApiError> {
        let Shared { levels, superior, .. } = &*self.0;
        levels.apply(&change).map_err(|error| {
            ApiError::invalid(error.to_string(), "write a level, or target=level, with commas")
        })?;
        superior.ask(Request::Log(change)).map_err(|error| {
            let remedy = "only capture has changed what it logs; see its log";
            ApiError::new(ApiErrorKind::Internal, error.to_string(), remedy)
        })?;
        Ok(self.logging())
    }

    async fn profile(&self, kind: Kind, window: Window) -> Result<Vec<u8>, ApiError> {
        self.0.profile(kind, window).await
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

    fn left(&self) -> MutexGuard<'_, HashMap<PodId, PodListeners>> {
        // As above.
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the listening sockets of the enrolled pods.
    pub(super) fn listeners(&self) -> Vec<(PodId, Arc<PodListeners>)> {
        let pods = self.pods();
        let listening = |e: &Enrolled| e.listeners.clone().map(|listeners| (e.pod, listeners));
        pods.values().filter_map(listening).collect()
    }

    fn is_recorded(&self) -> bool {
        self.recorded.load(Ordering::Acquire)
    }

    /// Notes that a pod is enrolled, or stands elsewhere.
    fn set(&self, enrolled: Enrolled) {
        self.pods().insert(enrolled.spec.key(), enrolled);
        self.changed();
    }

    /// Notes that a pod is not enrolled.
    fn unset(&self, key: &PodKey) {
        self.pods().remove(key);
        self.changed();
    }

    fn status(&self, enrolled: &Enrolled, reports: &Reports) -> PodStatus {
        let report = reports.get(&enrolled.pod);
        let problem = match report {
            Some(report) => report.problem.clone(),
            None if enrolled.is_draining() => None,
            None => Some("no proxy is running: new connections wait for one".to_owned()),
        };
        let state = match (&enrolled.listeners, &problem) {
            (None, _) => PodState::Draining,
            (Some(_), None) => PodState::Ready,
            (Some(_), Some(_)) => PodState::Pending,
        };
        let identity = Identity {
            trust_domain: self.trust_domain.clone(),
            namespace: enrolled.spec.namespace.clone(),
            service_account: enrolled.spec.service_account.clone(),
        };
        PodStatus {
            namespace: enrolled.spec.namespace.clone(),
            name: enrolled.spec.name.clone(),
            uid: enrolled.spec.uid.clone(),
            origin: enrolled.origin,
            service_account: Some(enrolled.spec.service_account.clone()),
            netns: Some(enrolled.path.clone()),
            addresses: enrolled.addresses.clone(),
            state,
            problem,
            identity: Some(identity.to_string()),
            connections: report.map_or(0, |report| report.connections),
            enrolled_in_ms: enrolled.took.as_secs_f64() * 1e3,
        }
    }
}

// === impl Enrolled ===

impl Enrolled {
    fn is_draining(&self) -> bool {
        self.listeners.is_none()
    }

    fn served(&self) -> ServedPod {
        ServedPod {
            pod: self.pod,
            namespace: self.spec.namespace.clone(),
            name: self.spec.name.clone(),
            service_account: self.spec.service_account.clone(),
            addresses: self.addresses.clone(),
        }
    }
}
