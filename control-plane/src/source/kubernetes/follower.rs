//! What the changes of one kind come to: pure.

use std::collections::HashMap;

use kube::runtime::watcher::Event as WatchEvent;
use serde_json::Value;

use super::{Batch, JsonEvent, ObjectError};
use crate::{
    mesh::Event,
    object::{self, InvalidObject, Object, ObjectKey, ObjectKind, ObjectName, Read},
};

/// The objects of a kind as far as they are known.
#[derive(Debug)]
pub(super) struct Follower {
    kind: ObjectKind,
    /// The last good version of each.
    known: HashMap<ObjectName, Object>,
    /// What a list in progress has brought.
    listed: HashMap<ObjectName, Object>,
    refused: Vec<ObjectError>,
}

// === impl Follower ===

impl Follower {
    pub(super) fn new(kind: ObjectKind) -> Self {
        let (known, listed) = (HashMap::new(), HashMap::new());
        Self { kind, known, listed, refused: Vec::new() }
    }

    /// Returns what an event means; nothing while a list is in progress.
    pub(super) fn take(&mut self, event: JsonEvent) -> Option<Batch> {
        match event {
            WatchEvent::Init => {
                self.listed.clear();
                None
            }
            WatchEvent::InitApply(object) => {
                let name = name(&object);
                // A version that is refused leaves the one before in force.
                let object = self.read(object).or_else(|| self.known.get(&name).cloned());
                self.listed.extend(object.map(|object| (name, object)));
                None
            }
            WatchEvent::InitDone => {
                self.known = std::mem::take(&mut self.listed);
                Some(self.relisted())
            }
            WatchEvent::Apply(object) => {
                let name = name(&object);
                let events = self.read(object).map(|object| {
                    self.known.insert(name, object.clone());
                    Event::Applied(object)
                });
                Some(self.batch(events.into_iter().collect()))
            }
            WatchEvent::Delete(object) => {
                let name = name(&object);
                self.known.remove(&name);
                Some(self.batch(vec![Event::Deleted(self.key(name))]))
            }
        }
    }

    /// Returns that there are no objects of the kind.
    pub(super) fn none(&mut self) -> Batch {
        self.known.clear();
        self.relisted()
    }

    fn relisted(&mut self) -> Batch {
        let objects = self.known.values().cloned().collect();
        self.batch(vec![Event::Relisted(self.kind, objects)])
    }

    fn batch(&mut self, events: Vec<Event>) -> Batch {
        Batch { events, refused: std::mem::take(&mut self.refused) }
    }

    fn key(&self, name: ObjectName) -> ObjectKey {
        ObjectKey { kind: self.kind, name }
    }

    /// Reads an object; one that cannot be used is set down as refused.
    fn read(&mut self, value: Value) -> Option<Object> {
        let name = name(&value);
        match object::read(value) {
            Ok(Read::Object(object)) => Some(object),
            // Another config map, or something that only shares its name with a kind.
            Ok(Read::Other(_) | Read::List(_)) => None,
            Err(error) => {
                self.refuse(name, error);
                None
            }
        }
    }

    fn refuse(&mut self, name: ObjectName, error: InvalidObject) {
        self.refused.push(ObjectError { key: self.key(name), error });
    }
}

fn name(object: &Value) -> ObjectName {
    let text = |field| object["metadata"][field].as_str().unwrap_or_default();
    ObjectName::new(text("namespace"), text("name"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn policy(name: &str, action: &str) -> Value {
        json!({
            "apiVersion": "security.istio.io/v1",
            "kind": "AuthorizationPolicy",
            "metadata": { "namespace": "shop", "name": name },
            "spec": { "action": action, "rules": [{}] },
        })
    }

    fn applied(follower: &mut Follower, object: Value) -> Object {
        let batch = follower.take(WatchEvent::Apply(object)).unwrap();
        let [Event::Applied(object)] = &*batch.events else { panic!("{batch:?}") };
        object.clone()
    }

    #[test]
    fn a_list_replaces_everything_and_a_refused_version_leaves_the_one_before() {
        let mut follower = Follower::new(ObjectKind::AuthorizationPolicy);
        assert_eq!(follower.take(WatchEvent::Init), None);
        assert_eq!(follower.take(WatchEvent::InitApply(policy("a", "DENY"))), None);
        let first = follower.take(WatchEvent::InitDone).unwrap();
        let [Event::Relisted(ObjectKind::AuthorizationPolicy, objects)] = &*first.events else {
            panic!("{first:?}");
        };
        assert_eq!(objects.len(), 1);

        let good = applied(&mut follower, policy("b", "ALLOW"));
        let broken = follower.take(WatchEvent::Apply(policy("b", "MAYBE"))).unwrap();
        assert_eq!(broken.events, []);
        assert_eq!(broken.refused[0].key.to_string(), "AuthorizationPolicy shop/b");

        follower.take(WatchEvent::Init);
        follower.take(WatchEvent::InitApply(policy("b", "MAYBE")));
        let relisted = follower.take(WatchEvent::InitDone).unwrap();
        assert_eq!(relisted.events, [Event::Relisted(ObjectKind::AuthorizationPolicy, vec![good])]);
        assert_eq!(relisted.refused.len(), 1);
    }

    #[test]
    fn a_deleted_object_is_gone_and_so_are_all_of_a_kind_that_is_not_installed() {
        let mut follower = Follower::new(ObjectKind::AuthorizationPolicy);
        let object = applied(&mut follower, policy("a", "DENY"));
        let deleted = follower.take(WatchEvent::Delete(policy("a", "DENY"))).unwrap();
        assert_eq!(deleted.events, [Event::Deleted(object.key())]);
        applied(&mut follower, policy("a", "DENY"));
        let none = follower.none().events;
        assert_eq!(none, [Event::Relisted(ObjectKind::AuthorizationPolicy, Vec::new())]);
    }
}
