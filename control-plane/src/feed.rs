//! From the events of a source to the changes that clients are told.

mod standing;

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use mesh_api::{
    identity::{Identity, Namespace},
    workload::NodeName,
};
use tokio::sync::{mpsc, watch};

pub use self::standing::Standing;
use crate::{
    auth::PodReference,
    ca::Placement,
    mesh::{Event, Mesh, Options, Warning},
    object::{ObjectKey, ObjectName},
    resource::Change,
    run::Source,
    source::{
        directory::{Changes, DirectoryError, FileError, WatchedDirectory},
        kubernetes::{self, Batch, StampEvent, Stamps},
    },
    telemetry::metrics::{ConfigEvent, Metrics},
};

/// Changes on their way to clients: they are merged there, so that few wait.
const CHANGE_QUEUE: usize = 64;

/// The mesh, asked for where workloads run while it changes.
#[derive(Debug)]
struct Placed {
    mesh: Arc<RwLock<Mesh>>,
    changed: watch::Receiver<()>,
}

/// What turns events into changes.
#[derive(Debug)]
pub struct Feed {
    mesh: Arc<RwLock<Mesh>>,
    /// Written while the mesh is, so that its judgements are of these versions.
    stamps: Arc<Mutex<Stamps>>,
    /// Says that judgements or stamps may be different.
    signal: watch::Sender<()>,
    changes: mpsc::Sender<Vec<Change>>,
    metrics: Arc<Metrics>,
    /// What has been complained of, so that it is said once.
    warned: BTreeSet<(ObjectKey, String)>,
    refused: Vec<FileError>,
}

// === impl Feed ===

impl Feed {
    /// Makes an empty mesh, and what a control plane gets of it.
    pub fn new(options: Options, metrics: Arc<Metrics>) -> (Self, Source) {
        let mesh = Arc::new(RwLock::new(Mesh::new(options)));
        let (changes, receiver) = mpsc::channel(CHANGE_QUEUE);
        let (warned, refused) = (BTreeSet::new(), Vec::new());
        let (stamps, signal) = (Arc::default(), watch::Sender::new(()));
        let placement = Arc::new(Placed { mesh: Arc::clone(&mesh), changed: signal.subscribe() });
        let feed = Self { mesh, stamps, signal, changes, metrics, warned, refused };
        (feed, Source { changes: receiver, placement })
    }

    /// Returns what is known of the objects whose status is to be written.
    pub fn standing(&self) -> Standing {
        Standing {
            mesh: Arc::clone(&self.mesh),
            stamps: Arc::clone(&self.stamps),
            changed: self.signal.subscribe(),
        }
    }

    /// Follows a directory until nobody wants to know any more. A directory that cannot be read at
    /// the start is an error; later it is logged, and what was known stays.
    pub async fn follow_directory(mut self, root: PathBuf) -> Result<(), DirectoryError> {
        let (directory, first) = WatchedDirectory::start(root)?;
        for (kind, count) in &first.ignored {
            tracing::info!(%kind, count, "objects that the mesh does not depend on");
        }
        let mut wanted = self.take_files(first).await;
        let (send, mut looks) = mpsc::channel(1);
        let following = directory.follow(send);
        let applying = async {
            while wanted && let Some(look) = looks.recv().await {
                match look {
                    Ok(changes) => wanted = self.take_files(changes).await,
                    Err(error) => tracing::error!(%error, "what was known stays"),
                }
            }
        };
        tokio::join!(following, applying);
        Ok(())
    }

    /// Follows a cluster until nobody wants to know any more.
    pub async fn follow_cluster(mut self, client: kube::Client) {
        let (send, mut batches) = mpsc::channel(1);
        let applying = async move {
            while let Some(Batch { events, stamps, refused }) = batches.recv().await {
                for error in refused {
                    tracing::error!(%error, "object not applied; its last good version stays");
                }
                if !self.take(events, stamps).await {
                    return;
                }
            }
        };
        tokio::join!(kubernetes::follow(client, send), applying);
    }

    async fn take_files(&mut self, changes: Changes) -> bool {
        for error in changes.errors.iter().filter(|error| !self.refused.contains(error)) {
            tracing::error!(%error, "file not applied; its last good version stays");
        }
        self.refused = changes.errors;
        if changes.applied > 0 {
            tracing::info!(files = changes.applied, "configuration applied");
        }
        self.take(changes.events, Vec::new()).await
    }

    /// Applies events; returns whether anybody wants to know.
    async fn take(&mut self, events: Vec<Event>, stamps: Vec<StampEvent>) -> bool {
        for event in &events {
            self.count(event);
        }
        let (changes, warnings) = {
            let mut mesh = self.mesh.write().unwrap_or_else(PoisonError::into_inner);
            let mut known = self.stamps.lock().unwrap_or_else(PoisonError::into_inner);
            for event in stamps {
                known.apply(event);
            }
            (mesh.apply(events), mesh.warnings())
        };
        self.signal.send_replace(());
        self.warn(warnings.into_iter().flat_map(|(key, warnings)| {
            warnings.into_iter().map(move |warning| (key.clone(), warning))
        }));
        self.changes.send(changes).await.is_ok()
    }

    fn count(&self, event: &Event) {
        let (kind, event, number) = match event {
            Event::Applied(object) => (object.kind(), ConfigEvent::Update, 1),
            Event::Deleted(key) => (key.kind, ConfigEvent::Delete, 1),
            Event::Relisted(kind, objects) => (*kind, ConfigEvent::Add, objects.len()),
        };
        let number = u64::try_from(number).unwrap_or(u64::MAX);
        self.metrics.config_event(kind.name(), event).inc_by(number);
    }

    /// Logs what has not been complained of before.
    fn warn(&mut self, warnings: impl Iterator<Item = (ObjectKey, Warning)>) {
        let warnings: BTreeSet<_> =
            warnings.map(|(key, warning)| (key, warning.to_string())).collect();
        for (object, warning) in warnings.difference(&self.warned) {
            tracing::warn!(%object, "{warning}");
        }
        self.warned = warnings;
    }
}

// === impl Placed ===

impl Placement for Placed {
    fn runs_on(&self, identity: &Identity, node: &NodeName) -> bool {
        let account =
            ObjectName::new(identity.namespace.as_str(), identity.service_account.as_str());
        let mesh = self.mesh.read().unwrap_or_else(PoisonError::into_inner);
        mesh.runs_on(&node.0, &account)
    }

    fn node_of(&self, namespace: &Namespace, pod: &PodReference) -> Option<NodeName> {
        let name = ObjectName::new(namespace.as_str(), pod.name.as_str());
        let mesh = self.mesh.read().unwrap_or_else(PoisonError::into_inner);
        mesh.node_of(&name, &pod.uid).map(NodeName)
    }

    fn changes(&self) -> watch::Receiver<()> {
        self.changed.clone()
    }
}
