//! Gateways of waypoints that are provided: made where they are needed, and removed where they are
//! not any more.

mod surplus;

use std::time::Duration;

use http::StatusCode;
use kube::{
    Client,
    api::{
        Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, PostParams, Preconditions,
    },
};
use serde_json::json;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

use self::surplus::Surplus;
use super::status::MANAGER;
use crate::{
    feed::Standing,
    mesh::{PROVIDED_LABEL, Provision, WAYPOINT_CLASS},
    object::ObjectName,
};

/// Shortest time from one look to the next.
const ROUND: Duration = Duration::from_secs(1);

/// Time for which a waypoint is kept that is needed no more: objects are replaced by removing them
/// and making others.
const LINGER: Duration = Duration::from_secs(10);

/// Time for the API server to answer.
const REQUEST_TIME: Duration = Duration::from_secs(30);

/// Pause after which what failed is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// Sees to it that there are the waypoints that are needed. Never returns.
pub(super) async fn provide(client: &Client, mut standing: Standing) {
    let mut surplus = Surplus::new(LINGER);
    loop {
        let begun = Instant::now();
        let Provision { missing, surplus: unneeded } = standing.provision();
        let due = surplus.due(unneeded, begun);
        let mut has_failed = false;
        for name in &missing {
            has_failed |= !settled("made", name, make(client, name)).await;
        }
        for name in &due {
            has_failed |= !settled("removed", name, remove(client, name)).await;
        }
        sleep_until(begun + ROUND).await;
        let retry = has_failed.then(|| Instant::now() + RETRY_PAUSE);
        let next = [retry, surplus.next(begun)].into_iter().flatten().min();
        tokio::select! {
            changed = standing.changed() => if !changed { return },
            () = sleep_until(next.unwrap_or(begun)), if next.is_some() => {}
        }
    }
}

fn gateways(client: &Client, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), namespace, &resource())
}

fn resource() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "Gateway"))
}

async fn make(client: &Client, name: &ObjectName) -> Result<(), kube::Error> {
    let mut gateway = DynamicObject::new(&name.name, &resource()).within(&name.namespace);
    gateway.metadata.labels =
        Some([(PROVIDED_LABEL.to_owned(), "true".to_owned())].into_iter().collect());
    gateway.data = json!({ "spec": {
        "gatewayClassName": WAYPOINT_CLASS,
        "listeners": [{ "name": "mesh", "port": 15008, "protocol": "HBONE" }],
    }});
    let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
    gateways(client, &name.namespace).create(&params, &gateway).await.map(drop)
}

/// Removes a gateway, unless somebody has made it his own meanwhile.
async fn remove(client: &Client, name: &ObjectName) -> Result<(), kube::Error> {
    let gateways = gateways(client, &name.namespace);
    let Some(gateway) = gateways.get_opt(&name.name).await? else { return Ok(()) };
    let metadata = gateway.metadata;
    if metadata.labels.is_none_or(|labels| !labels.contains_key(PROVIDED_LABEL)) {
        return Ok(());
    }
    let preconditions =
        Preconditions { resource_version: metadata.resource_version, uid: metadata.uid };
    let params = DeleteParams::default().preconditions(preconditions);
    gateways.delete(&name.name, &params).await.map(drop)
}

/// Returns whether events say what is to be done next.
async fn settled(
    what: &str,
    gateway: &ObjectName,
    request: impl Future<Output = Result<(), kube::Error>>,
) -> bool {
    match timeout(REQUEST_TIME, request).await {
        Ok(Ok(())) => {
            info!(%gateway, "the gateway of a waypoint is {what}");
            true
        }
        Ok(Err(kube::Error::Api(status))) if status.code == StatusCode::CONFLICT.as_u16() => false,
        Ok(Err(error)) => {
            warn!(%gateway, %error, "the gateway of a waypoint is not {what}; trying again");
            false
        }
        Err(_) => {
            warn!(%gateway, "the API server does not answer in time; trying again");
            false
        }
    }
}
