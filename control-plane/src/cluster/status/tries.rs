//! Which writes not to do again yet: pure.

use std::collections::HashMap;

use crate::object::ObjectKey;

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is done, or refused since the object is not at this version any more: what it is then comes
    /// with the next version.
    Settled,
    /// It may not be done.
    Failed,
}

/// The writes that were tried, by object: at which version.
#[derive(Debug, Default)]
pub(super) struct Tries(HashMap<ObjectKey, (Box<str>, Outcome)>);

// === impl Tries ===

impl Tries {
    /// Returns whether a version of an object has been tried.
    pub(super) fn have(&self, key: &ObjectKey, version: &str) -> bool {
        self.0.get(key).is_some_and(|(tried, _)| **tried == *version)
    }

    /// Sets down what became of a write.
    pub(super) fn add(&mut self, key: ObjectKey, version: Box<str>, outcome: Outcome) {
        self.0.insert(key, (version, outcome));
    }

    /// Returns whether something has failed.
    pub(super) fn have_failed(&self) -> bool {
        self.0.values().any(|(_, outcome)| *outcome == Outcome::Failed)
    }

    /// Lets what has failed be tried again.
    pub(super) fn retry(&mut self) {
        self.0.retain(|_, (_, outcome)| *outcome != Outcome::Failed);
    }

    /// Forgets versions that objects do not have any more.
    pub(super) fn forget(&mut self, is_at: impl Fn(&ObjectKey, &str) -> bool) {
        self.0.retain(|key, (version, _)| is_at(key, version));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::{ObjectKind, ObjectName};

    #[test]
    fn what_was_tried_is_tried_again_after_a_failure_or_at_another_version() {
        let key = |name| ObjectKey { kind: ObjectKind::Service, name: ObjectName::new("a", name) };
        let mut tries = Tries::default();
        tries.add(key("done"), "1".into(), Outcome::Settled);
        assert!(!tries.have_failed());
        tries.add(key("failed"), "1".into(), Outcome::Failed);
        assert!(tries.have(&key("done"), "1") && tries.have(&key("failed"), "1"));
        assert!(!tries.have(&key("done"), "2") && !tries.have(&key("other"), "1"));
        assert!(tries.have_failed());
        tries.retry();
        assert!(tries.have(&key("done"), "1") && !tries.have(&key("failed"), "1"));
        tries.forget(|_, version| version != "1");
        assert!(!tries.have(&key("done"), "1"));
    }
}
