//! A Kubernetes API server for a node, and processes like those of its pods' containers.

use std::{fs, io::ErrorKind, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use fairlead_kube_api::{ApiServer, Faults};
use fairlead_lab::{Child, Host as _, Lab, Pod, cgroup_root, wait_for};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::SOON;

/// Annotation by which a node agent reports that it captures a pod's traffic.
const REDIRECTION: &str = "ambient.istio.io/redirection";

/// Label that opts in or out.
pub(crate) const MODE: &str = "istio.io/dataplane-mode";

/// An API server in the network namespace of a node.
pub(crate) struct Cluster {
    server: ApiServer,
    _runtime: Runtime,
}

/// A process of a pod, in a control group as the kubelet names it.
pub(crate) struct Container {
    process: Child,
    /// From the innermost to the outermost.
    groups: Vec<PathBuf>,
}

// === impl Cluster ===

impl Cluster {
    /// Starts with the namespace `shop`, for the agents of node 1.
    pub(crate) fn start(lab: &Lab) -> Result<Self> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let server = lab.node(1).netns().enter(|| runtime.block_on(ApiServer::start()))?;
        let cluster = Self { server, _runtime: runtime };
        cluster.label_namespace(None)?;
        Ok(cluster)
    }

    pub(crate) fn url(&self) -> String {
        self.server.url()
    }

    /// Opts the namespace `shop` in or out.
    pub(crate) fn label_namespace(&self, mode: Option<&str>) -> Result<()> {
        let labels = mode.map(|mode| json!({ MODE: mode }));
        let metadata = json!({ "name": "shop", "labels": labels });
        let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": metadata });
        self.server.apply(&namespace).map(drop)
    }

    /// Creates or changes the pod; returns its uid.
    pub(crate) fn apply(&self, pod: &Pod, mode: Option<&str>, phase: &str) -> Result<String> {
        let mut object = name_of(pod);
        let known = self.server.get(&object)?.map(Value::Object).unwrap_or_default();
        object["metadata"]["labels"] = mode.map(|mode| json!({ MODE: mode })).into();
        object["metadata"]["annotations"] = known["metadata"]["annotations"].clone();
        object["spec"] = json!({
            "nodeName": pod.node(),
            "serviceAccountName": pod.service_account(),
            "containers": [],
        });
        let addresses = [json!({ "ip": pod.ipv4() }), json!({ "ip": pod.ipv6() })];
        object["status"] = json!({ "phase": phase, "podIPs": addresses });
        let stored = Value::Object(self.server.apply(&object)?);
        Ok(stored["metadata"]["uid"].as_str().context("no uid")?.to_owned())
    }

    pub(crate) fn delete(&self, pod: &Pod) -> Result<()> {
        self.server.delete(&name_of(pod))
    }

    /// Returns what is reported of the pod.
    pub(crate) fn redirection(&self, pod: &Pod) -> Result<Option<String>> {
        let stored = self.server.get(&name_of(pod))?.map(Value::Object).unwrap_or_default();
        Ok(stored["metadata"]["annotations"][REDIRECTION].as_str().map(str::to_owned))
    }

    pub(crate) fn wait_for_redirection(&self, pod: &Pod, expected: Option<&str>) -> Result<()> {
        wait_for(&format!("{REDIRECTION} of {}: {expected:?}", pod.name()), SOON, || {
            Ok((self.redirection(pod)?.as_deref() == expected).then_some(()))
        })
        .with_context(|| format!("{:?}", self.redirection(pod)))
    }

    /// Ends all conversations and holds no other until [`Self::come_back`].
    pub(crate) fn go_away(&self) {
        self.server.set_faults(Faults { refuse: u32::MAX, ..Faults::default() });
        self.server.drop_watches();
    }

    /// Answers again, late, and without memory of what happened.
    pub(crate) fn come_back(&self) {
        self.server.compact();
        self.server.set_faults(Faults { delay: Duration::from_millis(200), ..Faults::default() });
    }
}

fn name_of(pod: &Pod) -> Value {
    let metadata = json!({ "namespace": pod.namespace(), "name": pod.name() });
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata })
}

// === impl Container ===

impl Container {
    /// Starts a process in the network of `pod`, in the control group of the pod `uid` by the names
    /// that the kubelet gives when it manages them itself.
    pub(crate) fn start(lab: &Lab, pod: &Pod, uid: &str) -> Result<Self> {
        Self::start_in(lab, pod, &format!("pod{uid}"))
    }

    /// The same where systemd manages them.
    pub(crate) fn start_with_systemd(lab: &Lab, pod: &Pod, uid: &str) -> Result<Self> {
        let group = format!("kubepods-besteffort-pod{}.slice", uid.replace('-', "_"));
        Self::start_in(lab, pod, &group)
    }

    fn start_in(lab: &Lab, pod: &Pod, group: &str) -> Result<Self> {
        let process = pod.spawn(["sleep", "infinity"])?;
        let root = cgroup_root()?.join(format!("{}-kubepods", lab.id()));
        let pods_group = root.join(group);
        let own = pods_group.join(process.pid().to_string());
        fs::create_dir_all(&own).with_context(|| format!("cannot make {}", own.display()))?;
        fs::write(own.join("cgroup.procs"), process.pid().to_string())?;
        Ok(Self { process, groups: vec![own, pods_group, root] })
    }

    /// Returns where the network namespace of the process is.
    pub(crate) fn netns(&self) -> String {
        format!("/proc/{}/ns/net", self.process.pid())
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // Nobody is left to tell.
        let _ = self.process.kill();
        for group in &self.groups {
            // The group of an ended process is free a moment later; that of others is theirs.
            let _ = wait_for("an empty control group", SOON, || match fs::remove_dir(group) {
                Err(error) if error.kind() == ErrorKind::ResourceBusy => {
                    let others = fs::read_to_string(group.join("cgroup.procs"))?;
                    let below = fs::read_dir(group)?.flatten();
                    let is_used = below.into_iter().any(|entry| entry.path().is_dir());
                    Ok((is_used || !others.is_empty()).then_some(()))
                }
                Ok(()) | Err(_) => Ok(Some(())),
            });
        }
    }
}
