//! The pods of this node, and all namespaces, as the Kubernetes API has them. Pure.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    net::IpAddr,
};

use kube::runtime::watcher::Event as WatchEvent;
use mesh_api::{
    enrolment::Candidate,
    identity::{Namespace, ServiceAccount},
};

use super::wanted::{Authority, Fate, Mark, Redirection, Wanted};
use crate::api::{PodKey, PodName, PodSpec};

/// A pod of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SeenPod {
    pub(super) namespace: Namespace,
    pub(super) name: PodName,
    pub(super) uid: String,
    pub(super) service_account: ServiceAccount,
    pub(super) addresses: Vec<IpAddr>,
    /// Label that opts it in or out.
    pub(super) mode: Option<String>,
    /// Label by which it declines a sidecar.
    pub(super) inject: Option<String>,
    pub(super) has_sidecar: bool,
    /// Whether it lives in the node's network.
    pub(super) host_network: bool,
    /// Whether all its containers have ended for good.
    pub(super) has_ended: bool,
    /// What is reported of it.
    pub(super) mark: Option<Redirection>,
}

/// A namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SeenNamespace {
    pub(super) name: String,
    /// Label that opts its pods in or out.
    pub(super) mode: Option<String>,
    /// Label of namespaces whose pods are given a sidecar.
    pub(super) injection: Option<String>,
}

/// What the API server says.
#[derive(Debug)]
pub(super) enum ClusterEvent {
    Pod(WatchEvent<SeenPod>),
    Namespace(WatchEvent<SeenNamespace>),
}

/// What is known of the cluster.
#[derive(Debug, Default)]
pub(super) struct Cluster {
    pods: Collection<PodKey, SeenPod>,
    namespaces: Collection<String, SeenNamespace>,
}

/// The objects of a kind.
#[derive(Debug)]
struct Collection<K, T> {
    known: HashMap<K, T>,
    /// What a list in progress has brought; until it is whole the one before counts.
    listed: HashMap<K, T>,
    is_whole: bool,
}

// === impl Cluster ===

impl Cluster {
    /// Returns what is to become of a pod that has not ended; nothing if it is none of ours.
    fn fate(&self, pod: &SeenPod) -> Option<Fate> {
        let namespace = self.namespaces.known.get(pod.namespace.as_str());
        let candidate = Candidate {
            namespace: pod.namespace.as_str(),
            namespace_mode: namespace.and_then(|namespace| namespace.mode.as_deref()),
            namespace_injection: namespace.and_then(|namespace| namespace.injection.as_deref()),
            mode: pod.mode.as_deref(),
            inject: pod.inject.as_deref(),
            host_network: pod.host_network,
            has_sidecar: pod.has_sidecar,
        };
        let later =
            |reason: &str| Some(Fate::Later { uid: pod.uid.clone(), reason: reason.to_owned() });
        if candidate.takes_part() {
            return if pod.addresses.is_empty() {
                later("it has no address yet")
            } else {
                Some(Fate::In(pod.spec()))
            };
        }
        let elsewhere = Candidate { host_network: false, ..candidate };
        if elsewhere.takes_part() {
            let reason = "it is opted in, but lives in the node's network (hostNetwork), where its \
                          connections cannot be told from others: no mesh for it";
            return Some(Fate::Out { reason: reason.to_owned() });
        }
        // The two kinds of objects come separately: what is not known yet takes nothing back.
        if namespace.is_none() && pod.mode.is_none() {
            return later("its namespace is not known yet");
        }
        None
    }
}

impl Authority for Cluster {
    type Event = ClusterEvent;

    fn take(&mut self, event: ClusterEvent) {
        match event {
            ClusterEvent::Pod(event) => self.pods.take(event, SeenPod::key),
            ClusterEvent::Namespace(event) => {
                self.namespaces.take(event, |namespace| namespace.name.clone());
            }
        }
    }

    fn wanted(&self, _: &[PodSpec]) -> Option<Wanted> {
        if !self.pods.is_whole || !self.namespaces.is_whole {
            return None;
        }
        let mut wanted = Wanted { pods: BTreeMap::new(), marks: BTreeMap::new() };
        for (key, pod) in self.pods.known.iter().filter(|(_, pod)| !pod.has_ended) {
            let mark = Mark { uid: pod.uid.clone(), value: pod.mark };
            wanted.marks.insert(key.clone(), mark);
            wanted.pods.extend(self.fate(pod).map(|fate| (key.clone(), fate)));
        }
        Some(wanted)
    }

    fn marked(&mut self, key: &PodKey, mark: Mark) {
        if let Some(pod) = self.pods.known.get_mut(key).filter(|pod| pod.uid == mark.uid) {
            pod.mark = mark.value;
        }
    }
}

// === impl SeenPod ===

impl SeenPod {
    fn key(&self) -> PodKey {
        PodKey { namespace: self.namespace.clone(), name: self.name.clone() }
    }

    fn spec(&self) -> PodSpec {
        PodSpec {
            uid: Some(self.uid.clone()),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            service_account: self.service_account.clone(),
            netns: None,
            addresses: self.addresses.clone(),
        }
    }
}

// === impl Collection ===

impl<K, T> Default for Collection<K, T> {
    fn default() -> Self {
        Self { known: HashMap::new(), listed: HashMap::new(), is_whole: false }
    }
}

impl<K: Eq + Hash, T> Collection<K, T> {
    fn take(&mut self, event: WatchEvent<T>, key: impl Fn(&T) -> K) {
        match event {
            WatchEvent::Init => self.listed.clear(),
            WatchEvent::InitApply(object) => drop(self.listed.insert(key(&object), object)),
            WatchEvent::InitDone => {
                self.known = std::mem::take(&mut self.listed);
                self.is_whole = true;
            }
            WatchEvent::Apply(object) => drop(self.known.insert(key(&object), object)),
            WatchEvent::Delete(object) => drop(self.known.remove(&key(&object))),
        }
    }
}

#[cfg(test)]
mod tests;
