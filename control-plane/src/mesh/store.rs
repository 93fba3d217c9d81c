//! All objects, with the indexes by which they find each other.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use super::{
    addresses::{Applicant, Slot, VirtualAddresses},
    index::{LabelIndex, MultiMap, Op, SelectorIndex},
    names::{FOR_SERVICE_ACCOUNT, NO_AUTO_ADDRESS},
    waypoint::{is_waypoint, service_of},
};
use crate::object::{
    AuthorizationPolicy, DestinationRule, EndpointSlice, Gateway, Labels, MeshConfig, Object,
    ObjectKey, ObjectKind, ObjectName, Plain, Pod, ReferenceGrant, Secret, Service, ServiceEntry,
    VirtualService, WorkloadEntry,
};
use mesh_api::crd::{self, Resolution};

/// All objects.
#[derive(Debug)]
pub(super) struct Store {
    domain: Arc<str>,
    objects: HashMap<ObjectKey, Object>,
    surroundings: u64,
    /// Pods, workload entries and service entries, which have workloads.
    pub(super) workloads: LabelIndex,
    /// Services and service entries, by namespace.
    pub(super) services: MultiMap<Arc<str>, ObjectKey>,
    /// Services and service entries with a selector.
    pub(super) service_selectors: SelectorIndex,
    /// Policies of both kinds with a selector.
    pub(super) policy_selectors: SelectorIndex,
    /// Peer authentications by namespace.
    pub(super) peer_authentications: MultiMap<Arc<str>, ObjectKey>,
    /// Pods by node.
    pub(super) by_node: MultiMap<Arc<str>, ObjectKey>,
    /// What has workloads, by service account.
    pub(super) by_account: MultiMap<ObjectName, ObjectKey>,
    /// Endpoint slices by service.
    pub(super) slices_of_service: MultiMap<ObjectName, ObjectKey>,
    /// Endpoint slices by pod.
    pub(super) slices_of_pod: MultiMap<ObjectName, ObjectKey>,
    /// Services and service entries by host name.
    pub(super) hosts: MultiMap<Arc<str>, ObjectKey>,
    /// Gateways by the service account whose workloads they are for.
    pub(super) gateways_of_account: MultiMap<ObjectName, ObjectName>,
    /// Virtual services by namespace and host, which may have a wildcard.
    pub(super) virtual_services: MultiMap<(Arc<str>, Arc<str>), ObjectName>,
    /// Virtual services by one that they delegate to.
    pub(super) delegators: MultiMap<ObjectName, ObjectName>,
    /// Destination rules by namespace and host, which may have a wildcard.
    pub(super) destination_rules: MultiMap<(Arc<str>, Arc<str>), ObjectName>,
    /// Routes of the Gateway API by the service or service entry that they are attached to.
    pub(super) routes_of: MultiMap<ObjectKey, ObjectKey>,
    /// Routes of the Gateway API by namespace.
    pub(super) routes_in: MultiMap<Arc<str>, ObjectKey>,
    /// Permissions to refer to objects, by namespace.
    pub(super) grants: MultiMap<Arc<str>, ObjectName>,
    /// Authorization policies by the service entry that they are attached to.
    pub(super) policies_of_entry: MultiMap<ObjectName, ObjectKey>,
    /// Gateways that are waypoints, by namespace.
    pub(super) waypoints: MultiMap<Arc<str>, ObjectName>,
    /// Gateways that are waypoints, by the name of their service.
    pub(super) waypoints_of_service: MultiMap<ObjectName, ObjectName>,
    /// What says how the traffic of services is routed, by its own namespace.
    pub(super) routing: MultiMap<Arc<str>, ObjectKey>,
    /// Namespaces that need a waypoint which nobody has declared.
    pub(super) needing: BTreeSet<Arc<str>>,
    virtual_addresses: VirtualAddresses,
}

macro_rules! getters {
    ($($getter:ident: $kind:ident($type:ty);)*) => {
        $(
            pub(super) fn $getter(&self, name: &ObjectName) -> Option<&Arc<$type>> {
                let key = ObjectKey { kind: ObjectKind::$kind, name: name.clone() };
                let Some(Object::$kind(object)) = self.objects.get(&key) else { return None };
                Some(object)
            }
        )*
    };
}

// === impl Store ===

impl Store {
    pub(super) fn new(domain: Arc<str>) -> Self {
        Self {
            domain,
            objects: HashMap::new(),
            surroundings: 0,
            workloads: LabelIndex::default(),
            services: MultiMap::default(),
            service_selectors: SelectorIndex::default(),
            policy_selectors: SelectorIndex::default(),
            peer_authentications: MultiMap::default(),
            by_node: MultiMap::default(),
            by_account: MultiMap::default(),
            slices_of_service: MultiMap::default(),
            slices_of_pod: MultiMap::default(),
            hosts: MultiMap::default(),
            gateways_of_account: MultiMap::default(),
            virtual_services: MultiMap::default(),
            delegators: MultiMap::default(),
            destination_rules: MultiMap::default(),
            routes_of: MultiMap::default(),
            routes_in: MultiMap::default(),
            grants: MultiMap::default(),
            policies_of_entry: MultiMap::default(),
            waypoints: MultiMap::default(),
            waypoints_of_service: MultiMap::default(),
            routing: MultiMap::default(),
            needing: BTreeSet::new(),
            virtual_addresses: VirtualAddresses::default(),
        }
    }

    pub(super) fn get(&self, key: &ObjectKey) -> Option<&Object> {
        self.objects.get(key)
    }

    /// Returns what is another number after each change of what the routes of an object may depend on
    /// beside the object itself.
    pub(super) fn surroundings(&self) -> u64 {
        self.surroundings
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &ObjectKey> {
        self.objects.keys()
    }

    getters! {
        mesh_config: MeshConfig(MeshConfig);
        node: Node(Plain);
        service_account: ServiceAccount(Plain);
        secret: Secret(Secret);
        gateway: Gateway(Gateway);
        service: Service(Service);
        endpoint_slice: EndpointSlice(EndpointSlice);
        pod: Pod(Pod);
        service_entry: ServiceEntry(ServiceEntry);
        virtual_service: VirtualService(VirtualService);
        destination_rule: DestinationRule(DestinationRule);
        reference_grant: ReferenceGrant(ReferenceGrant);
    }

    pub(super) fn namespace(&self, name: &Arc<str>) -> Option<&Arc<Plain>> {
        let name = ObjectName { namespace: "".into(), name: name.clone() };
        let key = ObjectKey { kind: ObjectKind::Namespace, name };
        let Some(Object::Namespace(namespace)) = self.objects.get(&key) else { return None };
        Some(namespace)
    }

    /// Adds an object that is not there; returns service entries whose addresses changed.
    pub(super) fn insert(&mut self, object: Object) -> BTreeSet<ObjectName> {
        let moved = self.index(Op::Insert, &object);
        self.objects.insert(object.key(), object);
        moved
    }

    /// Removes an object; returns service entries whose addresses changed.
    pub(super) fn remove(&mut self, key: &ObjectKey) -> BTreeSet<ObjectName> {
        let removed = self.objects.remove(key);
        removed.map_or_else(BTreeSet::new, |object| self.index(Op::Remove, &object))
    }

    /// Returns the virtual address allocated to a host of a service entry.
    pub(super) fn virtual_address(&self, entry: &ServiceEntry, host: &str) -> Option<Slot> {
        self.virtual_addresses.get(&applicant(entry, host))
    }

    /// Returns the host name of a service.
    pub(super) fn host_of(&self, service: &ObjectName) -> String {
        let ObjectName { namespace, name } = service;
        format!("{name}.{namespace}.svc.{}", self.domain)
    }

    /// Returns the host names of a service or service entry.
    pub(super) fn hosts_of(&self, key: &ObjectKey) -> Vec<Arc<str>> {
        match self.get(key) {
            Some(Object::ServiceEntry(entry)) => {
                entry.spec.hosts.iter().map(|host| host.as_str().into()).collect()
            }
            Some(_) | None => vec![self.host_of(&key.name).into()],
        }
    }

    /// Notes whether a namespace needs a waypoint; returns whether that is different from before.
    pub(super) fn note_need(&mut self, namespace: &Arc<str>, is_needed: bool) -> bool {
        if is_needed {
            self.needing.insert(namespace.clone())
        } else {
            self.needing.remove(namespace)
        }
    }

    /// Returns the host that a rule of a namespace means: short names are those of its services.
    pub(super) fn expanded(&self, namespace: &Arc<str>, host: &str) -> Arc<str> {
        if host == "*" || host.contains(['.', ':']) {
            return host.to_ascii_lowercase().into();
        }
        let name = host.to_ascii_lowercase();
        self.host_of(&ObjectName::new(namespace.clone(), name)).into()
    }

    fn index(&mut self, op: Op, object: &Object) -> BTreeSet<ObjectName> {
        let key = object.key();
        if surrounds_routes(key.kind) {
            self.surroundings += 1;
        }
        let selector = selector(object);
        match object {
            Object::Pod(pod) => self.index_pod(op, &key, pod),
            Object::WorkloadEntry(entry) => {
                self.workloads.apply(op, &key, &entry_labels(entry));
                self.index_account(op, &key, &entry.spec);
            }
            Object::Service(_) => {
                self.service_selectors.apply(op, &key, &selector);
                self.services.apply(op, key.name.namespace.clone(), key.clone());
                self.hosts.apply(op, self.host_of(&key.name).into(), key);
            }
            Object::ServiceEntry(entry) => {
                self.workloads.apply(op, &key, &entry.metadata.labels);
                self.service_selectors.apply(op, &key, &selector);
                self.services.apply(op, key.name.namespace.clone(), key.clone());
                for endpoint in &entry.spec.endpoints {
                    self.index_account(op, &key, endpoint);
                }
                for host in &entry.spec.hosts {
                    self.hosts.apply(op, host.as_str().into(), key.clone());
                }
                return self.index_addresses(op, entry);
            }
            Object::EndpointSlice(slice) => self.index_slice(op, &key, slice),
            Object::AuthorizationPolicy(policy) => {
                self.policy_selectors.apply(op, &key, &selector);
                self.index_targets(op, &key, policy);
            }
            Object::PeerAuthentication(_) => {
                self.policy_selectors.apply(op, &key, &selector);
                self.peer_authentications.apply(op, key.name.namespace.clone(), key);
            }
            Object::Gateway(gateway) => self.index_gateway(op, key.name, gateway),
            Object::VirtualService(service) => {
                self.index_virtual_service(op, &key.name, service);
                self.routing.apply(op, key.name.namespace.clone(), key);
            }
            Object::DestinationRule(rule) => {
                let host = self.expanded(&key.name.namespace, &rule.spec.host);
                let place = (key.name.namespace.clone(), host);
                self.routing.apply(op, key.name.namespace.clone(), key.clone());
                self.destination_rules.apply(op, place, key.name);
            }
            Object::HttpRoute(_)
            | Object::GrpcRoute(_)
            | Object::TlsRoute(_)
            | Object::TcpRoute(_) => self.index_route(op, &key, parents_of(object)),
            Object::ReferenceGrant(_) => {
                self.grants.apply(op, key.name.namespace.clone(), key.name);
            }
            Object::MeshConfig(_)
            | Object::Namespace(_)
            | Object::Node(_)
            | Object::ServiceAccount(_)
            | Object::Secret(_) => {}
        }
        BTreeSet::new()
    }

    fn index_targets(&mut self, op: Op, key: &ObjectKey, policy: &AuthorizationPolicy) {
        for target in policy.spec.targets().filter(|target| target.kind == "ServiceEntry") {
            let entry = ObjectName::new(key.name.namespace.clone(), target.name.as_str());
            self.policies_of_entry.apply(op, entry, key.clone());
        }
    }

    fn index_gateway(&mut self, op: Op, name: ObjectName, gateway: &Gateway) {
        if let Some(account) = account_of(gateway) {
            self.gateways_of_account.apply(op, account, name.clone());
        }
        if is_waypoint(gateway) {
            self.waypoints_of_service.apply(op, service_of(gateway), name.clone());
            self.waypoints.apply(op, name.namespace.clone(), name);
        }
    }

    fn index_virtual_service(&mut self, op: Op, name: &ObjectName, service: &VirtualService) {
        for host in &service.spec.hosts {
            let place = (name.namespace.clone(), self.expanded(&name.namespace, host));
            self.virtual_services.apply(op, place, name.clone());
        }
        for delegate in service.spec.http.iter().filter_map(|route| route.delegate.as_ref()) {
            self.delegators.apply(op, delegate_name(&name.namespace, delegate), name.clone());
        }
    }

    fn index_route(&mut self, op: Op, key: &ObjectKey, parents: &[crd::ParentReference]) {
        for parent in parents.iter().filter_map(|parent| parent_key(&key.name.namespace, parent)) {
            self.routes_of.apply(op, parent, key.clone());
        }
        self.routes_in.apply(op, key.name.namespace.clone(), key.clone());
        self.routing.apply(op, key.name.namespace.clone(), key.clone());
    }

    fn index_pod(&mut self, op: Op, key: &ObjectKey, pod: &Pod) {
        self.workloads.apply(op, key, &pod.metadata.labels);
        self.by_node.apply(op, pod.node.clone(), key.clone());
        self.by_account.apply(op, account_name(pod), key.clone());
    }

    fn index_account(&mut self, op: Op, key: &ObjectKey, entry: &crd::WorkloadEntry) {
        if let Some(account) = account_of_entry(&key.name.namespace, entry) {
            self.by_account.apply(op, account, key.clone());
        }
    }

    fn index_slice(&mut self, op: Op, key: &ObjectKey, slice: &EndpointSlice) {
        let Some(service) = slice.service() else { return };
        self.slices_of_service.apply(op, service, key.clone());
        for pod in slice.endpoints.iter().filter_map(|endpoint| endpoint.pod.as_ref()) {
            self.slices_of_pod.apply(op, pod.clone(), key.clone());
        }
    }

    fn index_addresses(&mut self, op: Op, entry: &ServiceEntry) -> BTreeSet<ObjectName> {
        let mut moved = BTreeSet::new();
        if !wants_addresses(entry) {
            return moved;
        }
        for host in entry.spec.hosts.iter().filter(|host| !host.starts_with('*')) {
            let applicant = applicant(entry, host);
            moved.extend(match op {
                Op::Insert => self.virtual_addresses.insert(applicant),
                Op::Remove => self.virtual_addresses.remove(&applicant),
            });
        }
        moved
    }
}

/// Returns whether routes of the Gateway API may depend on objects of a kind.
fn surrounds_routes(kind: ObjectKind) -> bool {
    match kind {
        ObjectKind::MeshConfig
        | ObjectKind::Namespace
        | ObjectKind::Gateway
        | ObjectKind::Service
        | ObjectKind::ServiceEntry
        | ObjectKind::ReferenceGrant => true,
        ObjectKind::Node
        | ObjectKind::ServiceAccount
        | ObjectKind::Secret
        | ObjectKind::EndpointSlice
        | ObjectKind::WorkloadEntry
        | ObjectKind::VirtualService
        | ObjectKind::DestinationRule
        | ObjectKind::HttpRoute
        | ObjectKind::GrpcRoute
        | ObjectKind::TlsRoute
        | ObjectKind::TcpRoute
        | ObjectKind::AuthorizationPolicy
        | ObjectKind::PeerAuthentication
        | ObjectKind::Pod => false,
    }
}

/// Returns whether virtual addresses are allocated to the hosts of `entry`.
pub(super) fn wants_addresses(entry: &ServiceEntry) -> bool {
    entry.spec.addresses.is_empty()
        && entry.spec.resolution != Resolution::None
        && entry.metadata.label(NO_AUTO_ADDRESS) != Some("false")
}

/// Returns the name of the virtual service that one of a namespace delegates to.
pub(super) fn delegate_name(namespace: &Arc<str>, delegate: &crd::Delegate) -> ObjectName {
    match delegate.namespace.as_str() {
        "" => ObjectName::new(namespace.clone(), delegate.name.as_str()),
        other => ObjectName::new(other, delegate.name.as_str()),
    }
}

/// Returns the service or service entry that a route of a namespace is attached to.
pub(super) fn parent_key(namespace: &Arc<str>, parent: &crd::ParentReference) -> Option<ObjectKey> {
    let kind = match (parent.group.as_str(), parent.kind.as_str()) {
        ("" | "core", "Service") => ObjectKind::Service,
        ("networking.istio.io", "ServiceEntry") => ObjectKind::ServiceEntry,
        _ => return None,
    };
    let name = match parent.namespace.as_str() {
        "" => ObjectName::new(namespace.clone(), parent.name.as_str()),
        other => ObjectName::new(other, parent.name.as_str()),
    };
    Some(ObjectKey { kind, name })
}

/// Returns what a route is attached to; nothing if an object is none.
pub(super) fn parents_of(object: &Object) -> &[crd::ParentReference] {
    match object {
        Object::HttpRoute(route) => &route.spec.parent_refs,
        Object::GrpcRoute(route) => &route.spec.parent_refs,
        Object::TlsRoute(route) | Object::TcpRoute(route) => &route.spec.parent_refs,
        Object::MeshConfig(_)
        | Object::Namespace(_)
        | Object::Node(_)
        | Object::ServiceAccount(_)
        | Object::Secret(_)
        | Object::Gateway(_)
        | Object::Service(_)
        | Object::ServiceEntry(_)
        | Object::EndpointSlice(_)
        | Object::WorkloadEntry(_)
        | Object::VirtualService(_)
        | Object::DestinationRule(_)
        | Object::ReferenceGrant(_)
        | Object::AuthorizationPolicy(_)
        | Object::PeerAuthentication(_)
        | Object::Pod(_) => &[],
    }
}

/// Returns the hosts that stand for one: itself, and those with a wildcard, the closest one first.
pub(super) fn covering(host: &str) -> impl Iterator<Item = Arc<str>> {
    let rest = host.strip_prefix("*.").unwrap_or(host);
    let dots = rest.match_indices('.').map(|(i, _)| format!("*{}", &rest[i..]).into());
    std::iter::once(host.into()).chain(dots)
}

/// Returns the selector of a service or policy, as far as it has one.
pub(super) fn selector(object: &Object) -> Labels {
    match object {
        Object::Service(service) => service.selector.clone(),
        Object::ServiceEntry(entry) => {
            entry.spec.workload_selector.as_ref().map(|s| (&s.labels).into()).unwrap_or_default()
        }
        Object::AuthorizationPolicy(policy) => {
            policy.spec.selector.as_ref().map(|s| (&s.match_labels).into()).unwrap_or_default()
        }
        Object::PeerAuthentication(object) => {
            object.spec.selector.as_ref().map(|s| (&s.match_labels).into()).unwrap_or_default()
        }
        Object::MeshConfig(_)
        | Object::Namespace(_)
        | Object::Node(_)
        | Object::ServiceAccount(_)
        | Object::Secret(_)
        | Object::Gateway(_)
        | Object::EndpointSlice(_)
        | Object::WorkloadEntry(_)
        | Object::VirtualService(_)
        | Object::DestinationRule(_)
        | Object::HttpRoute(_)
        | Object::GrpcRoute(_)
        | Object::TlsRoute(_)
        | Object::TcpRoute(_)
        | Object::ReferenceGrant(_)
        | Object::Pod(_) => Labels::default(),
    }
}

/// Returns the labels of a workload entry: those of the object and those of the workload, which win.
pub(super) fn entry_labels(entry: &WorkloadEntry) -> Labels {
    let own = entry.metadata.labels.iter().map(|(name, value)| (&**name, &**value));
    let spec = entry.spec.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    own.chain(spec).collect()
}

/// Returns the service account of a pod, with its namespace.
pub(super) fn account_name(pod: &Pod) -> ObjectName {
    ObjectName { namespace: pod.metadata.namespace().clone(), name: pod.service_account.clone() }
}

/// Returns the service account of a workload entry or endpoint, if it names one.
pub(super) fn account_of_entry(
    namespace: &Arc<str>,
    entry: &crd::WorkloadEntry,
) -> Option<ObjectName> {
    let name = entry.service_account.as_str();
    (!name.is_empty()).then(|| ObjectName::new(namespace.clone(), name))
}

/// Returns the service account whose workloads a gateway is for.
pub(super) fn account_of(gateway: &Gateway) -> Option<ObjectName> {
    let name = gateway.metadata.annotation(FOR_SERVICE_ACCOUNT)?;
    Some(ObjectName::new(gateway.metadata.namespace().clone(), name))
}

fn applicant(entry: &ServiceEntry, host: &str) -> Applicant {
    let reported = entry.status.addresses.iter().filter(|address| address.host == host);
    let current = reported.filter_map(|a| a.value.parse().ok()).find_map(Slot::of);
    Applicant {
        is_new: current.is_none(),
        created: entry.metadata.created.clone(),
        object: entry.metadata.name.clone(),
        host: host.into(),
        current,
    }
}
