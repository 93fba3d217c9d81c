//! The Kubernetes API: what the agent lists and watches, and what it reports.

mod read;

use std::{ops::RangeInclusive, path::PathBuf, pin::pin, time::Duration};

use backon::ExponentialBuilder;
use futures_util::{Stream, StreamExt as _};
use http::{StatusCode, Uri};
use kube::{
    Client, Config,
    api::{Api as Objects, ApiResource, GroupVersionKind, Patch, PatchParams},
    config::AuthInfo,
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt as _,
        utils::ResetTimerBackoff,
        watcher::{self, ExponentialBackoff, watcher},
    },
};
use serde_json::json;
use tokio::{sync::mpsc, time::timeout};

use self::read::{PodObject, REDIRECTION, read_namespace, read_pod};
use super::{cluster::ClusterEvent, wanted::Mark};
use crate::api::PodKey;

/// Longest time that a server holds a watch open, in seconds; below what it and proxies in between
/// allow by themselves, so that it ends in order.
const WATCH_SECONDS: u32 = 290;

/// First pause after a failure, and the longest; each is twice the one before, and chance adds to it
/// so that nodes do not come back together.
const PAUSE: RangeInclusive<Duration> = Duration::from_millis(200)..=Duration::from_secs(10);

/// Time without a failure after which pauses are short again: a server that fails at once after each
/// success must not be asked all the time.
const CALM: Duration = Duration::from_secs(30);

/// Time for a connection to the server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Time for a report; the server answers in milliseconds unless it is in trouble.
const REPORT_TIMEOUT: Duration = Duration::from_secs(20);

/// Where the API server is, and what it takes to talk to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiAccess {
    /// Its address.
    pub url: Uri,
    /// File with the token that says who asks, read anew when it is renewed.
    pub token: Option<PathBuf>,
    /// PEM file with the roots that its certificate chains to, read anew now and then.
    pub roots: Option<PathBuf>,
}

/// A client of the API. Cheap to clone.
#[derive(Clone)]
pub(super) struct Api(Client);

/// Why the API server cannot be talked to, or what it refused.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The client cannot be set up.
    #[error("cannot use the Kubernetes API server: {0}")]
    Client(Box<kube::Error>),
    /// It refused a report.
    #[error(
        "the Kubernetes API server refused a report: {0}; the agent needs to patch pods/status"
    )]
    Refused(Box<kube::Error>),
    /// It did not answer a report.
    #[error(
        "the Kubernetes API server did not answer within {} s", REPORT_TIMEOUT.as_secs()
    )]
    Timeout,
}

// === impl Api ===

impl Api {
    pub(super) fn connect(access: &ApiAccess) -> Result<Self, ApiError> {
        let mut config = Config::new(access.url.clone());
        // Nothing is trusted but the file: the system's roots are out of a confined process's sight.
        config.root_cert = Some(Vec::new());
        config.root_cert_file.clone_from(&access.roots);
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        let token_file = access.token.as_ref().map(|path| path.to_string_lossy().into_owned());
        config.auth_info = AuthInfo { token_file, ..AuthInfo::default() };
        let client = Client::try_from(config).map_err(|error| ApiError::Client(error.into()))?;
        Ok(Self(client))
    }

    /// Sends what happens to the pods of `node` and to namespaces, until nobody receives it.
    pub(super) async fn follow(&self, node: &str, events: mpsc::Sender<ClusterEvent>) {
        let on_node = watching().fields(&format!("spec.nodeName={node}"));
        let pods: Objects<PodObject> = Objects::all_with(self.0.clone(), &resource("Pod"));
        let namespaces: Objects<PartialObjectMeta> =
            Objects::all_with(self.0.clone(), &resource("Namespace"));
        let pods = watcher(pods, on_node);
        let namespaces = watcher(namespaces, watching());
        tokio::select! {
            () = pass("pods", pods, &events, ClusterEvent::Pod, read_pod) => {}
            () = pass(
                "namespaces",
                namespaces,
                &events,
                ClusterEvent::Namespace,
                read_namespace,
            ) => {}
        }
    }

    /// Reports what a pod's traffic goes through.
    ///
    /// By way of the status, which Istio's agent uses too: it takes less permission than the pod.
    pub(super) async fn mark(&self, pod: &PodKey, mark: &Mark) -> Result<(), ApiError> {
        let value = mark.value.map(|value| value.to_string());
        // The uid makes the server refuse a pod of the same name that has come since.
        let metadata = json!({ "uid": mark.uid, "annotations": { REDIRECTION: value } });
        let patch = Patch::Merge(json!({ "metadata": metadata }));
        let pods: Objects<PodObject> =
            Objects::namespaced_with(self.0.clone(), pod.namespace.as_str(), &resource("Pod"));
        let name = pod.name.as_str();
        let parameters = PatchParams::default();
        match timeout(REPORT_TIMEOUT, pods.patch_status(name, &parameters, &patch)).await {
            Err(_) => Err(ApiError::Timeout),
            Ok(Ok(_)) => Ok(()),
            // The pod is gone, of which there is nothing to report; the watch will say so.
            Ok(Err(kube::Error::Api(status))) if status.code == StatusCode::NOT_FOUND.as_u16() => {
                Ok(())
            }
            Ok(Err(error)) => Err(ApiError::Refused(error.into())),
        }
    }
}

fn watching() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_SECONDS)
}

fn resource(kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", kind))
}

/// Passes on what happens to the objects of a kind. Returns when nobody receives it.
async fn pass<K, T>(
    kind: &'static str,
    objects: impl Stream<Item = watcher::Result<watcher::Event<K>>> + Send,
    events: &mpsc::Sender<ClusterEvent>,
    wrap: impl Fn(watcher::Event<T>) -> ClusterEvent,
    read: impl Fn(K) -> Option<T>,
) {
    let mut objects = pin!(objects.backoff(pauses()));
    let mut failing = false;
    while let Some(event) = objects.next().await {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                failing = true;
                tracing::warn!(kind, %error, "cannot follow the cluster; enrolled pods stay so");
                continue;
            }
        };
        if std::mem::take(&mut failing) {
            tracing::info!(kind, "the cluster is followed again");
        }
        if let Some(event) = map(event, &read)
            && events.send(wrap(event)).await.is_err()
        {
            return;
        }
    }
}

/// Reads the object of an event; one that cannot be read is none.
fn map<K, T>(event: watcher::Event<K>, read: impl Fn(K) -> Option<T>) -> Option<watcher::Event<T>> {
    use watcher::Event::{Apply, Delete, Init, InitApply, InitDone};
    match event {
        Init => Some(Init),
        InitApply(object) => read(object).map(InitApply),
        InitDone => Some(InitDone),
        Apply(object) => read(object).map(Apply),
        Delete(object) => read(object).map(Delete),
    }
}

fn pauses() -> ResetTimerBackoff<ExponentialBackoff> {
    let pauses = ExponentialBuilder::new()
        .with_min_delay(*PAUSE.start())
        .with_max_delay(*PAUSE.end())
        .with_jitter()
        .without_max_times();
    ResetTimerBackoff::new(pauses.into(), CALM)
}
