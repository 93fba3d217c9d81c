//! Indexes: of objects by what they have, and of selectors by what they demand.

use std::{
    borrow::Borrow,
    collections::{HashMap, HashSet},
    hash::Hash,
    sync::Arc,
};

use crate::object::{Labels, ObjectKey};

/// Several values for each key.
#[derive(Clone, Debug)]
pub(super) struct MultiMap<K, V>(HashMap<K, HashSet<V>>);

/// What happens to an entry of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    /// It appears.
    Insert,
    /// It goes away.
    Remove,
}

/// Name and value of a label.
type Label = (Arc<str>, Arc<str>);

/// Objects with labels, by namespace.
#[derive(Clone, Debug, Default)]
pub(super) struct LabelIndex(HashMap<Arc<str>, Labelled>);

/// Objects of one namespace.
#[derive(Clone, Debug, Default)]
struct Labelled {
    all: HashSet<ObjectKey>,
    by_label: MultiMap<Label, ObjectKey>,
}

/// Objects with selectors, by namespace and by one of the labels that they demand.
#[derive(Clone, Debug, Default)]
pub(super) struct SelectorIndex(HashMap<Arc<str>, MultiMap<Label, (Labels, ObjectKey)>>);

// === impl MultiMap ===

impl<K, V> Default for MultiMap<K, V> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash, V: Eq + Hash> MultiMap<K, V> {
    pub(super) fn apply(&mut self, op: Op, key: K, value: V) {
        match op {
            Op::Insert => {
                self.0.entry(key).or_default().insert(value);
            }
            Op::Remove => self.remove(&key, &value),
        }
    }

    fn remove(&mut self, key: &K, value: &V) {
        if let Some(values) = self.0.get_mut(key) {
            values.remove(value);
            if values.is_empty() {
                self.0.remove(key);
            }
        }
    }

    pub(super) fn get<Q>(&self, key: &Q) -> impl Iterator<Item = &V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.0.get(key).into_iter().flatten()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &K> {
        self.0.keys()
    }

    fn count(&self, key: &K) -> usize {
        self.0.get(key).map_or(0, HashSet::len)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

// === impl LabelIndex ===

impl LabelIndex {
    pub(super) fn apply(&mut self, op: Op, key: &ObjectKey, labels: &Labels) {
        let namespace = self.0.entry(key.name.namespace.clone()).or_default();
        match op {
            Op::Insert => namespace.all.insert(key.clone()),
            Op::Remove => namespace.all.remove(key),
        };
        for label in labels.iter() {
            namespace.by_label.apply(op, label.clone(), key.clone());
        }
        if namespace.all.is_empty() {
            self.0.remove(&key.name.namespace);
        }
    }

    /// Returns the objects of a namespace.
    pub(super) fn of_namespace(&self, namespace: &str) -> impl Iterator<Item = &ObjectKey> {
        self.0.get(namespace).into_iter().flat_map(|namespace| &namespace.all)
    }

    /// Returns all objects.
    pub(super) fn all(&self) -> impl Iterator<Item = &ObjectKey> {
        self.0.values().flat_map(|namespace| &namespace.all)
    }

    /// Returns objects of a namespace among which are all that have the labels of `selector`: those
    /// with the rarest of them.
    pub(super) fn candidates(
        &self,
        namespace: &str,
        selector: &Labels,
    ) -> impl Iterator<Item = &ObjectKey> {
        self.0.get(namespace).into_iter().flat_map(|namespace| namespace.candidates(selector))
    }

    /// Like [`Self::candidates`], of all namespaces.
    pub(super) fn candidates_anywhere(
        &self,
        selector: &Labels,
    ) -> impl Iterator<Item = &ObjectKey> {
        self.0.values().flat_map(|namespace| namespace.candidates(selector))
    }
}

// === impl Labelled ===

impl Labelled {
    fn candidates(&self, selector: &Labels) -> impl Iterator<Item = &ObjectKey> {
        let rarest = selector.iter().min_by_key(|label| self.by_label.count(label));
        rarest.into_iter().flat_map(|label| self.by_label.get(label))
    }
}

// === impl SelectorIndex ===

impl SelectorIndex {
    /// Adds or removes an object that selects others of its namespace; an empty selector selects
    /// nothing.
    pub(super) fn apply(&mut self, op: Op, key: &ObjectKey, selector: &Labels) {
        let Some(label) = selector.iter().next() else { return };
        let namespace = self.0.entry(key.name.namespace.clone()).or_default();
        namespace.apply(op, label.clone(), (selector.clone(), key.clone()));
        if namespace.is_empty() {
            self.0.remove(&key.name.namespace);
        }
    }

    /// Returns the objects of a namespace that select something with `labels`.
    pub(super) fn selecting<'a>(
        &'a self,
        namespace: &str,
        labels: &'a Labels,
    ) -> impl Iterator<Item = &'a ObjectKey> {
        let selectors = self.0.get(namespace);
        let candidates = selectors
            .into_iter()
            .flat_map(|selectors| labels.iter().flat_map(|label| selectors.get(label)));
        candidates.filter(|(selector, _)| labels.contains(selector)).map(|(_, key)| key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::{ObjectKind, ObjectName};

    fn key(name: &str) -> ObjectKey {
        ObjectKey { kind: ObjectKind::Pod, name: ObjectName::new("shop", name) }
    }

    fn labels(labels: &[(&str, &str)]) -> Labels {
        labels.iter().copied().collect()
    }

    #[test]
    fn selectors_and_objects_find_each_other_until_they_are_removed() {
        let both = labels(&[("app", "cart"), ("v", "1")]);
        let app = labels(&[("app", "cart")]);
        let other = labels(&[("app", "cart"), ("v", "2")]);
        let mut selectors = SelectorIndex::default();
        for (name, selector) in [("both", &both), ("app", &app), ("other", &other)] {
            selectors.apply(Op::Insert, &key(name), selector);
        }
        let found = |selectors: &SelectorIndex, namespace| {
            let mut found: Vec<_> = selectors.selecting(namespace, &both).cloned().collect();
            found.sort();
            found
        };
        assert_eq!(found(&selectors, "shop"), [key("app"), key("both")]);
        assert_eq!(found(&selectors, "bank"), []);
        selectors.apply(Op::Remove, &key("app"), &app);
        assert_eq!(found(&selectors, "shop"), [key("both")]);

        let mut objects = LabelIndex::default();
        objects.apply(Op::Insert, &key("a"), &both);
        objects.apply(Op::Insert, &key("b"), &other);
        assert_eq!(objects.candidates("shop", &both).collect::<Vec<_>>(), [&key("a")]);
        assert_eq!(objects.candidates("shop", &app).count(), 2);
        objects.apply(Op::Remove, &key("a"), &both);
        assert_eq!(objects.candidates("shop", &both).count(), 0);
        assert_eq!(objects.of_namespace("shop").count(), 1);
    }
}
