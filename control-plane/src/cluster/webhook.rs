//! Tells API servers by which roots to verify the admission webhook.

use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::ByteString;
use kube::{
    Client,
    api::{Api, ApiResource, DynamicObject, GroupVersionKind, PostParams},
    runtime::{WatchStreamExt as _, watcher::watch_object},
};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tracing::{info, warn};

use crate::source::kubernetes::pauses;

/// Time for the API server to answer.
const REQUEST_TIME: Duration = Duration::from_secs(30);

/// Pause after which what failed is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// Sees to it that every webhook of the configuration `name` is verified by what `roots` returns;
/// looks at it anew whenever `replaced` says so. Never returns.
pub(super) async fn publish_roots(
    client: &Client,
    name: &str,
    roots: impl Fn() -> String,
    mut replaced: watch::Receiver<()>,
) {
    let kind = "ValidatingWebhookConfiguration";
    // As it comes: fields that are not known here must not be lost.
    let gvk = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind);
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &ApiResource::from_gvk(&gvk));
    let mut versions = watch_object(api.clone(), name).backoff(pauses()).boxed();
    let params = PostParams::default();
    let mut current = None;
    let mut failed = false;
    loop {
        tokio::select! {
            version = versions.next() => match version {
                Some(Ok(version)) => current = version,
                Some(Err(error)) => warn!(%error, name, "cannot watch the webhook's configuration"),
                None => return,
            },
            changed = replaced.changed() => if changed.is_err() { return },
            () = sleep(RETRY_PAUSE), if failed => {}
        }
        let changed = current.clone().and_then(|mut configuration| {
            with_roots(&mut configuration.data, roots()).then_some(configuration)
        });
        let Some(configuration) = changed else { continue };
        let written = api.replace(name, &params, &configuration);
        failed = match timeout(REQUEST_TIME, written).await {
            Ok(Ok(_)) => {
                info!(name, "the webhook's roots are written");
                false
            }
            Ok(Err(error)) => {
                warn!(%error, name, "the webhook's roots are not written; trying again");
                true
            }
            Err(_) => true,
        };
    }
}

/// Puts the roots into every webhook; returns whether that changes anything.
fn with_roots(configuration: &mut Value, roots: String) -> bool {
    let bundle = json!(ByteString(roots.into_bytes()));
    let webhooks = configuration.get_mut("webhooks").and_then(Value::as_array_mut);
    let mut is_changed = false;
    for webhook in webhooks.into_iter().flatten() {
        let Some(client) = webhook.get_mut("clientConfig").and_then(Value::as_object_mut) else {
            continue;
        };
        if client.get("caBundle") != Some(&bundle) {
            client.insert("caBundle".to_owned(), bundle.clone());
            is_changed = true;
        }
    }
    is_changed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_roots_are_put_into_every_webhook_once() {
        let mut configuration = json!({ "webhooks": [
            { "name": "a", "clientConfig": { "service": { "name": "istiod" } }, "unknown": 1 },
            { "name": "b", "clientConfig": { "url": "https://localhost", "caBundle": "eA==" } },
        ]});
        assert!(with_roots(&mut configuration, "roots".to_owned()));
        let webhooks = &configuration["webhooks"];
        assert_eq!(webhooks[0]["clientConfig"]["caBundle"], "cm9vdHM=");
        assert_eq!(webhooks[1]["clientConfig"]["caBundle"], "cm9vdHM=");
        assert_eq!(webhooks[0]["unknown"], 1);
        assert!(!with_roots(&mut configuration, "roots".to_owned()));
        for odd in [json!(null), json!({ "webhooks": 1 }), json!({ "webhooks": [1, {}] })] {
            assert!(!with_roots(&mut odd.clone(), "roots".to_owned()), "{odd}");
        }
    }
}
