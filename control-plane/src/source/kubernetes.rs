//! The objects of a Kubernetes cluster, by list and watch.
//!
//! Each kind is followed by itself: listed in pages, then watched, and listed anew when the server
//! no longer remembers what happened since (410). Until every kind has been listed once nothing is
//! passed on, since half of a cluster would look like the loss of the other half.

mod follower;
mod stamp;

use std::{collections::HashSet, fmt, ops::RangeInclusive, pin::pin, time::Duration};

use backon::ExponentialBuilder;
use futures_util::{
    Stream, StreamExt as _, TryStreamExt as _, future::join_all, stream::BoxStream,
};
use http::StatusCode;
use kube::{
    Client,
    api::{Api, ApiResource, DynamicObject, GroupVersionKind},
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt as _,
        utils::ResetTimerBackoff,
        watcher::{self, ExponentialBackoff, watcher},
    },
};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use self::follower::Follower;
pub use self::stamp::{Stamp, StampEvent, Stamps};
use crate::{
    mesh::Event,
    object::{InvalidObject, ObjectKey, ObjectKind, UNUSED_TYPES},
};

/// Batches of events on their way to the store.
const BATCH_QUEUE: usize = 64;

/// Longest time that a server holds a watch open, in seconds; below what it and proxies in between
/// allow by themselves, so that it ends in order.
const WATCH_SECONDS: u32 = 290;

/// First pause after a failure, and the longest; each is twice the one before, and chance adds to it
/// so that replicas do not come back together.
const PAUSE: RangeInclusive<Duration> = Duration::from_millis(200)..=Duration::from_secs(10);

/// Time without a failure after which pauses are short again: a server that fails at once after each
/// success must not be asked all the time.
const CALM: Duration = Duration::from_secs(30);

/// Name of the config map that holds the mesh configuration.
const MESH_CONFIG: &str = "metadata.name=istio";

/// What happened in the cluster since the last batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// What happened to objects.
    pub events: Vec<Event>,
    /// Which versions these were, of kinds that have a status to be written.
    pub stamps: Vec<StampEvent>,
    /// Objects whose new version is refused; the last good one, if any, stays.
    pub refused: Vec<ObjectError>,
}

/// An object that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectError {
    /// The object.
    pub key: ObjectKey,
    /// What is wrong with it.
    pub error: InvalidObject,
}

/// A change of one kind, of an object as JSON.
type JsonEvent = watcher::Event<Value>;

// === impl ObjectError ===

impl fmt::Display for ObjectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.error)
    }
}

impl std::error::Error for ObjectError {}

/// Follows the cluster and sends what happens to `batches`: first one batch with everything. Returns
/// when nobody receives any more.
pub async fn follow(client: Client, batches: mpsc::Sender<Batch>) {
    let (send, receive) = mpsc::channel(BATCH_QUEUE);
    let kinds = ObjectKind::ALL.map(|kind| follow_kind(client.clone(), kind, send.clone()));
    drop(send);
    tokio::select! {
        _ = join_all(kinds) => {}
        () = gather(receive, &batches) => {}
        () = batches.closed() => {}
    }
}

/// Holds batches back until there is one of each kind, then passes on what comes.
async fn gather(mut kinds: mpsc::Receiver<(ObjectKind, Batch)>, batches: &mpsc::Sender<Batch>) {
    let mut missing = HashSet::from(ObjectKind::ALL);
    let mut first = Batch::default();
    while let Some((kind, mut batch)) = kinds.recv().await {
        first.events.append(&mut batch.events);
        first.stamps.append(&mut batch.stamps);
        first.refused.append(&mut batch.refused);
        missing.remove(&kind);
        if missing.is_empty() && batches.send(std::mem::take(&mut first)).await.is_err() {
            return;
        }
    }
}

async fn follow_kind(client: Client, kind: ObjectKind, send: mpsc::Sender<(ObjectKind, Batch)>) {
    let mut follower = Follower::new(kind);
    let mut events = pin!(watch(client, kind).backoff(pauses()));
    while let Some(event) = events.next().await {
        let batch = match event {
            Ok(event) => follower.take(event),
            Err(error) if is_unknown_kind(&error) => {
                tracing::info!(%kind, "the cluster has no such kind of objects yet");
                Some(follower.none())
            }
            Err(error) if kind == ObjectKind::Secret && is_forbidden(&error) => {
                tracing::warn!(
                    %error,
                    "secrets may not be listed: what destination rules name by credentialName fails"
                );
                Some(follower.unchanged())
            }
            Err(error) => {
                tracing::warn!(%kind, %error, "cannot follow the cluster; trying again");
                None
            }
        };
        if let Some(batch) = batch
            && send.send((kind, batch)).await.is_err()
        {
            return;
        }
    }
}

/// Returns the pauses between attempts to follow something.
pub(crate) fn pauses() -> ResetTimerBackoff<ExponentialBackoff> {
    let pauses = ExponentialBuilder::new()
        .with_min_delay(*PAUSE.start())
        .with_max_delay(*PAUSE.end())
        .with_jitter()
        .without_max_times();
    ResetTimerBackoff::new(pauses.into(), CALM)
}

/// Returns what happens to objects of a kind; of some only the metadata is asked for.
fn watch(client: Client, kind: ObjectKind) -> BoxStream<'static, watcher::Result<JsonEvent>> {
    let gvk = GroupVersionKind::gvk(kind.group(), kind.version(), kind.name());
    let resource = ApiResource::from_gvk(&gvk);
    let config = watcher::Config::default().timeout(WATCH_SECONDS);
    match kind {
        ObjectKind::Namespace | ObjectKind::Node | ObjectKind::ServiceAccount => {
            let api: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(client, &resource);
            as_json(watcher(api, config), move |object| {
                json!({
                    "apiVersion": resource.api_version,
                    "kind": resource.kind,
                    "metadata": object.metadata,
                })
            })
        }
        ObjectKind::MeshConfig => whole(client, config.fields(MESH_CONFIG), resource),
        ObjectKind::Secret => {
            let others = UNUSED_TYPES.map(|unused| format!("type!={unused}")).join(",");
            whole(client, config.fields(&others), resource)
        }
        ObjectKind::Gateway
        | ObjectKind::Service
        | ObjectKind::ServiceEntry
        | ObjectKind::EndpointSlice
        | ObjectKind::WorkloadEntry
        | ObjectKind::VirtualService
        | ObjectKind::DestinationRule
        | ObjectKind::HttpRoute
        | ObjectKind::GrpcRoute
        | ObjectKind::TlsRoute
        | ObjectKind::TcpRoute
        | ObjectKind::ReferenceGrant
        | ObjectKind::AuthorizationPolicy
        | ObjectKind::PeerAuthentication
        | ObjectKind::Pod => whole(client, config, resource),
    }
}

fn whole(
    client: Client,
    config: watcher::Config,
    resource: ApiResource,
) -> BoxStream<'static, watcher::Result<JsonEvent>> {
    let api: Api<DynamicObject> = Api::all_with(client, &resource);
    as_json(watcher(api, config), move |object| {
        let mut value = object.data;
        // Items of a list do not say what they are.
        value["apiVersion"] = resource.api_version.as_str().into();
        value["kind"] = resource.kind.as_str().into();
        value["metadata"] = json!(object.metadata);
        value
    })
}

fn as_json<K: 'static>(
    events: impl Stream<Item = watcher::Result<watcher::Event<K>>> + Send + 'static,
    json: impl Fn(K) -> Value + Send + 'static,
) -> BoxStream<'static, watcher::Result<JsonEvent>> {
    let convert = move |event| match event {
        watcher::Event::Apply(object) => watcher::Event::Apply(json(object)),
        watcher::Event::Delete(object) => watcher::Event::Delete(json(object)),
        watcher::Event::Init => watcher::Event::Init,
        watcher::Event::InitApply(object) => watcher::Event::InitApply(json(object)),
        watcher::Event::InitDone => watcher::Event::InitDone,
    };
    events.map_ok(convert).boxed()
}

/// Returns whether this control plane may not list the kind.
fn is_forbidden(error: &watcher::Error) -> bool {
    let watcher::Error::InitialListFailed(kube::Error::Api(status)) = error else { return false };
    status.code == StatusCode::FORBIDDEN.as_u16()
}

/// Returns whether the server does not know the kind: its definition is not installed.
fn is_unknown_kind(error: &watcher::Error) -> bool {
    let watcher::Error::InitialListFailed(kube::Error::Api(status)) = error else { return false };
    status.code == StatusCode::NOT_FOUND.as_u16()
}
