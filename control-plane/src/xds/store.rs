//! The current resources, in the order of their last change.
//!
//! Pure: no clock, no locks, no I/O. To find what a client has not been told, start behind the last
//! change that it knows; a resource that changed many times since is found once.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    ops::Bound,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;

use super::{frame, limits::MAX_TOMBSTONES, resource_type::ResourceType};
use crate::resource::{Change, Kind, Resource, ResourceName, Version};

/// Position in the order of changes of one collection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position(u64);

/// Everything that clients are told.
#[derive(Debug)]
pub struct Store {
    addresses: Collection,
    policies: Collection,
    credentials: Collection,
    l7: Collection,
}

/// Resources that share their names: no two have the same.
#[derive(Debug)]
pub struct Collection {
    latest: Position,
    /// Removals up to here are forgotten.
    horizon: Position,
    max_tombstones: usize,
    /// Every resource once, and those that are gone, by their last change.
    changes: BTreeMap<Position, Slot>,
    names: HashMap<ResourceName, Named>,
    /// Positions of what is gone.
    tombstones: BTreeSet<Position>,
    /// How many resources there are, by kind.
    counts: [usize; Kind::COUNT],
    aliases: Names,
    /// Workloads by the services that they are endpoints of.
    endpoints: Names,
}

/// What is at a position.
#[derive(Clone, Debug)]
pub enum Slot {
    /// A resource.
    Live(Arc<Entry>),
    /// The name of a resource that is gone.
    Gone(ResourceName, Kind),
}

/// A resource with its encoded forms.
#[derive(Debug)]
pub struct Entry {
    resource: Arc<Resource>,
    /// Encoded when first sent: its own type, and `Address`.
    own_head: OnceLock<Bytes>,
    address_head: OnceLock<Bytes>,
}

/// What is known of a name: all that a client who comes back with many of them is compared with.
#[derive(Clone, Copy, Debug)]
struct Named {
    at: Position,
    /// None if the resource is gone.
    live: Option<(Kind, Version)>,
}

/// Names of resources by a further name, which all resources of a mesh may have.
#[derive(Debug, Default)]
struct Names(HashMap<Box<str>, HashSet<ResourceName>>);

// === impl Position ===

impl Position {
    fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

// === impl Store ===

impl Default for Store {
    fn default() -> Self {
        Self::with_max_tombstones(MAX_TOMBSTONES)
    }
}

impl Store {
    /// Creates an empty store that remembers so many removals in each collection.
    pub fn with_max_tombstones(max: usize) -> Self {
        let collection = || Collection::new(max);
        Self {
            addresses: collection(),
            policies: collection(),
            credentials: collection(),
            l7: collection(),
        }
    }

    /// Takes a change up; returns whether it changes anything.
    pub fn apply(&mut self, change: Change) -> bool {
        let collection = match change.kind {
            Kind::Workload | Kind::Service => &mut self.addresses,
            Kind::Authorization => &mut self.policies,
            Kind::Credential => &mut self.credentials,
            Kind::L7 => &mut self.l7,
        };
        match change.resource {
            Some(resource) => collection.insert(resource),
            None => collection.remove(change.kind, &change.name),
        }
    }

    /// Returns the collection that holds resources of the given type, perhaps among others.
    pub fn of(&self, resource_type: ResourceType) -> &Collection {
        match resource_type {
            ResourceType::Authorization => &self.policies,
            ResourceType::Address | ResourceType::Workload | ResourceType::Service => {
                &self.addresses
            }
            ResourceType::Credential => &self.credentials,
            ResourceType::L7 => &self.l7,
        }
    }

    /// Returns how many resources of the given kind there are.
    pub fn count(&self, kind: Kind) -> usize {
        let collections = [&self.addresses, &self.policies, &self.credentials, &self.l7];
        collections.iter().map(|collection| collection.counts[kind as usize]).sum()
    }

    /// Returns every resource of the given type.
    pub fn live(&self, resource_type: ResourceType) -> impl Iterator<Item = &Arc<Entry>> {
        let all = self.of(resource_type).live().map(|(_, entry)| entry);
        all.filter(move |entry| resource_type.carries(entry.kind()))
    }
}

// === impl Collection ===

impl Collection {
    fn new(max_tombstones: usize) -> Self {
        Self {
            latest: Position::default(),
            horizon: Position::default(),
            max_tombstones,
            changes: BTreeMap::new(),
            names: HashMap::new(),
            tombstones: BTreeSet::new(),
            counts: [0; Kind::COUNT],
            aliases: Names::default(),
            endpoints: Names::default(),
        }
    }

    /// Returns the position of the last change.
    pub fn latest(&self) -> Position {
        self.latest
    }

    /// Returns the position up to which removals are forgotten.
    pub fn horizon(&self) -> Position {
        self.horizon
    }

    /// Returns the changes behind `position`, in their order.
    pub fn after(&self, position: Position) -> impl Iterator<Item = (Position, &Slot)> {
        let behind = (Bound::Excluded(position), Bound::Unbounded);
        self.changes.range(behind).map(|(at, slot)| (*at, slot))
    }

    /// Returns the resource at a position, unless it changed since.
    pub fn at(&self, position: Position) -> Option<&Arc<Entry>> {
        match self.changes.get(&position)? {
            Slot::Live(entry) => Some(entry),
            Slot::Gone(..) => None,
        }
    }

    /// Returns the resource with this name.
    pub fn get(&self, name: &str) -> Option<(Position, &Arc<Entry>)> {
        let position = self.names.get(name)?.at;
        Some((position, self.at(position)?))
    }

    /// Returns what the resource with this name is about and its version, by one look-up.
    pub fn current(&self, name: &str) -> Option<(Position, Kind, Version)> {
        let Named { at, live } = *self.names.get(name)?;
        let (kind, version) = live?;
        Some((at, kind, version))
    }

    /// Returns the resources with this name or alias.
    pub fn find<'a>(&'a self, key: &'a str) -> impl Iterator<Item = (Position, &'a Arc<Entry>)> {
        let by_alias = self.aliases.of(key).filter_map(|name| self.get(name.as_str()));
        self.get(key).into_iter().chain(by_alias)
    }

    /// Returns the workloads that are endpoints of a service.
    pub fn endpoints<'a>(
        &'a self,
        service: &'a str,
    ) -> impl Iterator<Item = (Position, &'a Arc<Entry>)> {
        self.endpoints.of(service).filter_map(|name| self.get(name.as_str()))
    }

    /// Returns every resource, in the order of their last changes.
    pub fn live(&self) -> impl Iterator<Item = (Position, &Arc<Entry>)> {
        self.changes.iter().filter_map(|(position, slot)| match slot {
            Slot::Live(entry) => Some((*position, entry)),
            Slot::Gone(..) => None,
        })
    }

    fn insert(&mut self, resource: Arc<Resource>) -> bool {
        if self.get(resource.name.as_str()).is_some_and(|(_, old)| *old.resource == *resource) {
            return false;
        }
        self.take(resource.name.as_str());
        let name = resource.name.clone();
        for alias in &resource.aliases {
            self.aliases.add(alias, &name);
        }
        for service in &resource.services {
            self.endpoints.add(service, &name);
        }
        self.counts[resource.kind as usize] += 1;
        self.put(name, Slot::Live(Arc::new(Entry::new(resource))));
        true
    }

    fn remove(&mut self, kind: Kind, name: &ResourceName) -> bool {
        if self.get(name.as_str()).is_none_or(|(_, entry)| entry.kind() != kind) {
            return false;
        }
        self.take(name.as_str());
        self.put(name.clone(), Slot::Gone(name.clone(), kind));
        self.tombstones.insert(self.latest);
        if self.tombstones.len() > self.max_tombstones {
            self.forget_oldest_removal();
        }
        true
    }

    fn put(&mut self, name: ResourceName, slot: Slot) {
        self.latest = self.latest.next();
        let live = match &slot {
            Slot::Live(entry) => Some((entry.kind(), entry.resource().version)),
            Slot::Gone(..) => None,
        };
        self.names.insert(name, Named { at: self.latest, live });
        self.changes.insert(self.latest, slot);
    }

    /// Takes out what is known under a name.
    fn take(&mut self, name: &str) {
        let Some(Named { at: position, .. }) = self.names.remove(name) else { return };
        match self.changes.remove(&position) {
            Some(Slot::Live(entry)) => {
                let resource = &entry.resource;
                self.counts[resource.kind as usize] -= 1;
                for alias in &resource.aliases {
                    self.aliases.remove(alias, &resource.name);
                }
                for service in &resource.services {
                    self.endpoints.remove(service, &resource.name);
                }
            }
            Some(Slot::Gone(..)) => {
                self.tombstones.remove(&position);
            }
            None => {}
        }
    }

    fn forget_oldest_removal(&mut self) {
        let Some(position) = self.tombstones.pop_first() else { return };
        self.horizon = position;
        if let Some(Slot::Gone(name, _)) = self.changes.remove(&position) {
            self.names.remove(&name);
        }
    }
}

// === impl Entry ===

impl Entry {
    pub(super) fn new(resource: Arc<Resource>) -> Self {
        Self { resource, own_head: OnceLock::new(), address_head: OnceLock::new() }
    }

    /// Returns the resource.
    pub fn resource(&self) -> &Resource {
        &self.resource
    }

    /// Returns what the resource is about.
    pub fn kind(&self) -> Kind {
        self.resource.kind
    }

    /// Returns how many bytes the resource takes in a response.
    pub(super) fn wire_len(&self, resource_type: ResourceType) -> usize {
        self.head(resource_type).len() + self.resource.body.len()
    }

    /// Returns what is before the content in a response.
    pub(super) fn head(&self, resource_type: ResourceType) -> &Bytes {
        let head = match resource_type {
            ResourceType::Address => &self.address_head,
            ResourceType::Authorization
            | ResourceType::Workload
            | ResourceType::Service
            | ResourceType::Credential
            | ResourceType::L7 => &self.own_head,
        };
        head.get_or_init(|| frame::head(resource_type, &self.resource))
    }

    pub(super) fn body(&self) -> &Bytes {
        &self.resource.body
    }
}

// === impl Names ===

impl Names {
    fn of(&self, key: &str) -> impl Iterator<Item = &ResourceName> {
        self.0.get(key).into_iter().flatten()
    }

    fn add(&mut self, key: &str, name: &ResourceName) {
        match self.0.get_mut(key) {
            Some(names) => drop(names.insert(name.clone())),
            None => drop(self.0.insert(key.into(), HashSet::from([name.clone()]))),
        }
    }

    fn remove(&mut self, key: &str, name: &ResourceName) {
        let Some(names) = self.0.get_mut(key) else { return };
        names.remove(name);
        if names.is_empty() {
            self.0.remove(key);
        }
    }
}

#[cfg(test)]
mod tests;
