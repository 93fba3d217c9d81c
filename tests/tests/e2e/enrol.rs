//! Who decides which pods are in the mesh: the control plane, or the Kubernetes API.

mod cluster;
mod control_plane;
mod kubernetes;

use std::time::Duration;

use anyhow::{Context as _, Result};
use fairlead_lab::{FairleadNode, wait_for};
use serde_json::Value;

/// Generous for what takes milliseconds on an idle machine.
const SOON: Duration = Duration::from_secs(20);

/// Waits until a proxy lists a pod in this state, and returns what it says of it.
fn wait_for_state(node: &FairleadNode, pod: &str, state: &str) -> Result<Value> {
    wait_for(&format!("{pod} is {state}"), SOON, || {
        // While capture is being replaced nobody answers.
        Ok(listed(node, pod).ok().flatten().filter(|found| found["state"] == state))
    })
    .with_context(|| format!("{:?}\n{}", listed(node, pod), node.complaints()))
}

/// Waits until a proxy lists a pod no more.
fn wait_until_unlisted(node: &FairleadNode, pod: &str) -> Result<()> {
    wait_for(&format!("{pod} is not listed"), SOON, || {
        Ok(listed(node, pod)?.is_none().then_some(()))
    })
    .with_context(|| node.complaints())
}

/// Returns what a proxy says of a pod.
fn listed(node: &FairleadNode, pod: &str) -> Result<Option<Value>> {
    let list = node.pod_command(&["list", "-o", "json"])?.checked()?.stdout;
    let pods: Vec<Value> = serde_json::from_str(&list).context(list)?;
    let name =
        |pod: &Value| Some(format!("{}/{}", pod["namespace"].as_str()?, pod["name"].as_str()?));
    Ok(pods.into_iter().find(|found| name(found).as_deref() == Some(pod)))
}
