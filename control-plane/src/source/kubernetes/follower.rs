//! What the changes of one kind come to: pure.

use std::collections::HashMap;

use kube::runtime::watcher::Event as WatchEvent;
use serde_json::Value;

use super::{Batch, JsonEvent, ObjectError, Stamp, StampEvent};
use crate::{
    mesh::{Event, is_judged},
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
    /// The versions in it that can be used.
    stamped: HashMap<ObjectName, Stamp>,
    refused: Vec<ObjectError>,
}

// === impl Follower ===

impl Follower {
    pub(super) fn new(kind: ObjectKind) -> Self {
        let (known, listed) = (HashMap::new(), HashMap::new());
        Self { kind, known, listed, stamped: HashMap::new(), refused: Vec::new() }
    }

    /// Returns what an event means; nothing while a list is in progress.
    pub(super) fn take(&mut self, event: JsonEvent) -> Option<Batch> {
        match event {
            WatchEvent::Init => {
                self.listed.clear();
                self.stamped.clear();
                None
            }
            WatchEvent::InitApply(object) => {
                let (name, stamp) = (name(&object), self.stamp(&object));
                let object = self.read(object);
                if object.is_some() {
                    self.stamped.extend(stamp.map(|stamp| (name.clone(), stamp)));
                }
                // A version that is refused leaves the one before in force.
                let object = object.or_else(|| self.known.get(&name).cloned());
                self.listed.extend(object.map(|object| (name, object)));
                None
            }
            WatchEvent::InitDone => {
                self.known = std::mem::take(&mut self.listed);
                Some(self.relisted())
            }
            WatchEvent::Apply(object) => {
                let (name, stamp) = (name(&object), self.stamp(&object));
                let object = self.read(object);
                let key = self.key(name.clone());
                let stamp = stamp.map(|stamp| match object {
                    Some(_) => StampEvent::Taken(key, stamp),
                    None => StampEvent::Lost(key),
                });
                let events = object.map(|object| {
                    self.known.insert(name, object.clone());
                    Event::Applied(object)
                });
                Some(self.batch(events, stamp))
            }
            WatchEvent::Delete(object) => {
                let name = name(&object);
                self.known.remove(&name);
                let key = self.key(name);
                let stamp = is_judged(self.kind).then(|| StampEvent::Lost(key.clone()));
                Some(self.batch(Some(Event::Deleted(key)), stamp))
            }
        }
    }

    /// Returns that there are no objects of the kind.
    pub(super) fn none(&mut self) -> Batch {
        self.known.clear();
        self.stamped.clear();
        self.relisted()
    }

    /// Returns that the objects are those that are known.
    pub(super) fn unchanged(&mut self) -> Batch {
        self.relisted()
    }

    fn relisted(&mut self) -> Batch {
        let objects = self.known.values().cloned().collect();
        let stamps = std::mem::take(&mut self.stamped);
        let stamps = is_judged(self.kind).then_some(StampEvent::Relisted(self.kind, stamps));
        self.batch(Some(Event::Relisted(self.kind, objects)), stamps)
    }

    fn batch(&mut self, event: Option<Event>, stamp: Option<StampEvent>) -> Batch {
        Batch {
            events: event.into_iter().collect(),
            stamps: stamp.into_iter().collect(),
            refused: std::mem::take(&mut self.refused),
        }
    }

    fn stamp(&self, object: &Value) -> Option<Stamp> {
        is_judged(self.kind).then(|| Stamp::read(object))
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
    use crate::source::kubernetes::Stamps;

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

    #[test]
    fn a_version_is_stamped_if_it_is_taken_and_the_stamp_is_lost_if_it_is_refused() {
        let versioned = |action, version: &str| {
            let mut policy = policy("a", action);
            policy["metadata"]["resourceVersion"] = version.into();
            policy["metadata"]["generation"] = 3.into();
            policy
        };
        let mut follower = Follower::new(ObjectKind::AuthorizationPolicy);
        let mut stamps = Stamps::default();
        let mut version_after = |event| {
            let batch = follower.take(event);
            batch.into_iter().flat_map(|batch| batch.stamps).for_each(|event| stamps.apply(event));
            stamps.iter().next().map(|(_, stamp)| (stamp.version.to_string(), stamp.generation))
        };
        let at = |version: &str| Some((version.to_owned(), Some(3)));
        assert_eq!(version_after(WatchEvent::Apply(versioned("DENY", "1"))), at("1"));
        assert_eq!(version_after(WatchEvent::Apply(versioned("MAYBE", "2"))), None);
        assert_eq!(version_after(WatchEvent::Init), None);
        assert_eq!(version_after(WatchEvent::InitApply(versioned("DENY", "3"))), None);
        assert_eq!(version_after(WatchEvent::InitDone), at("3"));
        assert_eq!(version_after(WatchEvent::Delete(versioned("DENY", "4"))), None);
    }
}
