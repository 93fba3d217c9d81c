//! Waypoints for the gateways that ask for one: deployment, service and service account, and what
//! became of them in the status of the gateways.
//!
//! Gateways and what was made for them are followed; whatever is missing or different is written,
//! whoever has caused it. What was made is owned by its gateway, and so goes with it. An object of
//! the same name that was not made here is left alone.

mod class;
#[cfg(test)]
mod fixture;
mod gateway;
mod manifest;
mod merge;
mod parameters;
mod plan;
mod status;

use std::time::Duration;

use futures_util::{
    FutureExt as _, StreamExt as _,
    stream::{self, BoxStream},
};
use http::StatusCode;
use k8s_openapi::{
    api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::ObjectMeta, jiff::Timestamp,
};
use kube::{
    Client,
    api::{
        Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams,
        Preconditions,
    },
    runtime::watcher::{self, watcher},
};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

pub use self::manifest::Settings;
use self::{
    class::Class,
    gateway::Gateway,
    manifest::{MANAGED, Part},
    parameters::Parameters,
    plan::{Event, Outcome, Plan, Write, owner, read_made},
};
use super::{publish::follow, status::MANAGER};
use crate::{mesh::WAYPOINT_CLASS, object::ObjectName};

/// Writes at once: what a few hundred waypoints need in a minute, and few for an API server.
const WRITES_AT_ONCE: usize = 8;

/// Time for the API server to answer.
const REQUEST_TIME: Duration = Duration::from_secs(30);

/// Pause after which what failed is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// Group of the Gateway API.
const GATEWAY_API: &str = "gateway.networking.k8s.io";

/// Sees to it that every gateway of the waypoints' class has its waypoint. Never returns.
pub(super) async fn deploy(client: &Client, settings: &Settings) {
    let mut events = stream::select_all(
        [classes(client), gateways(client), parameters(client)]
            .into_iter()
            .chain(Part::ALL.map(|part| made(client, part))),
    );
    let mut plan = Plan::new(settings.clone());
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(event) => plan.take(event),
                None => return,
            },
            () = sleep(RETRY_PAUSE), if plan.has_failed() => plan.retry(),
        }
        // Whatever is there already is part of what is compared.
        while let Some(Some(event)) = events.next().now_or_never() {
            plan.take(event);
        }
        loop {
            let due = plan.due(&now());
            if due.is_empty() {
                break;
            }
            let writes = stream::iter(due).map(|write| async {
                let outcome = perform(client, &write).await;
                (write, outcome)
            });
            let mut writes = writes.buffered(WRITES_AT_ONCE);
            while let Some((write, outcome)) = writes.next().await {
                plan.done(write, outcome);
            }
        }
    }
}

/// Returns the time as the API writes it, to the second.
fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn resource(group: &str, kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind))
}

fn resource_of(part: Part) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(part.group(), part.version(), part.kind()))
}

fn classes(client: &Client) -> BoxStream<'static, Event> {
    let api: Api<DynamicObject> =
        Api::all_with(client.clone(), &resource(GATEWAY_API, "GatewayClass"));
    let config = watcher::Config::default().fields(&format!("metadata.name={WAYPOINT_CLASS}"));
    let read = |class: DynamicObject| (WAYPOINT_CLASS.to_owned(), Class::read(&class));
    follow(watcher(api, config), read).map(Event::Class).boxed()
}

fn gateways(client: &Client) -> BoxStream<'static, Event> {
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource(GATEWAY_API, "Gateway"));
    let read = |gateway: DynamicObject| (name(&gateway), Gateway::read(gateway).map(Box::new));
    follow(watcher(api, watcher::Config::default()), read).map(Event::Gateway).boxed()
}

/// Follows all config maps, as any of them may be referred to; little is kept of others.
fn parameters(client: &Client) -> BoxStream<'static, Event> {
    let api: Api<ConfigMap> = Api::all(client.clone());
    let read = |map: ConfigMap| {
        let ObjectMeta { namespace, name, .. } = &map.metadata;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        (ObjectName::new(text(namespace), text(name)), Parameters::read(map))
    };
    follow(watcher(api, watcher::Config::default()), read).map(Event::Parameters).boxed()
}

/// Follows what was made here, by its label.
fn made(client: &Client, part: Part) -> BoxStream<'static, Event> {
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource_of(part));
    let (label, value) = MANAGED;
    let config = watcher::Config::default().labels(&format!("{label}={value}"));
    follow(watcher(api, config), read_made).map(move |event| Event::Part(part, event)).boxed()
}

fn name(object: &DynamicObject) -> ObjectName {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    ObjectName::new(text(&object.metadata.namespace), text(&object.metadata.name))
}

async fn perform(client: &Client, write: &Write) -> Outcome {
    let done = timeout(REQUEST_TIME, request(client, write)).await;
    match done {
        Ok(Ok(Outcome::Foreign)) => {
            warn!(%write, "not written: there is one that was not made here");
            Outcome::Foreign
        }
        Ok(Ok(outcome)) => {
            info!(%write, "written");
            outcome
        }
        Ok(Err(error)) => judge(write, &error),
        Err(_) => {
            warn!(%write, "the API server does not answer in time; trying again");
            Outcome::Failed
        }
    }
}

async fn request(client: &Client, write: &Write) -> Result<Outcome, kube::Error> {
    match write {
        Write::Class => {
            let classes = Api::all_with(client.clone(), &resource(GATEWAY_API, "GatewayClass"));
            apply(&classes, WAYPOINT_CLASS, &Class::wanted()).await
        }
        Write::ClassStatus(patch) => {
            let classes = Api::all_with(client.clone(), &resource(GATEWAY_API, "GatewayClass"));
            tell(&classes, WAYPOINT_CLASS, patch).await
        }
        Write::Part { gateway, owner, part, object, is_there } => {
            let resource = resource_of(*part);
            let objects = Api::namespaced_with(client.clone(), &gateway.namespace, &resource);
            make(&objects, object, owner, *is_there).await
        }
        Write::Remove { part, name, uid, .. } => {
            let resource = resource_of(*part);
            let objects: Api<DynamicObject> =
                Api::namespaced_with(client.clone(), &name.namespace, &resource);
            let only = Preconditions { uid: Some(uid.clone()), ..Preconditions::default() };
            objects.delete(&name.name, &DeleteParams::default().preconditions(only)).await?;
            Ok(Outcome::Done(Box::default()))
        }
        Write::Status { gateway, version, status } => {
            let resource = resource(GATEWAY_API, "Gateway");
            let gateways = Api::namespaced_with(client.clone(), &gateway.namespace, &resource);
            let patch = json!({ "metadata": { "resourceVersion": version }, "status": status });
            tell(&gateways, &gateway.name, &patch).await
        }
    }
}

/// Makes an object, or puts it right, unless there is one that was not made here.
async fn make(
    objects: &Api<DynamicObject>,
    object: &Value,
    owner_uid: &str,
    is_there: bool,
) -> Result<Outcome, kube::Error> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    if !is_there && let Some(found) = objects.get_opt(name).await? {
        let (label, value) = MANAGED;
        let labels = found.metadata.labels.iter().flatten();
        let is_managed = labels.into_iter().any(|(name, own)| name == label && own == value);
        let (_, found) = read_made(found);
        let is_own = owner(&found.object).map_or(is_managed, |owner| owner == owner_uid);
        if !is_own {
            return Ok(Outcome::Foreign);
        }
    }
    apply(objects, name, object).await
}

/// Applies an object: what it says holds from here on, whoever said otherwise.
async fn apply(
    objects: &Api<DynamicObject>,
    name: &str,
    object: &Value,
) -> Result<Outcome, kube::Error> {
    let params = PatchParams::apply(MANAGER).force();
    let applied = objects.patch(name, &params, &Patch::Apply(object)).await?;
    Ok(Outcome::Done(applied.metadata.resource_version.unwrap_or_default().into()))
}

/// Changes the status of an object.
async fn tell(
    objects: &Api<DynamicObject>,
    name: &str,
    patch: &Value,
) -> Result<Outcome, kube::Error> {
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    let told = objects.patch_status(name, &params, &Patch::Merge(patch)).await?;
    Ok(Outcome::Done(told.metadata.resource_version.unwrap_or_default().into()))
}

/// Returns what it means that a write is refused.
fn judge(write: &Write, error: &kube::Error) -> Outcome {
    let refusal = if let kube::Error::Api(status) = error {
        StatusCode::from_u16(status.code).ok().zip(Some(status))
    } else {
        None
    };
    match refusal {
        Some((StatusCode::NOT_FOUND | StatusCode::CONFLICT, _)) => {
            debug!(%write, %error, "not written");
            Outcome::Overtaken
        }
        Some((code, status)) if code.is_client_error() && code != StatusCode::TOO_MANY_REQUESTS => {
            warn!(%write, %error, "not written; trying again");
            Outcome::Refused(status.message.clone())
        }
        Some(_) | None => {
            warn!(%write, %error, "not written; trying again");
            Outcome::Failed
        }
    }
}
