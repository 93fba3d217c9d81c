//! Conditions in the status of objects: what became of them in the mesh.
//!
//! A write depends on the version of the object that was judged, so that one that comes late, from
//! whoever led before, is refused. Nothing is remembered between leaders: what is different from
//! what it should be is written, whoever has left it so.

mod amend;
mod parents;
mod tries;

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use http::StatusCode;
use k8s_openapi::jiff::Timestamp;
use kube::{
    Client,
    api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, info, warn};

pub(super) use self::amend::amended;
use self::{
    amend::amended_all,
    parents::amended_parents,
    tries::{Outcome, Tries},
};
use crate::{
    feed::Standing,
    mesh::Condition,
    object::{ObjectKey, ObjectKind},
    source::kubernetes::Stamp,
};

/// Writes in a round: with one round a second, thousands of objects in a minute or two, and little
/// for an API server.
const WRITES_PER_ROUND: usize = 64;

/// Shortest time from one round to the next, so that an object whose condition goes back and forth
/// is not written all the time.
const ROUND: Duration = Duration::from_secs(1);

/// Writes at once.
const WRITES_AT_ONCE: usize = 8;

/// Time for the API server to answer.
const REQUEST_TIME: Duration = Duration::from_secs(30);

/// Pause after which what failed is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// Who writes, as API servers note it with fields.
pub(super) const MANAGER: &str = "fairlead-control";

/// A write that is due.
#[derive(Debug)]
struct Write {
    key: ObjectKey,
    /// The version of the object that it depends on.
    version: Box<str>,
    status: Value,
}

// === impl Write ===

impl Write {
    fn of(key: &ObjectKey, stamp: &Stamp, status: Value) -> Self {
        Self { key: key.clone(), version: stamp.version.clone(), status }
    }
}

/// Sees to it that the status of every object says what became of it. Never returns.
pub(super) async fn publish(client: &Client, mut standing: Standing) {
    let mut tries = Tries::default();
    let mut retry_at = Instant::now();
    loop {
        let begun = Instant::now();
        tries.forget(|key, version| standing.is_at(key, version));
        let due = due(&standing, &tries);
        let more = due.len() == WRITES_PER_ROUND;
        let writes = stream::iter(due).map(|write| async {
            let outcome = perform(client, &write).await;
            (write, outcome)
        });
        let mut writes = writes.buffer_unordered(WRITES_AT_ONCE);
        while let Some((Write { key, version, .. }, outcome)) = writes.next().await {
            if !tries.have_failed() {
                retry_at = Instant::now() + RETRY_PAUSE;
            }
            tries.add(key, version, outcome);
        }
        sleep_until(begun + ROUND).await;
        if !more {
            tokio::select! {
                changed = standing.changed() => if !changed { return },
                () = sleep_until(retry_at), if tries.have_failed() => {}
            }
        }
        if tries.have_failed() && retry_at <= Instant::now() {
            tries.retry();
        }
    }
}

/// Returns what is to be written now.
fn due(standing: &Standing, tries: &Tries) -> Vec<Write> {
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let mut due = standing.look(WRITES_PER_ROUND, |key, stamp, judgement| {
        if tries.have(key, &stamp.version) {
            return None;
        }
        let conditions = amended_all(Condition::all_of(key.kind), stamp, judgement, &now)?;
        Some(Write::of(key, stamp, json!({ "conditions": conditions })))
    });
    let most = WRITES_PER_ROUND - due.len();
    due.extend(standing.look_at_routes(most, |key, stamp, judgements| {
        if tries.have(key, &stamp.version) {
            return None;
        }
        let parents = amended_parents(stamp, judgements, &now)?;
        Some(Write::of(key, stamp, json!({ "parents": parents })))
    }));
    due
}

async fn perform(client: &Client, Write { key, version, status }: &Write) -> Outcome {
    let patch = Patch::Merge(json!({
        "metadata": { "resourceVersion": version },
        "status": status,
    }));
    let objects: Api<DynamicObject> =
        Api::namespaced_with(client.clone(), &key.name.namespace, &resource(key.kind));
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    let request = objects.patch_status(&key.name.name, &params, &patch);
    match timeout(REQUEST_TIME, request).await {
        Ok(Ok(_)) => {
            info!(object = %key, "status written");
            Outcome::Settled
        }
        Ok(Err(error)) if is_overtaken(&error) => {
            debug!(object = %key, %error, "status not written");
            Outcome::Settled
        }
        Ok(Err(error)) => {
            warn!(object = %key, %error, "status not written; trying again");
            Outcome::Failed
        }
        Err(_) => {
            warn!(object = %key, "the API server does not answer in time; trying again");
            Outcome::Failed
        }
    }
}

fn resource(kind: ObjectKind) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(kind.group(), kind.version(), kind.name()))
}

/// Returns whether the object is at another version, or gone.
fn is_overtaken(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    [StatusCode::NOT_FOUND, StatusCode::CONFLICT].iter().any(|code| status.code == code.as_u16())
}
