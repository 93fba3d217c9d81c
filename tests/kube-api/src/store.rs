//! The objects, their versions, and what happened to them.

use std::{
    collections::{BTreeMap, VecDeque},
    hash::{BuildHasher as _, RandomState},
};

use serde_json::{Value, json};

use crate::{
    answer::Refusal,
    object::{Object, metadata, metadata_mut, same_content},
    path::Place,
    resource::Resource,
};

/// Position of an object in a list: its namespace and name.
pub(crate) type Key = (String, String);

/// A change, as watches are told of it.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) version: u64,
    pub(crate) resource: &'static Resource,
    pub(crate) before: Option<Object>,
    /// The object after the change; of a deleted one the last state, at the deletion's version.
    pub(crate) object: Object,
    pub(crate) is_deletion: bool,
}

/// All objects of the server.
#[derive(Debug)]
pub(crate) struct Store {
    objects: BTreeMap<(&'static str, &'static str), BTreeMap<Key, Object>>,
    version: u64,
    history: VecDeque<Event>,
    /// What happened up to here is forgotten.
    forgotten: u64,
    next_uid: u64,
    /// First part of all uids: objects of two servers have different ones.
    uid_prefix: u32,
}

// === impl Store ===

impl Store {
    pub(crate) fn new() -> Self {
        Self {
            objects: BTreeMap::new(),
            version: 1,
            history: VecDeque::new(),
            forgotten: 0,
            next_uid: 1,
            uid_prefix: random(),
        }
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Forgets what happened: watches and lists of old versions expire.
    pub(crate) fn compact(&mut self) {
        self.history.clear();
        self.forgotten = self.version;
    }

    /// Returns what happened after `version`.
    pub(crate) fn since(&self, version: u64) -> Result<impl Iterator<Item = &Event>, Refusal> {
        if version < self.forgotten {
            return Err(Refusal::Expired);
        }
        let start = self.history.partition_point(|event| event.version <= version);
        Ok(self.history.range(start..))
    }

    /// Returns the objects of a collection in order, after `start`.
    pub(crate) fn list(
        &self,
        place: &Place,
        start: Option<&Key>,
    ) -> impl Iterator<Item = (&Key, &Object)> {
        let objects = self.objects.get(&id(place.resource));
        let namespace = place.namespace.clone();
        let start = start.cloned();
        objects.into_iter().flatten().filter(move |(key, _)| {
            namespace.as_ref().is_none_or(|namespace| key.0 == *namespace)
                && start.as_ref().is_none_or(|start| *key > start)
        })
    }

    pub(crate) fn get(&self, place: &Place, name: &str) -> Result<&Object, Refusal> {
        let found = self.objects.get(&id(place.resource)).and_then(|o| o.get(&key(place, name)));
        found.ok_or_else(|| Refusal::NotFound(describe(place, name)))
    }

    pub(crate) fn create(&mut self, place: &Place, mut object: Object) -> Result<Object, Refusal> {
        if metadata(&object, "name").is_empty() {
            let prefix = metadata(&object, "generateName").to_owned();
            if prefix.is_empty() {
                return Err(Refusal::Invalid("metadata.name is required".to_owned()));
            }
            let name = format!("{prefix}{:05x}", self.next_uid);
            metadata_mut(&mut object).insert("name".to_owned(), name.into());
        }
        let name = metadata(&object, "name").to_owned();
        let place = self.placed(place, &object)?;
        if self.get(&place, &name).is_ok() {
            return Err(Refusal::AlreadyExists(describe(&place, &name)));
        }
        let uid = format!("{:08x}-0000-4000-8000-{:012x}", self.uid_prefix, self.next_uid);
        self.next_uid += 1;
        let fields = metadata_mut(&mut object);
        fields.insert("uid".to_owned(), uid.into());
        fields.insert("creationTimestamp".to_owned(), timestamp().into());
        fields.insert("generation".to_owned(), 1.into());
        if let Some(namespace) = &place.namespace {
            fields.insert("namespace".to_owned(), namespace.as_str().into());
        }
        Ok(self.put(&place, &name, None, object))
    }

    /// Replaces an object, or only its status.
    pub(crate) fn update(
        &mut self,
        place: &Place,
        name: &str,
        mut object: Object,
        status_only: bool,
    ) -> Result<Object, Refusal> {
        let before = self.get(place, name)?.clone();
        let wanted = metadata(&object, "resourceVersion");
        if !wanted.is_empty() && wanted != metadata(&before, "resourceVersion") {
            return Err(Refusal::Conflict(describe(place, name)));
        }
        let uid = metadata(&object, "uid");
        if !uid.is_empty() && uid != metadata(&before, "uid") {
            return Err(Refusal::Conflict(describe(place, name)));
        }
        if status_only {
            let status = object.remove("status");
            let annotations = metadata_mut(&mut object).remove("annotations");
            object.clone_from(&before);
            set_or_remove(&mut object, "status", status);
            // The status of a pod is a way to its annotations, too.
            if place.resource.kind == "Pod" {
                set_or_remove(metadata_mut(&mut object), "annotations", annotations);
            }
        }
        for field in ["uid", "creationTimestamp", "generation", "namespace", "name"] {
            let kept = before.get("metadata").and_then(|m| m.get(field)).cloned();
            set_or_remove(metadata_mut(&mut object), field, kept);
        }
        if same_content(&before, &object) {
            return Ok(before);
        }
        if before.get("spec") != object.get("spec") {
            let generation = before["metadata"]["generation"].as_u64().unwrap_or_default() + 1;
            metadata_mut(&mut object).insert("generation".to_owned(), generation.into());
        }
        Ok(self.put(place, name, Some(before), object))
    }

    pub(crate) fn delete(&mut self, place: &Place, name: &str) -> Result<Object, Refusal> {
        let before = self.get(place, name)?.clone();
        if let Some(objects) = self.objects.get_mut(&id(place.resource)) {
            objects.remove(&key(place, name));
        }
        if place.resource.kind == "Namespace" {
            self.delete_contents(name);
        }
        let object = self.versioned(before.clone());
        self.record(place.resource, Some(before), object.clone(), true);
        self.delete_owned(metadata(&object, "uid"));
        Ok(object)
    }

    /// Deletes what an object that is gone was the owner of.
    fn delete_owned(&mut self, owner: &str) {
        let is_owned = |object: &Object| {
            let owners = object.get("metadata").and_then(|m| m["ownerReferences"].as_array());
            owners.is_some_and(|owners| owners.iter().any(|reference| reference["uid"] == *owner))
        };
        for resource in crate::resource::RESOURCES.iter().filter(|r| r.namespaced) {
            let place = Place { resource, version: resource.versions[0], namespace: None };
            let found = self.list(&place, None).filter(|(_, object)| is_owned(object));
            let found: Vec<Key> = found.map(|(key, _)| key.clone()).collect();
            for (namespace, name) in found {
                // Was listed a moment ago.
                let _ = self.delete(&Place { namespace: Some(namespace), ..place.clone() }, &name);
            }
        }
    }

    fn delete_contents(&mut self, namespace: &str) {
        for resource in crate::resource::RESOURCES.iter().filter(|r| r.namespaced) {
            let version = resource.versions[0];
            let place = Place { resource, version, namespace: Some(namespace.to_owned()) };
            let names: Vec<String> =
                self.list(&place, None).map(|(key, _)| key.1.clone()).collect();
            for name in names {
                // Was listed a moment ago.
                let _ = self.delete(&place, &name);
            }
        }
    }

    /// Returns where a new object belongs.
    fn placed(&self, place: &Place, object: &Object) -> Result<Place, Refusal> {
        let mut place = place.clone();
        if !place.resource.namespaced {
            place.namespace = None;
            return Ok(place);
        }
        let own = metadata(object, "namespace");
        let namespace = place.namespace.get_or_insert_with(|| own.to_owned()).clone();
        if !own.is_empty() && own != namespace {
            let why = format!("metadata.namespace is {own}, but the path says {namespace}");
            return Err(Refusal::Invalid(why));
        }
        let known = self.objects.get(&("", "namespaces"));
        if known.is_none_or(|known| !known.contains_key(&(String::new(), namespace.clone()))) {
            return Err(Refusal::NotFound(format!("namespaces \"{namespace}\"")));
        }
        Ok(place)
    }

    fn put(&mut self, place: &Place, name: &str, before: Option<Object>, object: Object) -> Object {
        let object = self.versioned(object);
        let objects = self.objects.entry(id(place.resource)).or_default();
        objects.insert(key(place, name), object.clone());
        self.record(place.resource, before, object.clone(), false);
        object
    }

    fn versioned(&mut self, mut object: Object) -> Object {
        self.version += 1;
        let version = self.version.to_string();
        metadata_mut(&mut object).insert("resourceVersion".to_owned(), version.into());
        object
    }

    fn record(
        &mut self,
        resource: &'static Resource,
        before: Option<Object>,
        object: Object,
        is_deletion: bool,
    ) {
        let version = self.version;
        self.history.push_back(Event { version, resource, before, object, is_deletion });
    }
}

/// Names an object as `kubectl` does.
pub(crate) fn describe(place: &Place, name: &str) -> String {
    let Resource { plural, group, .. } = place.resource;
    let dot = if group.is_empty() { "" } else { "." };
    format!("{plural}{dot}{group} \"{name}\"")
}

fn id(resource: &Resource) -> (&'static str, &'static str) {
    (resource.group, resource.plural)
}

fn key(place: &Place, name: &str) -> Key {
    (place.namespace.clone().unwrap_or_default(), name.to_owned())
}

fn set_or_remove(object: &mut Object, field: &str, value: Option<Value>) {
    match value {
        Some(value) => object.insert(field.to_owned(), value),
        None => object.remove(field),
    };
}

fn random() -> u32 {
    // Its keys are random.
    let [a, b, c, d, ..] = RandomState::new().hash_one(()).to_ne_bytes();
    u32::from_ne_bytes([a, b, c, d])
}

/// Returns the time as the API writes it, to the second.
fn timestamp() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Returns the list object of a collection.
pub(crate) fn list_object(
    place: &Place,
    items: &[Value],
    version: u64,
    next: Option<String>,
) -> Value {
    let mut metadata = json!({ "resourceVersion": version.to_string() });
    if let Some(next) = next {
        metadata["continue"] = next.into();
    }
    json!({
        "kind": format!("{}List", place.resource.kind),
        "apiVersion": place.resource.api_version(place.version),
        "metadata": metadata,
        "items": items,
    })
}
