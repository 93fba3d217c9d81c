//! Which version of an object has been taken, and what its status says: apart from the objects,
//! which do not change by it.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use crate::object::{ObjectKey, ObjectKind, ObjectName};

/// The version of an object, and what its status says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// Changes with every write; a write can be made to depend on it.
    pub version: Box<str>,
    /// Counts what was wanted; some kinds have none.
    pub generation: Option<i64>,
    /// Conditions of the status, of whoever wrote them.
    pub conditions: Vec<Value>,
    /// What the status of a route says of its parents, whoever wrote it.
    pub parents: Vec<Value>,
}

/// What happened to stamps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StampEvent {
    /// A version of an object has been taken.
    Taken(ObjectKey, Stamp),
    /// An object is gone, or its present version is refused.
    Lost(ObjectKey),
    /// These are all objects of a kind.
    Relisted(ObjectKind, HashMap<ObjectName, Stamp>),
}

/// The stamps of all objects that have a status to be written.
#[derive(Debug, Default)]
pub struct Stamps(BTreeMap<ObjectKey, Stamp>);

// === impl Stamp ===

impl Stamp {
    /// Reads the stamp of an object.
    pub fn read(object: &Value) -> Self {
        let metadata = &object["metadata"];
        let list = |name: &str| object["status"][name].as_array().cloned().unwrap_or_default();
        Self {
            version: metadata["resourceVersion"].as_str().unwrap_or_default().into(),
            generation: metadata["generation"].as_i64(),
            conditions: list("conditions"),
            parents: list("parents"),
        }
    }
}

// === impl Stamps ===

impl Stamps {
    /// Applies what happened.
    pub fn apply(&mut self, event: StampEvent) {
        match event {
            StampEvent::Taken(key, stamp) => {
                self.0.insert(key, stamp);
            }
            StampEvent::Lost(key) => {
                self.0.remove(&key);
            }
            StampEvent::Relisted(kind, stamps) => {
                self.0.retain(|key, _| key.kind != kind);
                let keyed = |(name, stamp)| (ObjectKey { kind, name }, stamp);
                self.0.extend(stamps.into_iter().map(keyed));
            }
        }
    }

    /// Returns the stamp of an object.
    pub fn get(&self, key: &ObjectKey) -> Option<&Stamp> {
        self.0.get(key)
    }

    /// Returns all stamps.
    pub fn iter(&self) -> impl Iterator<Item = (&ObjectKey, &Stamp)> {
        self.0.iter()
    }
}
