//! What has to be computed anew after a change.

use std::collections::BTreeSet;

use super::{
    index::MultiMap,
    names,
    store::{Store, account_of, selector},
};
use crate::object::{
    AuthorizationPolicy, EndpointSlice, Gateway, Metadata, Object, ObjectKey, ObjectKind,
    ObjectName, Plain, Service, ServiceEntry,
};

/// Something that resources are computed from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Unit {
    /// An object.
    Object(ObjectKey),
    /// The policy that refuses plaintext, which exists once there is a peer authentication.
    StrictPolicy,
}

/// Collects what is affected by changes.
pub(super) struct Dirty<'a> {
    pub(super) store: &'a Store,
    /// Objects by the gateways that they depended on when they were computed.
    pub(super) gateway_users: &'a MultiMap<ObjectName, ObjectKey>,
    /// Namespace whose policies apply to the whole mesh.
    pub(super) root: &'a str,
    pub(super) units: &'a mut BTreeSet<Unit>,
}

// === impl Dirty ===

impl Dirty<'_> {
    /// Adds what depends on an object that is in the store, and that was or becomes `other`.
    pub(super) fn add(&mut self, object: &Object, other: Option<&Object>) {
        let key = object.key();
        match object {
            Object::Pod(_) | Object::WorkloadEntry(_) => self.unit(&key),
            Object::MeshConfig(_) => self.everything(),
            Object::Namespace(_) => self.namespace(&key.name.name),
            Object::Node(node) => {
                if other.is_none_or(|other| topology(node) != topology_of(other)) {
                    self.all(self.store.by_node.get(&key.name.name));
                }
            }
            Object::ServiceAccount(_) => self.all(self.store.by_account.get(&key.name)),
            Object::Gateway(gateway) => self.gateway(gateway),
            Object::Service(service) => self.service(&key, service),
            Object::ServiceEntry(entry) => self.service_entry(&key, entry),
            Object::EndpointSlice(slice) => self.slice(&key, slice),
            Object::AuthorizationPolicy(policy) => {
                self.unit(&key);
                let same_reach = matches!(
                    other,
                    Some(Object::AuthorizationPolicy(other)) if reach(policy) == reach(other)
                );
                if !same_reach {
                    self.selected_by_policy(object);
                }
            }
            Object::PeerAuthentication(_) => self.peer_authentication(object),
        }
    }

    /// Adds service entries whose virtual addresses changed.
    pub(super) fn moved(&mut self, entries: BTreeSet<ObjectName>) {
        for name in entries {
            self.unit(&ObjectKey { kind: ObjectKind::ServiceEntry, name });
        }
    }

    fn unit(&mut self, key: &ObjectKey) {
        self.units.insert(Unit::Object(key.clone()));
    }

    fn all<'k>(&mut self, keys: impl Iterator<Item = &'k ObjectKey>) {
        self.units.extend(keys.cloned().map(Unit::Object));
    }

    fn everything(&mut self) {
        self.all(self.store.keys());
        self.units.insert(Unit::StrictPolicy);
    }

    fn namespace(&mut self, name: &str) {
        self.all(self.store.workloads.of_namespace(name));
        self.all(self.store.services.get(name));
    }

    fn gateway(&mut self, gateway: &Gateway) {
        let name = &gateway.metadata.name;
        self.all(self.gateway_users.get(name));
        // A service of the gateway's name is its own, whether it knows or not.
        self.unit(&ObjectKey { kind: ObjectKind::Service, name: name.clone() });
        if let Some(account) = account_of(gateway) {
            self.all(self.store.by_account.get(&account));
        }
    }

    fn service(&mut self, key: &ObjectKey, service: &Service) {
        self.all(self.gateway_users.get(&key.name));
        for slice in self.store.slices_of_service.get(&key.name) {
            self.unit(slice);
            if service.selector.is_empty()
                && let Some(slice) = self.store.endpoint_slice(&slice.name)
            {
                self.pods_of(slice);
            }
        }
        self.claimants(&self.store.host_of(&key.name));
    }

    fn service_entry(&mut self, key: &ObjectKey, entry: &ServiceEntry) {
        self.unit(key);
        for host in &entry.spec.hosts {
            self.claimants(host);
        }
    }

    /// Adds all services of a host, as one of them may take it from another, with those selected.
    fn claimants(&mut self, host: &str) {
        for key in self.store.hosts.get(host) {
            self.unit(key);
            if let Some(service) = self.store.get(key) {
                let selector = selector(service);
                for workload in self.store.workloads.candidates(&key.name.namespace, &selector) {
                    if self.labels_match(workload, &selector) {
                        self.unit(workload);
                    }
                }
            }
        }
    }

    fn slice(&mut self, key: &ObjectKey, slice: &EndpointSlice) {
        self.unit(key);
        let service = slice.service().and_then(|name| self.store.service(&name));
        // With a selector, the pods know by themselves.
        if service.is_some_and(|service| service.selector.is_empty()) {
            self.pods_of(slice);
        }
    }

    fn pods_of(&mut self, slice: &EndpointSlice) {
        for name in slice.endpoints.iter().filter_map(|endpoint| endpoint.pod.clone()) {
            self.unit(&ObjectKey { kind: ObjectKind::Pod, name });
        }
    }

    fn peer_authentication(&mut self, object: &Object) {
        let key = object.key();
        let namespace = &key.name.namespace;
        self.unit(&key);
        self.units.insert(Unit::StrictPolicy);
        if !selector(object).is_empty() {
            self.selected_by_policy(object);
        } else if **namespace == *self.root {
            self.all(self.store.workloads.all());
            self.all(self.store.keys().filter(|key| key.kind == ObjectKind::PeerAuthentication));
        } else {
            self.all(self.store.workloads.of_namespace(namespace));
            self.all(self.store.peer_authentications.get(namespace));
        }
    }

    fn selected_by_policy(&mut self, object: &Object) {
        let selector = selector(object);
        let namespace = &object.metadata().name.namespace;
        if **namespace == *self.root {
            self.selected(self.store.workloads.candidates_anywhere(&selector), &selector);
        } else {
            self.selected(self.store.workloads.candidates(namespace, &selector), &selector);
        }
    }

    fn selected<'k>(
        &mut self,
        candidates: impl Iterator<Item = &'k ObjectKey>,
        selector: &crate::object::Labels,
    ) {
        for key in candidates {
            if self.labels_match(key, selector) {
                self.unit(key);
            }
        }
    }

    fn labels_match(&self, key: &ObjectKey, selector: &crate::object::Labels) -> bool {
        match self.store.get(key) {
            Some(Object::WorkloadEntry(entry)) => {
                super::store::entry_labels(entry).contains(selector)
            }
            Some(object) => object.metadata().labels.contains(selector),
            None => false,
        }
    }
}

/// Returns what decides which workloads a policy is named by.
fn reach(policy: &AuthorizationPolicy) -> impl PartialEq + '_ {
    let spec = &policy.spec;
    (&spec.selector, spec.action, spec.targets().next().is_some())
}

fn topology_of(object: &Object) -> [Option<&str>; 3] {
    topology_labels(object.metadata())
}

fn topology(node: &Plain) -> [Option<&str>; 3] {
    topology_labels(&node.metadata)
}

fn topology_labels(metadata: &Metadata) -> [Option<&str>; 3] {
    [names::REGION, names::ZONE, names::SUBZONE].map(|name| metadata.label(name))
}
