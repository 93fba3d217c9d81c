//! What a scenario is played on.

use super::report::Report;
use crate::workspace;
use anyhow::Result;
use fairlead_lab::{Node, Pod};
use std::fs;

/// One step of a scenario.
pub(super) struct Scene<S: 'static> {
    pub(super) title: &'static str,
    pub(super) play: fn(&mut S, &Report) -> Result<()>,
}

/// A mesh, and what is shown on it.
pub(super) trait Stage: Sized + 'static {
    const SCENES: &'static [Scene<Self>];

    /// Starts everything.
    fn start() -> Result<Self>;

    /// Returns each node with what is on it, as text.
    fn inventory(&self) -> Vec<(String, Vec<String>)>;

    /// Returns what its programs logged, by their names.
    fn logs(&self) -> Result<Vec<(&'static str, String)>>;

    /// Returns commands to try, with a word on each.
    fn hints(&self) -> Vec<(&'static str, String)>;

    /// Leaves everything running.
    fn keep(self);
}

/// Copies logs to where they outlive the lab, and returns the place.
pub(super) fn save_logs(stage: &impl Stage) -> Result<String> {
    let pattern = workspace::target("xtask/demo-*.log");
    for (name, log) in stage.logs()? {
        fs::write(pattern.with_file_name(format!("demo-{name}.log")), log)?;
    }
    Ok(pattern.display().to_string())
}

/// Describes a node.
pub(super) fn node(node: &Node) -> String {
    format!("node {}   {}   {}", node.name(), node.ipv4(), node.ipv6())
}

/// Describes a pod, with a remark.
pub(super) fn pod(pod: &Pod, remark: &str) -> String {
    let (name, namespace, account) = (pod.name(), pod.namespace(), pod.service_account());
    let (v4, v6) = (pod.ipv4(), pod.ipv6());
    format!("pod {name:14} {v4:9} {v6:9} {namespace}/{account}   {remark}").trim_end().to_owned()
}
