//! What results depend on beside their own object, and who depends on what.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use super::index::{MultiMap, Op};
use crate::object::{ObjectKey, ObjectName};

/// What a result depends on, noted while it is computed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Dependencies {
    /// Gateways, whether they exist or not.
    pub(super) gateways: BTreeSet<ObjectName>,
    /// Host names, whether there are services of that name or not.
    pub(super) hosts: BTreeSet<Arc<str>>,
    /// Services that waypoints are sent to.
    pub(super) uses: BTreeSet<(Use, ObjectName)>,
    /// Labels of clients, whoever they are.
    pub(super) client_labels: bool,
    /// Secrets that waypoints need, whether they exist or not.
    pub(super) credentials: BTreeSet<ObjectName>,
}

/// A service as the waypoints of a namespace use it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Use {
    /// Namespace of the waypoints.
    pub(super) consumer: Arc<str>,
    /// Namespace of the service.
    pub(super) namespace: Arc<str>,
    /// Its host name.
    pub(super) hostname: Arc<str>,
}

/// Who depends on what.
#[derive(Debug, Default)]
pub(super) struct Dependents {
    /// Objects by gateway.
    pub(super) of_gateway: MultiMap<ObjectName, ObjectKey>,
    /// Objects by host name.
    pub(super) of_host: MultiMap<Arc<str>, ObjectKey>,
    /// Uses of services, by host name.
    pub(super) uses: MultiMap<Arc<str>, Use>,
    /// Uses of services by a secret that they need.
    of_credential: MultiMap<ObjectName, Use>,
    /// How many uses there are of services of a namespace.
    reached: HashMap<Arc<str>, usize>,
    /// How many objects depend on the labels of clients.
    of_client_labels: usize,
    /// Waypoints of each use, with how many objects it is because of.
    waypoints: HashMap<Use, BTreeMap<ObjectName, usize>>,
}

/// What depends on a result that is different from before.
#[derive(Debug, Default)]
pub(super) struct Moved {
    /// Uses of services that come or go.
    pub(super) uses: BTreeSet<Use>,
    /// Namespaces whose workloads' labels waypoints begin or cease to look at.
    pub(super) labels: Namespaces,
    /// Secrets that waypoints begin or cease to need, or others than before do.
    pub(super) credentials: BTreeSet<ObjectName>,
}

/// Some of the namespaces, or all that there are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Namespaces {
    Some(BTreeSet<Arc<str>>),
    All,
}

// === impl Dependencies ===

impl Dependencies {
    /// Adds what something else depends on.
    pub(super) fn add(&mut self, other: &Self) {
        let Self { gateways, hosts, uses, client_labels, credentials } = other;
        self.gateways.extend(gateways.iter().cloned());
        self.hosts.extend(hosts.iter().cloned());
        self.uses.extend(uses.iter().cloned());
        self.client_labels |= client_labels;
        self.credentials.extend(credentials.iter().cloned());
    }
}

// === impl Namespaces ===

impl Default for Namespaces {
    fn default() -> Self {
        Self::Some(BTreeSet::new())
    }
}

// === impl Dependents ===

impl Dependents {
    /// Adds what an object depends on, or takes it away.
    pub(super) fn apply(&mut self, op: Op, on: &Dependencies, object: &ObjectKey) {
        for gateway in &on.gateways {
            self.of_gateway.apply(op, gateway.clone(), object.clone());
        }
        for host in &on.hosts {
            self.of_host.apply(op, host.clone(), object.clone());
        }
        for (used, waypoint) in &on.uses {
            self.apply_use(op, used, waypoint);
        }
        if on.client_labels {
            match op {
                Op::Insert => self.of_client_labels += 1,
                Op::Remove => self.of_client_labels -= 1,
            }
        }
    }

    /// Adds the secrets that a use of a service needs, or takes them away.
    pub(super) fn apply_credentials(&mut self, op: Op, on: &Dependencies, used: &Use) {
        for secret in &on.credentials {
            self.of_credential.apply(op, secret.clone(), used.clone());
        }
    }

    /// Returns the waypoints that need a secret.
    pub(super) fn waypoints_with(&self, secret: &ObjectName) -> BTreeSet<&ObjectName> {
        self.of_credential.get(secret).flat_map(|used| self.waypoints(used)).collect()
    }

    /// Returns the secrets that waypoints of a namespace need.
    pub(super) fn credentials_of(&self, namespace: &str) -> impl Iterator<Item = &ObjectName> {
        self.of_credential.keys().filter(move |secret| *secret.namespace == *namespace)
    }

    /// Returns the waypoints that use a service.
    pub(super) fn waypoints(&self, used: &Use) -> impl Iterator<Item = &ObjectName> {
        self.waypoints.get(used).into_iter().flat_map(BTreeMap::keys)
    }

    /// Returns whether waypoints look at the labels of a namespace's workloads: one sends traffic to
    /// its services, or knows its clients by theirs.
    pub(super) fn need_labels_of(&self, namespace: &str) -> bool {
        self.need_all_labels() || self.reached.contains_key(namespace)
    }

    /// Returns whether waypoints look at the labels of all workloads.
    pub(super) fn need_all_labels(&self) -> bool {
        self.of_client_labels > 0
    }

    /// Returns every use of a service.
    pub(super) fn all_uses(&self) -> impl Iterator<Item = &Use> {
        self.waypoints.keys()
    }

    fn apply_use(&mut self, op: Op, used: &Use, waypoint: &ObjectName) {
        match op {
            Op::Insert => {
                if !self.waypoints.contains_key(used) {
                    *self.reached.entry(used.namespace.clone()).or_default() += 1;
                }
                let waypoints = self.waypoints.entry(used.clone()).or_default();
                *waypoints.entry(waypoint.clone()).or_default() += 1;
                self.uses.apply(op, used.hostname.clone(), used.clone());
            }
            Op::Remove => {
                let Some(waypoints) = self.waypoints.get_mut(used) else { return };
                if let Some(count) = waypoints.get_mut(waypoint) {
                    *count -= 1;
                    if *count == 0 {
                        waypoints.remove(waypoint);
                    }
                }
                if waypoints.is_empty() {
                    self.waypoints.remove(used);
                    self.uses.apply(op, used.hostname.clone(), used.clone());
                    self.leave(&used.namespace);
                }
            }
        }
    }

    fn leave(&mut self, namespace: &Arc<str>) {
        if let Some(count) = self.reached.get_mut(namespace) {
            *count -= 1;
            if *count == 0 {
                self.reached.remove(namespace);
            }
        }
    }
}
