//! What has to be computed anew after a change.

use std::collections::BTreeSet;

use super::{
    dependency::{Dependents, Use},
    names,
    store::{Store, account_of, covering, parent_key, parents_of, selector},
    waypoint::service_of,
};
use crate::object::{
    AuthorizationPolicy, EndpointSlice, Gateway, Metadata, Object, ObjectKey, ObjectKind,
    ObjectName, Plain, ReferenceGrant, Service, ServiceEntry, VirtualService,
};

/// Something that resources are computed from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Unit {
    /// An object.
    Object(ObjectKey),
    /// The policy that refuses plaintext, which exists once there is a peer authentication.
    StrictPolicy,
    /// The labels of the workloads of an object; after the object.
    Labels(ObjectKey),
    /// How a service is used by the waypoints of a namespace; after the objects that say so.
    Destination(Use),
    /// What a secret has for TLS with endpoints; after what says who needs it.
    Credential(ObjectName),
}

/// Collects what is affected by changes.
pub(super) struct Dirty<'a> {
    pub(super) store: &'a Store,
    /// Who depended on what when it was computed.
    pub(super) dependents: &'a Dependents,
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
            Object::Pod(pod) => {
                self.unit(&key);
                self.waypoint_pod(&pod.metadata);
            }
            Object::WorkloadEntry(_) => self.unit(&key),
            Object::MeshConfig(_) => self.everything(),
            Object::Namespace(_) => self.namespace(&key.name.name),
            Object::Node(node) => {
                if other.is_none_or(|other| topology(node) != topology_of(other)) {
                    self.all(self.store.by_node.get(&key.name.name));
                }
            }
            Object::ServiceAccount(_) => self.all(self.store.by_account.get(&key.name)),
            Object::Secret(_) => self.secret(&key.name),
            Object::Gateway(gateway) => self.gateway(gateway),
            Object::Service(service) => self.service(&key, service),
            Object::ServiceEntry(entry) => self.service_entry(&key, entry),
            Object::EndpointSlice(slice) => self.slice(&key, slice),
            Object::VirtualService(service) => {
                self.unit(&key);
                self.virtual_service(&key.name, service);
            }
            Object::DestinationRule(rule) => {
                let host = self.store.expanded(&key.name.namespace, &rule.spec.host);
                self.uses(&host);
                self.unit(&key);
                for name in self.store.destination_rules.get(&(key.name.namespace, host)) {
                    let (kind, name) = (ObjectKind::DestinationRule, name.clone());
                    self.unit(&ObjectKey { kind, name });
                }
            }
            Object::HttpRoute(_)
            | Object::GrpcRoute(_)
            | Object::TlsRoute(_)
            | Object::TcpRoute(_) => self.route(object),
            Object::ReferenceGrant(grant) => self.grant(grant),
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
        self.units.extend(self.dependents.all_uses().cloned().map(Unit::Destination));
    }

    fn namespace(&mut self, name: &str) {
        self.all(self.store.workloads.of_namespace(name));
        self.services_in(name);
    }

    /// Adds the credentials that a secret is a part of.
    fn secret(&mut self, name: &ObjectName) {
        let other = name.name.strip_suffix(names::CA_SECRET_SUFFIX);
        let other = other.map(|other| ObjectName::new(name.namespace.clone(), other));
        self.units.extend(other.into_iter().chain([name.clone()]).map(Unit::Credential));
    }

    fn gateway(&mut self, gateway: &Gateway) {
        let name = &gateway.metadata.name;
        self.unit(&ObjectKey { kind: ObjectKind::Gateway, name: name.clone() });
        self.all(self.dependents.of_gateway.get(name));
        // It declares as whom the waypoint may know them.
        let credentials = self.dependents.credentials_of(&name.namespace);
        self.units.extend(credentials.cloned().map(Unit::Credential));
        // A service of that name is the gateway's own, whether it knows or not.
        self.unit(&ObjectKey { kind: ObjectKind::Service, name: service_of(gateway) });
        if let Some(account) = account_of(gateway) {
            self.all(self.store.by_account.get(&account));
        }
    }

    /// Adds what a pod may be the waypoint of.
    fn waypoint_pod(&mut self, metadata: &Metadata) {
        if let Some(gateway) = metadata.label(names::GATEWAY_NAME) {
            let gateway = ObjectName::new(metadata.namespace().clone(), gateway);
            self.all(self.dependents.of_gateway.get(&gateway));
        }
    }

    /// Adds the services of a namespace, their routes, and how they are used.
    pub(super) fn services_in(&mut self, namespace: &str) {
        for service in self.store.services.get(namespace) {
            self.unit(service);
            self.all(self.store.routes_of.get(service));
            for host in self.store.hosts_of(service) {
                self.all(self.dependents.of_host.get(&host));
                self.uses(&host);
            }
        }
    }

    fn service(&mut self, key: &ObjectKey, service: &Service) {
        for gateway in self.store.waypoints_of_service.get(&key.name) {
            self.all(self.dependents.of_gateway.get(gateway));
        }
        self.all(self.store.routes_of.get(key));
        for slice in self.store.slices_of_service.get(&key.name) {
            self.unit(slice);
            if service.selector.is_empty()
                && let Some(slice) = self.store.endpoint_slice(&slice.name)
            {
                self.pods_of(slice);
            }
        }
        let host = self.store.host_of(&key.name);
        self.claimants(&host);
        self.uses(&host);
    }

    fn service_entry(&mut self, key: &ObjectKey, entry: &ServiceEntry) {
        self.unit(key);
        self.all(self.store.policies_of_entry.get(&key.name));
        self.all(self.store.routes_of.get(key));
        for host in &entry.spec.hosts {
            self.claimants(host);
            self.uses(host);
        }
    }

    /// Adds all services of a host, as one of them may take it from another, with those selected.
    fn claimants(&mut self, host: &str) {
        self.all(self.dependents.of_host.get(host));
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

    fn virtual_service(&mut self, name: &ObjectName, service: &VirtualService) {
        let (delegators, store) = (self.store.delegators.get(name), self.store);
        let delegators = delegators.filter_map(|name| store.virtual_service(name));
        for service in delegators.map(|service| &**service).chain([service]) {
            for host in &service.spec.hosts {
                let host = store.expanded(service.metadata.namespace(), host);
                self.services_of(&host);
            }
        }
    }

    /// Adds the services of a host, which may have a wildcard, and the routes attached to them, whose
    /// status tells what they leave to others.
    fn services_of(&mut self, host: &str) {
        let store = self.store;
        let mut add = |service: &ObjectKey| {
            self.unit(service);
            self.all(store.routes_of.get(service));
        };
        if !host.starts_with('*') {
            return store.hosts.get(host).for_each(add);
        }
        let covered = store.hosts.keys().filter(|other| covering(other).any(|c| *c == *host));
        covered.flat_map(|other| store.hosts.get(other)).for_each(&mut add);
    }

    /// Adds the uses of the services of a host, which may have a wildcard.
    fn uses(&mut self, host: &str) {
        let uses = &self.dependents.uses;
        if !host.starts_with('*') {
            return self.units.extend(uses.get(host).cloned().map(Unit::Destination));
        }
        let covered =
            uses.keys().filter(|other| host == "*" || covering(other).any(|c| *c == *host));
        let covered = covered.flat_map(|other| uses.get(other));
        self.units.extend(covered.cloned().map(Unit::Destination));
    }

    /// Adds a route and what it is attached to.
    fn route(&mut self, object: &Object) {
        let key = object.key();
        let parents = parents_of(object).iter();
        let keys = parents.filter_map(|parent| parent_key(&key.name.namespace, parent));
        self.units.extend(keys.map(Unit::Object));
        self.unit(&key);
    }

    /// Adds the routes of the namespaces from which a grant lets objects be referred to.
    fn grant(&mut self, grant: &ReferenceGrant) {
        let namespaces = grant.spec.from.iter().map(|from| from.namespace.as_str());
        for key in namespaces.flat_map(|namespace| self.store.routes_in.get(namespace)) {
            if let Some(route) = self.store.get(key) {
                self.route(route);
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
