//! The mesh: from objects to the resources that proxies are told of.
//!
//! ```text
//! objects --> store + indexes --> what is affected --> resources --> changes
//! ```
//!
//! Pure: no clock, no lock, no I/O. [`Mesh::apply`] puts events into a store, collects through its
//! indexes what depends on them, computes that anew and returns what came out different. So a pod
//! that changes costs the computation of one workload, however many pods there are, and the outcome
//! depends on the objects alone, not on the order in which they came.

mod addresses;
mod automatic;
mod context;
mod dependency;
mod dirty;
mod hosts;
mod index;
mod judgement;
mod l7;
mod names;
mod options;
mod outcome;
mod policy;
mod service;
mod store;
mod warning;
mod waypoint;
mod wire;
mod workload;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

pub(crate) use self::waypoint::made as waypoint_names;
pub use self::{
    automatic::{PROVIDED, PROVIDED_LABEL, Provision},
    judgement::{Condition, Judgement, ParentJudgement, is_judged},
    options::{AbsentWaypoint, Enrolment, Options},
    warning::{Flaw, Warning},
    waypoint::WAYPOINT_CLASS,
};
use self::{
    context::{Context, Settings},
    dependency::{Moved, Namespaces},
    dirty::{Dirty, Unit},
    outcome::{Diff, Outcomes},
    store::Store,
};
use crate::{
    object::{Object, ObjectKey, ObjectKind, ObjectName},
    resource::{Change, Resource},
};

/// Something that happened to objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An object is new or different.
    Applied(Object),
    /// An object is gone.
    Deleted(ObjectKey),
    /// These are all objects of a kind.
    Relisted(ObjectKind, Vec<Object>),
}

/// How many times something was computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Computed {
    /// Objects with workloads: pods, workload entries, endpoint slices.
    pub workloads: u64,
    /// Services, and service entries with their endpoints.
    pub services: u64,
    /// Policies of both kinds.
    pub policies: u64,
    /// Objects of the Gateway API with routes, for a service.
    pub routes: u64,
}

/// All objects, and what proxies are told because of them.
#[derive(Debug)]
pub struct Mesh {
    options: Options,
    settings: Settings,
    store: Store,
    outcomes: Outcomes,
    warnings: BTreeMap<ObjectKey, Vec<Warning>>,
    judgements: BTreeMap<ObjectKey, (Condition, Judgement)>,
    /// Of routes that are attached to services.
    parents: BTreeMap<ObjectKey, Vec<ParentJudgement>>,
    computed: Computed,
    /// Namespaces in which it may be different whether they need a waypoint.
    touched: BTreeSet<Arc<str>>,
}

// === impl Mesh ===

impl Mesh {
    /// Returns a mesh without objects.
    pub fn new(options: Options) -> Self {
        let store = Store::new(options.domain.clone());
        let settings = Settings::new(&store, &options);
        Self {
            options,
            settings,
            store,
            outcomes: Outcomes::default(),
            warnings: BTreeMap::new(),
            judgements: BTreeMap::new(),
            parents: BTreeMap::new(),
            computed: Computed::default(),
            touched: BTreeSet::new(),
        }
    }

    /// Applies events and returns what proxies have to be told: policies and services before the
    /// workloads that name them, and what is removed in the opposite order.
    pub fn apply(&mut self, events: Vec<Event>) -> Vec<Change> {
        let mut units = BTreeSet::new();
        for event in events {
            match event {
                Event::Applied(object) => self.put(&object.key(), Some(object), &mut units),
                Event::Deleted(key) => self.put(&key, None, &mut units),
                Event::Relisted(kind, objects) => self.relist(kind, objects, &mut units),
            }
        }
        self.note_needs(&mut units);
        let mut diff = Diff::default();
        while let Some(unit) = units.pop_first() {
            let moved = self.compute(&unit, &mut diff);
            self.follow(&unit, moved, &mut units);
        }
        diff.into_changes()
    }

    /// Returns all resources, in no order.
    pub fn resources(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.outcomes.resources()
    }

    /// Returns what is accepted but does not do what it seems to, by object.
    pub fn warnings(&self) -> BTreeMap<ObjectKey, Vec<Warning>> {
        let mut warnings = self.warnings.clone();
        for key in self.store.keys() {
            if self.is_unused(key) {
                warnings.entry(key.clone()).or_default().push(Warning::UnusedPolicy);
            }
        }
        warnings
    }

    /// Returns what the status of objects has to say.
    pub fn judgements(&self) -> impl Iterator<Item = (&ObjectKey, &(Condition, Judgement))> {
        self.judgements.iter()
    }

    /// Returns what the status of an object has to say, if anything.
    pub fn judgement(&self, key: &ObjectKey) -> Option<&(Condition, Judgement)> {
        self.judgements.get(key)
    }

    /// Returns what the status of a route has to say of its parents.
    pub fn parents(&self, key: &ObjectKey) -> &[ParentJudgement] {
        self.parents.get(key).map_or(&[], Vec::as_slice)
    }

    /// Returns what is to be done about waypoints that are provided.
    pub fn provision(&self) -> Provision {
        automatic::provision(&self.store)
    }

    /// Returns how many times something was computed so far.
    pub fn computed(&self) -> Computed {
        self.computed
    }

    /// Returns the number of objects of a kind.
    pub fn count(&self, kind: ObjectKind) -> usize {
        self.store.keys().filter(|key| key.kind == kind).count()
    }

    /// Returns the names of all namespaces that are known.
    pub fn namespaces(&self) -> BTreeSet<Arc<str>> {
        let namespaces = self.store.keys().filter(|key| key.kind == ObjectKind::Namespace);
        namespaces.map(|key| key.name.name.clone()).collect()
    }

    /// Returns whether a pod that has not ended runs as a service account on a node.
    pub fn runs_on(&self, node: &str, account: &ObjectName) -> bool {
        let pods = self.store.by_account.get(account).filter(|key| key.kind == ObjectKind::Pod);
        pods.filter_map(|key| self.store.pod(&key.name))
            .any(|pod| *pod.node == *node && !pod.has_ended())
    }

    /// Returns the node of the pod with a name and a unique id.
    pub fn node_of(&self, pod: &ObjectName, uid: &str) -> Option<Arc<str>> {
        let pod = self.store.pod(pod).filter(|pod| !uid.is_empty() && *pod.uid == *uid)?;
        (!pod.node.is_empty()).then(|| pod.node.clone())
    }

    fn relist(&mut self, kind: ObjectKind, objects: Vec<Object>, units: &mut BTreeSet<Unit>) {
        let listed: HashSet<_> = objects.iter().map(Object::key).collect();
        let of_kind = self.store.keys().filter(|key| key.kind == kind);
        let gone: Vec<_> = of_kind.filter(|key| !listed.contains(key)).cloned().collect();
        for key in gone {
            self.put(&key, None, units);
        }
        for object in objects {
            self.put(&object.key(), Some(object), units);
        }
    }

    /// Replaces an object, and adds what depends on the old or the new one to `units`.
    fn put(&mut self, key: &ObjectKey, new: Option<Object>, units: &mut BTreeSet<Unit>) {
        let old = self.store.get(key).cloned();
        if old == new {
            return;
        }
        if let Some(old) = &old {
            self.dirty(units).add(old, new.as_ref());
            let moved = self.store.remove(key);
            self.dirty(units).moved(moved);
        }
        if let Some(new) = new {
            let moved = self.store.insert(new.clone());
            self.dirty(units).moved(moved);
            self.dirty(units).add(&new, old.as_ref());
        }
        self.touch(key);
        if key.kind == ObjectKind::MeshConfig {
            self.settings = Settings::new(&self.store, &self.options);
        }
    }

    /// Notes that an object may have made a waypoint necessary, or not so any more.
    fn touch(&mut self, key: &ObjectKey) {
        let namespace = match key.kind {
            ObjectKind::Namespace => &key.name.name,
            ObjectKind::Gateway
            | ObjectKind::Service
            | ObjectKind::ServiceEntry
            | ObjectKind::VirtualService
            | ObjectKind::DestinationRule
            | ObjectKind::HttpRoute
            | ObjectKind::GrpcRoute
            | ObjectKind::TlsRoute
            | ObjectKind::TcpRoute => &key.name.namespace,
            ObjectKind::MeshConfig
            | ObjectKind::Node
            | ObjectKind::ServiceAccount
            | ObjectKind::Secret
            | ObjectKind::EndpointSlice
            | ObjectKind::WorkloadEntry
            | ObjectKind::AuthorizationPolicy
            | ObjectKind::PeerAuthentication
            | ObjectKind::ReferenceGrant
            | ObjectKind::Pod => return,
        };
        if self.options.automatic_waypoints {
            self.touched.insert(namespace.clone());
        }
    }

    /// Notes which namespaces need a waypoint, and adds what depends on that to `units`.
    fn note_needs(&mut self, units: &mut BTreeSet<Unit>) {
        for namespace in std::mem::take(&mut self.touched) {
            let is_needed = automatic::is_needed(&self.store, &namespace);
            if self.store.note_need(&namespace, is_needed) {
                self.dirty(units).services_in(&namespace);
            }
        }
    }

    fn selects_something(&self, policy: &Object) -> bool {
        let mut units = BTreeSet::new();
        self.dirty(&mut units).add(policy, None);
        units.iter().any(|unit| match unit {
            Unit::Object(key) => !key.kind.is_policy(),
            Unit::StrictPolicy | Unit::Labels(_) | Unit::Destination(_) | Unit::Credential(_) => {
                false
            }
        })
    }

    fn dirty<'a>(&'a self, units: &'a mut BTreeSet<Unit>) -> Dirty<'a> {
        let root = &self.settings.root_namespace;
        Dirty { store: &self.store, dependents: self.outcomes.dependents(), root, units }
    }

    /// Adds what depends on the outcome of a unit, all of which comes after it.
    fn follow(&self, unit: &Unit, moved: Moved, units: &mut BTreeSet<Unit>) {
        let workloads = &self.store.workloads;
        match moved.labels {
            Namespaces::All => units.extend(workloads.all().cloned().map(Unit::Labels)),
            Namespaces::Some(namespaces) => {
                let workloads = namespaces.iter().flat_map(|name| workloads.of_namespace(name));
                units.extend(workloads.cloned().map(Unit::Labels));
            }
        }
        units.extend(moved.uses.into_iter().map(Unit::Destination));
        units.extend(moved.credentials.into_iter().map(Unit::Credential));
        if let Unit::Object(key) = unit {
            let labels = Unit::Labels(key.clone());
            let needed = self.outcomes.dependents().need_labels_of(&key.name.namespace);
            if needed || self.outcomes.has(&labels) {
                units.insert(labels);
            }
        }
    }

    /// Computes a unit anew; returns what depends on its outcome.
    fn compute(&mut self, unit: &Unit, diff: &mut Diff) -> Moved {
        let mut context = Context::new(&self.store, &self.options, &self.settings);
        context.before = self.outcomes.take_lowered(unit);
        let mut resources = match unit {
            Unit::Object(key) => of_key(&mut context, key, &mut self.computed),
            Unit::StrictPolicy => policy::strict_policy(&context).into_iter().collect(),
            Unit::Labels(key)
                if !self.outcomes.dependents().need_labels_of(&key.name.namespace) =>
            {
                Vec::new()
            }
            Unit::Labels(key) => l7::labels(&context, key, self.outcomes.workloads(key)),
            Unit::Destination(used) => {
                let waypoints = self.outcomes.dependents().waypoints(used).collect();
                l7::destination(&mut context, used, waypoints).into_iter().collect()
            }
            Unit::Credential(secret) => {
                let waypoints = self.outcomes.dependents().waypoints_with(secret);
                l7::credential(&context, secret, waypoints).into_iter().collect()
            }
        };
        let judgement = match unit {
            Unit::Object(key) => self.store.get(key).and_then(|o| judgement::of(o, &context)),
            Unit::StrictPolicy | Unit::Labels(_) | Unit::Destination(_) | Unit::Credential(_) => {
                None
            }
        };
        let parents = match unit {
            Unit::Object(key) => self.store.get(key).map(|o| l7::judge(&mut context, o)),
            Unit::StrictPolicy | Unit::Labels(_) | Unit::Destination(_) | Unit::Credential(_) => {
                None
            }
        };
        let Context { warnings, depends_on, further, lowered, newly_lowered, .. } = context;
        self.computed.routes += newly_lowered;
        resources.extend(further);
        if let Unit::Object(key) = unit {
            match judgement {
                Some(judgement) => self.judgements.insert(key.clone(), judgement),
                None => self.judgements.remove(key),
            };
            match parents.filter(|parents| !parents.is_empty()) {
                Some(parents) => self.parents.insert(key.clone(), parents),
                None => self.parents.remove(key),
            };
            if warnings.is_empty() {
                self.warnings.remove(key);
            } else {
                self.warnings.insert(key.clone(), warnings);
            }
        }
        self.outcomes.replace(unit, (resources, lowered), depends_on, diff)
    }

    /// Returns whether an object is a policy with a selector that selects nothing.
    fn is_unused(&self, key: &ObjectKey) -> bool {
        let Some(object) = self.store.get(key).filter(|object| object.kind().is_policy()) else {
            return false;
        };
        !store::selector(object).is_empty() && !self.selects_something(object)
    }
}

/// Computes the resources of an object; none if it is gone.
fn of_key(context: &mut Context<'_>, key: &ObjectKey, computed: &mut Computed) -> Vec<Resource> {
    let Some(object) = context.store.get(key) else { return Vec::new() };
    let counter = match object {
        Object::Pod(_) | Object::WorkloadEntry(_) | Object::EndpointSlice(_) => {
            &mut computed.workloads
        }
        Object::Service(_) | Object::ServiceEntry(_) => &mut computed.services,
        Object::AuthorizationPolicy(_) | Object::PeerAuthentication(_) => &mut computed.policies,
        // Nothing much.
        Object::Gateway(_)
        | Object::MeshConfig(_)
        | Object::DestinationRule(_)
        | Object::VirtualService(_) => {
            return of_object(context, object);
        }
        Object::Namespace(_)
        | Object::Node(_)
        | Object::ServiceAccount(_)
        | Object::Secret(_)
        | Object::HttpRoute(_)
        | Object::GrpcRoute(_)
        | Object::TlsRoute(_)
        | Object::TcpRoute(_)
        | Object::ReferenceGrant(_) => return Vec::new(),
    };
    *counter += 1;
    of_object(context, object)
}

fn of_object(context: &mut Context<'_>, object: &Object) -> Vec<Resource> {
    match object {
        Object::Pod(pod) => workload::of_pod(context, pod).into_iter().collect(),
        Object::WorkloadEntry(entry) => {
            workload::of_workload_entry(context, entry).into_iter().collect()
        }
        Object::EndpointSlice(slice) => workload::of_endpoint_slice(context, slice),
        Object::Service(service) => service::of_service(context, service),
        Object::ServiceEntry(entry) => {
            let mut resources = service::of_service_entry(context, entry);
            resources.extend(workload::of_service_entry(context, entry));
            resources
        }
        Object::AuthorizationPolicy(object) => {
            let for_nodes = policy::of_authorization_policy(context, object);
            let for_waypoints = l7::of_policy(context, object);
            for_nodes.into_iter().chain(for_waypoints).collect()
        }
        Object::PeerAuthentication(object) => {
            policy::of_peer_authentication(context, object).into_iter().collect()
        }
        Object::Gateway(gateway) => waypoint::policy_of(context, gateway).into_iter().collect(),
        Object::DestinationRule(rule) => {
            l7::note_ignored(context, rule);
            Vec::new()
        }
        Object::MeshConfig(config) => {
            l7::settings(context, &config.metadata.name).into_iter().collect()
        }
        Object::VirtualService(service) => {
            l7::note_without_effect(context, service);
            Vec::new()
        }
        Object::Namespace(_)
        | Object::Node(_)
        | Object::ServiceAccount(_)
        | Object::Secret(_)
        | Object::HttpRoute(_)
        | Object::GrpcRoute(_)
        | Object::TlsRoute(_)
        | Object::TcpRoute(_)
        | Object::ReferenceGrant(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
