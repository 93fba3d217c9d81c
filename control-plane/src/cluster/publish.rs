//! Files that every namespace gets as a config map, so that its pods can mount them: the roots, and
//! the lists of revoked certificates.
//!
//! Namespaces and config maps are followed; whatever is missing or different is written, whoever
//! has caused it.

mod copies;

use std::{collections::BTreeMap, future::ready, time::Duration};

use futures_util::{
    FutureExt as _, Stream, StreamExt as _,
    stream::{self, BoxStream},
};
use http::StatusCode;
use k8s_openapi::{
    api::core::v1::{ConfigMap, Namespace},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Client,
    api::{Api, DeleteParams, Patch, PatchParams, PostParams},
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, watcher},
    },
};
use serde_json::json;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tracing::{debug, info, warn};

use self::copies::{Copies, Copy, Event, Write};
use crate::source::kubernetes::pauses;

/// The roots that workloads trust, as Istio publishes them.
pub(super) const ROOTS: Publication =
    Publication { name: "istio-ca-root-cert", key: "root-cert.pem" };

/// The revoked certificates, as Istio publishes them.
pub(super) const REVOKED: Publication = Publication { name: "istio-ca-crl", key: "ca-crl.pem" };

/// Label of config maps that are made here, as Istio has it.
const LABEL: (&str, &str) = ("istio.io/config", "true");

/// Writes at once: enough for thousands of namespaces in a minute, and few for an API server.
const WRITES_AT_ONCE: usize = 8;

/// Time for the API server to answer.
const REQUEST_TIME: Duration = Duration::from_secs(30);

/// Pause after which what failed is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// A file that every namespace gets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Publication {
    /// Name of the config map.
    pub(super) name: &'static str,
    /// Name of the file in it.
    pub(super) key: &'static str,
}

/// Sees to it that every namespace has what `content` returns; looks at it anew whenever `replaced`
/// says so. Without content those that were made here are removed. Never returns.
pub(super) async fn publish(
    client: &Client,
    publication: Publication,
    content: impl Fn() -> Option<String>,
    mut replaced: watch::Receiver<()>,
) {
    let mut events = stream::select(
        namespaces(client.clone()).map(Event::Namespace),
        config_maps(client.clone(), publication).map(Event::Copy),
    );
    let mut copies = Copies::new(content());
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(event) => copies.take(event),
                None => return,
            },
            changed = replaced.changed() => match changed {
                Ok(()) => copies.want(content()),
                Err(_) => return,
            },
            () = sleep(RETRY_PAUSE), if copies.has_failed() => copies.retry(),
        }
        // Whatever is there already is part of what is compared.
        while let Some(Some(event)) = events.next().now_or_never() {
            copies.take(event);
        }
        let due = copies.due();
        let writes = stream::iter(due).map(|write| async {
            let done = perform(client, publication, &write).await;
            (write, done)
        });
        let mut writes = writes.buffer_unordered(WRITES_AT_ONCE);
        while let Some((write, done)) = writes.next().await {
            if !done {
                copies.failed(write);
            }
        }
    }
}

/// Returns the namespaces, and whether each is going to stay.
fn namespaces(client: Client) -> BoxStream<'static, watcher::Event<(String, bool)>> {
    let api: Api<PartialObjectMeta<Namespace>> = Api::all(client);
    follow(watcher(api, watcher::Config::default()), |namespace| {
        let ObjectMeta { name, deletion_timestamp, .. } = namespace.metadata;
        (name.unwrap_or_default(), deletion_timestamp.is_none())
    })
}

/// Returns the content of a publication in each namespace.
fn config_maps(
    client: Client,
    Publication { name, key }: Publication,
) -> BoxStream<'static, watcher::Event<(String, Copy)>> {
    let api: Api<ConfigMap> = Api::all(client);
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    follow(watcher(api, config), move |map| {
        let content = map.data.and_then(|mut data| data.remove(key));
        let (label, value) = LABEL;
        let labels = map.metadata.labels.unwrap_or_default();
        let is_ours = labels.get(label).is_some_and(|own| own == value);
        (map.metadata.namespace.unwrap_or_default(), Copy { content, is_ours })
    })
}

/// Turns what a watch says into what `read` makes of it, and tries again when it fails.
pub(super) fn follow<K: Send + 'static, V: Send + 'static>(
    events: impl Stream<Item = watcher::Result<watcher::Event<K>>> + Send + 'static,
    read: impl Fn(K) -> V + Send + 'static,
) -> BoxStream<'static, watcher::Event<V>> {
    let events = events.backoff(pauses()).filter_map(move |event| {
        ready(match event {
            Ok(watcher::Event::Apply(object)) => Some(watcher::Event::Apply(read(object))),
            Ok(watcher::Event::Delete(object)) => Some(watcher::Event::Delete(read(object))),
            Ok(watcher::Event::Init) => Some(watcher::Event::Init),
            Ok(watcher::Event::InitApply(object)) => Some(watcher::Event::InitApply(read(object))),
            Ok(watcher::Event::InitDone) => Some(watcher::Event::InitDone),
            Err(error) => {
                warn!(%error, "cannot follow objects that are written; trying again");
                None
            }
        })
    });
    events.boxed()
}

/// Returns whether nothing is left to do.
async fn perform(client: &Client, Publication { name, key }: Publication, write: &Write) -> bool {
    let namespace = write.namespace();
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let request = async {
        match write {
            Write::Create { content, .. } => {
                let labels = BTreeMap::from([(LABEL.0.to_owned(), LABEL.1.to_owned())]);
                let map = ConfigMap {
                    metadata: ObjectMeta {
                        name: Some(name.to_owned()),
                        labels: Some(labels),
                        ..ObjectMeta::default()
                    },
                    data: Some(BTreeMap::from([(key.to_owned(), content.clone())])),
                    ..ConfigMap::default()
                };
                maps.create(&PostParams::default(), &map).await.map(drop)
            }
            Write::Change { content, .. } => {
                let patch = Patch::Merge(json!({ "data": { key: content } }));
                maps.patch(name, &PatchParams::default(), &patch).await.map(drop)
            }
            Write::Remove { .. } => maps.delete(name, &DeleteParams::default()).await.map(drop),
        }
    };
    match timeout(REQUEST_TIME, request).await {
        Ok(Ok(())) => {
            info!(namespace, name, "config map written");
            true
        }
        Ok(Err(error)) if is_settled(&error) => {
            debug!(namespace, name, %error, "config map not written");
            true
        }
        Ok(Err(error)) => {
            warn!(namespace, name, %error, "config map not written; trying again");
            false
        }
        Err(_) => {
            warn!(namespace, name, "the API server does not answer in time; trying again");
            false
        }
    }
}

/// Returns whether events say what is to be done now: the namespace or the config map is gone, or
/// somebody else has made one.
fn is_settled(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    [StatusCode::NOT_FOUND, StatusCode::CONFLICT].iter().any(|code| status.code == code.as_u16())
}
