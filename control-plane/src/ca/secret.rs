//! The authority's files as Secrets of the control plane's namespace, shared by all replicas.
//!
//! `cacerts` is plugged in by its owner, and preferred. Without it there is `istio-ca-secret`, made
//! by whichever replica comes first; the leading replica takes the steps of its rotation. Each write
//! says of which version it is the successor, so that nothing is lost between replicas.
//!
//! The annotation `fairlead.io/issued-until` has the Unix time at which the last certificate ends
//! that any replica has issued.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::{Stream, StreamExt as _, stream::select};
use http::StatusCode;
use k8s_openapi::{
    ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Client,
    api::{Api, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt as _, watcher::watch_object},
};
use serde_json::json;
use tokio::{sync::watch, time::timeout};

use super::{
    contents::{CERTIFICATE, Contents, Write},
    error::CaError,
    rotation::unix_seconds,
};
use crate::{cluster::Leadership, source::kubernetes::pauses};

/// Name of the Secret that an owner plugs in.
const PLUGGED_IN: &str = "cacerts";

/// Name of the Secret that is made here.
const GENERATED: &str = "istio-ca-secret";

/// Type of the Secret that is made here, as Istio has it.
const GENERATED_TYPE: &str = "istio.io/ca-root";

/// Annotation with the end of the last certificate, in seconds of Unix time.
const ISSUED_UNTIL: &str = "fairlead.io/issued-until";

/// Time for the API server to answer.
const REQUEST_TIME: Duration = Duration::from_secs(30);

/// The Secrets of a namespace that hold an authority's files.
#[derive(Clone, Debug)]
pub struct CaSecrets {
    secrets: Api<Secret>,
    leadership: Leadership,
    /// End of the last certificate that this replica has issued, to be recorded.
    issued_until: watch::Sender<SystemTime>,
}

/// A Secret in use.
pub(super) struct Snapshot {
    pub(super) contents: Contents,
    /// End of the last certificate that any replica has recorded.
    pub(super) issued_until: Option<SystemTime>,
    secret: Secret,
}

// === impl CaSecrets ===

impl CaSecrets {
    /// Names the Secrets of a namespace; `leadership` says whether this replica takes steps of a
    /// rotation.
    pub fn new(client: Client, namespace: &str, leadership: Leadership) -> Self {
        let secrets = Api::namespaced(client, namespace);
        Self { secrets, leadership, issued_until: watch::Sender::new(UNIX_EPOCH) }
    }

    /// Asks the leading replica to replace its root.
    pub async fn request_rotation(&self) -> Result<(), CaError> {
        let snapshot = self.read().await?;
        let request = Contents::request_rotation(snapshot.as_ref().map(|s| &s.contents))?;
        let written = match snapshot {
            Some(snapshot) => self.write(snapshot, vec![request]).await?,
            None => false,
        };
        if written { Ok(()) } else { Err(CaError::Busy) }
    }

    /// Returns whether this replica takes the steps of a rotation.
    pub(super) fn leads(&self) -> bool {
        self.leadership.leads()
    }

    /// Takes note that certificates live as long as this.
    pub(super) fn issued(&self, end: SystemTime) {
        self.issued_until.send_if_modified(|until| {
            let is_later = end > *until;
            *until = (*until).max(end);
            is_later
        });
    }

    /// Returns signs that the Secrets are to be looked at: another version, an end to be recorded,
    /// or that this replica began to lead.
    pub(super) fn signs(&self) -> impl Stream<Item = ()> + Send + use<> {
        let watch = |name| {
            let changes = watch_object(self.secrets.clone(), name).backoff(pauses());
            changes.filter_map(async |change| match change {
                Ok(_) => Some(()),
                Err(error) => {
                    tracing::warn!(%error, "cannot watch the authority's Secrets; trying again");
                    None
                }
            })
        };
        let ends = changes(self.issued_until.subscribe(), |mut ends| async move {
            ends.changed().await.ok().map(|()| ends)
        });
        let gains = changes(self.leadership.clone(), |mut leadership| async move {
            leadership.lost().await;
            leadership.gained().await;
            Some(leadership)
        });
        select(select(watch(PLUGGED_IN), watch(GENERATED)), select(ends, gains)).boxed()
    }

    /// Returns the Secret that is in use.
    pub(super) async fn read(&self) -> Result<Option<Snapshot>, CaError> {
        for name in [PLUGGED_IN, GENERATED] {
            let Some(secret) = in_time(self.secrets.get_opt(name)).await? else { continue };
            let contents = Contents::read(|file| text(&secret, file))?;
            let missing = || CaError::unusable(CERTIFICATE, format!("the Secret {name} lacks it"));
            let contents = contents.ok_or_else(missing)?;
            let issued_until = recorded(&secret);
            return Ok(Some(Snapshot { contents, issued_until, secret }));
        }
        Ok(None)
    }

    /// Makes a Secret of the given files, unless another replica was quicker.
    pub(super) async fn create(&self, files: [Write; 3], now: SystemTime) -> Result<(), CaError> {
        let mut secret = Secret {
            metadata: ObjectMeta {
                name: Some(GENERATED.to_owned()),
                annotations: Some(BTreeMap::from([annotation(now)])),
                ..ObjectMeta::default()
            },
            type_: Some(GENERATED_TYPE.to_owned()),
            ..Secret::default()
        };
        put(&mut secret, files);
        let params = PostParams::default();
        unless_conflict(in_time(self.secrets.create(&params, &secret)).await).map(drop)
    }

    /// Writes files in place of those of `snapshot`, all at once. Returns false if the Secret has
    /// changed in the meantime.
    pub(super) async fn write(
        &self,
        snapshot: Snapshot,
        files: Vec<Write>,
    ) -> Result<bool, CaError> {
        let mut secret = snapshot.secret;
        put(&mut secret, files);
        let name = secret.metadata.name.clone().unwrap_or_default();
        let params = PostParams::default();
        unless_conflict(in_time(self.secrets.replace(&name, &params, &secret)).await)
    }

    /// Records the end of the last certificate that this replica has issued, if that is news.
    pub(super) async fn record(&self, snapshot: &Snapshot) -> Result<(), CaError> {
        let end = *self.issued_until.borrow();
        // What is recorded has whole seconds.
        if snapshot.issued_until.is_some_and(|until| unix_seconds(until) >= unix_seconds(end)) {
            return Ok(());
        }
        let metadata = &snapshot.secret.metadata;
        let annotations = BTreeMap::from([annotation(end)]);
        let patch = json!({ "metadata": {
            "annotations": annotations,
            "resourceVersion": metadata.resource_version,
        }});
        let name = metadata.name.as_deref().unwrap_or_default();
        let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
        // Another version is a sign to look again.
        unless_conflict(in_time(self.secrets.patch(name, &params, &patch)).await).map(drop)
    }
}

/// Returns an item each time that `next` has found one.
fn changes<T, F: Future<Output = Option<T>>>(
    state: T,
    next: impl Fn(T) -> F,
) -> impl Stream<Item = ()> {
    futures_util::stream::unfold((state, next), |(state, next)| async move {
        let state = next(state).await?;
        Some(((), (state, next)))
    })
}

async fn in_time<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, CaError> {
    match timeout(REQUEST_TIME, request).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(CaError::ApiSilent),
    }
}

/// Returns whether a write was done; not if somebody else's came before it.
fn unless_conflict<T>(answer: Result<T, CaError>) -> Result<bool, CaError> {
    match answer {
        Ok(_) => Ok(true),
        Err(CaError::Api(error)) if is_conflict(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == StatusCode::CONFLICT.as_u16())
}

fn text(secret: &Secret, file: &'static str) -> Result<Option<String>, CaError> {
    let Some(ByteString(bytes)) = secret.data.as_ref().and_then(|data| data.get(file)) else {
        return Ok(None);
    };
    let not_text = |_| CaError::unusable(file, "it is not text");
    String::from_utf8(bytes.clone()).map(Some).map_err(not_text)
}

fn put(secret: &mut Secret, files: impl IntoIterator<Item = Write>) {
    let data = secret.data.get_or_insert_default();
    for (name, content) in files {
        match content {
            Some(content) => data.insert(name.to_owned(), ByteString(content.into_bytes())),
            None => data.remove(name),
        };
    }
}

fn annotation(end: SystemTime) -> (String, String) {
    (ISSUED_UNTIL.to_owned(), unix_seconds(end).to_string())
}

/// Returns the recorded end; none also if it cannot be read, which means the longest there may be.
fn recorded(secret: &Secret) -> Option<SystemTime> {
    let text = secret.metadata.annotations.as_ref()?.get(ISSUED_UNTIL)?;
    UNIX_EPOCH.checked_add(Duration::from_secs(text.parse().ok()?))
}
