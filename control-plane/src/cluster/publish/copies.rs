//! What is to be written so that every namespace has a copy: pure.

use std::collections::BTreeSet;

use kube::runtime::watcher;

use super::super::followed::Followed;

/// What happened to a namespace or to a copy, by namespace.
#[derive(Debug)]
pub(super) enum Event {
    /// A namespace, and whether it is going to stay.
    Namespace(watcher::Event<(String, bool)>),
    /// A config map.
    Copy(watcher::Event<(String, Copy)>),
}

/// A config map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Copy {
    /// What its file says.
    pub(super) content: Option<String>,
    /// Whether it was made here.
    pub(super) is_ours: bool,
}

/// A write that is due, and its namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Write {
    /// Make a copy.
    Create { namespace: String, content: String },
    /// Put the right content into a copy.
    Change { namespace: String, content: String },
    /// Remove a copy.
    Remove { namespace: String },
}

/// The namespaces, and what is in them.
#[derive(Debug)]
pub(super) struct Copies {
    wanted: Option<String>,
    namespaces: Followed<String, bool>,
    present: Followed<String, Copy>,
    /// Namespaces to look at.
    touched: BTreeSet<String>,
    failed: BTreeSet<String>,
}

// === impl Write ===

impl Write {
    pub(super) fn namespace(&self) -> &str {
        match self {
            Self::Create { namespace, .. }
            | Self::Change { namespace, .. }
            | Self::Remove { namespace } => namespace,
        }
    }
}

// === impl Copies ===

impl Copies {
    pub(super) fn new(wanted: Option<String>) -> Self {
        Self {
            wanted,
            namespaces: Followed::default(),
            present: Followed::default(),
            touched: BTreeSet::new(),
            failed: BTreeSet::new(),
        }
    }

    /// Wants another content from here on.
    pub(super) fn want(&mut self, wanted: Option<String>) {
        self.wanted = wanted;
        self.touched.extend(self.namespaces.names().cloned());
    }

    pub(super) fn take(&mut self, event: Event) {
        match event {
            Event::Namespace(event) => self.namespaces.take(event, &mut self.touched),
            Event::Copy(event) => {
                if matches!(event, watcher::Event::InitDone) {
                    // What was written a moment ago may be gone without ever having been seen.
                    self.touched.extend(self.namespaces.names().cloned());
                }
                self.present.take(event, &mut self.touched);
            }
        }
    }

    pub(super) fn has_failed(&self) -> bool {
        !self.failed.is_empty()
    }

    pub(super) fn failed(&mut self, write: Write) {
        match write {
            Write::Create { namespace, .. }
            | Write::Change { namespace, .. }
            | Write::Remove { namespace } => self.failed.insert(namespace),
        };
    }

    /// Looks again at what has failed.
    pub(super) fn retry(&mut self) {
        self.touched.append(&mut self.failed);
    }

    /// Returns what is to be written of what has been touched; nothing before everything is known.
    pub(super) fn due(&mut self) -> Vec<Write> {
        if !(self.namespaces.is_complete() && self.present.is_complete()) {
            return Vec::new();
        }
        let touched = std::mem::take(&mut self.touched);
        touched.into_iter().filter_map(|namespace| self.write(namespace)).collect()
    }

    fn write(&self, namespace: String) -> Option<Write> {
        // What is in a namespace goes with it.
        if self.namespaces.get(&namespace) != Some(&true) {
            return None;
        }
        match (&self.wanted, self.present.get(&namespace)) {
            (Some(content), None) => Some(Write::Create { namespace, content: content.clone() }),
            (Some(content), Some(copy)) if copy.content.as_ref() != Some(content) => {
                Some(Write::Change { namespace, content: content.clone() })
            }
            (None, Some(copy)) if copy.is_ours => Some(Write::Remove { namespace }),
            (Some(_), Some(_)) | (None, _) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use watcher::Event::{Apply, Delete, Init, InitApply, InitDone};

    use super::*;

    fn namespace(name: &str, stays: bool) -> (String, bool) {
        (name.to_owned(), stays)
    }

    fn copy(namespace: &str, content: &str) -> (String, Copy) {
        (namespace.to_owned(), Copy { content: Some(content.to_owned()), is_ours: true })
    }

    fn create(namespace: &str, content: &str) -> Write {
        Write::Create { namespace: namespace.to_owned(), content: content.to_owned() }
    }

    fn change(namespace: &str, content: &str) -> Write {
        Write::Change { namespace: namespace.to_owned(), content: content.to_owned() }
    }

    /// The namespaces a, b and c, of which b has an old copy and c a good one.
    fn known() -> Copies {
        let mut copies = Copies::new(Some("new".to_owned()));
        copies.take(Event::Namespace(Init));
        for name in ["a", "b", "c"] {
            copies.take(Event::Namespace(InitApply(namespace(name, true))));
        }
        copies.take(Event::Namespace(InitDone));
        assert_eq!(copies.due(), [], "copies are not known yet");
        copies.take(Event::Copy(Init));
        copies.take(Event::Copy(InitApply(copy("b", "old"))));
        copies.take(Event::Copy(InitApply(copy("c", "new"))));
        copies.take(Event::Copy(InitDone));
        copies
    }

    #[test]
    fn what_is_missing_is_made_and_what_is_different_is_changed_once() {
        let mut copies = known();
        assert_eq!(copies.due(), [create("a", "new"), change("b", "new")]);
        assert_eq!(copies.due(), []);
        copies.take(Event::Copy(Apply(copy("a", "new"))));
        assert_eq!(copies.due(), []);
    }

    #[test]
    fn every_way_to_lose_a_copy_is_repaired() {
        let mut copies = known();
        copies.due();
        copies.take(Event::Copy(Delete(copy("c", "new"))));
        assert_eq!(copies.due(), [create("c", "new")]);
        copies.take(Event::Copy(Apply(copy("c", "spoilt"))));
        assert_eq!(copies.due(), [change("c", "new")]);
        copies.take(Event::Copy(Apply(("c".to_owned(), Copy { content: None, is_ours: false }))));
        assert_eq!(copies.due(), [change("c", "new")]);
        // A list that does not have what was known.
        copies.take(Event::Copy(Init));
        copies.take(Event::Copy(InitDone));
        assert_eq!(copies.due(), ["a", "b", "c"].map(|name| create(name, "new")));
        copies.take(Event::Namespace(Apply(namespace("d", true))));
        assert_eq!(copies.due(), [create("d", "new")]);
    }

    #[test]
    fn a_namespace_that_goes_gets_nothing() {
        let mut copies = known();
        copies.due();
        copies.take(Event::Namespace(Apply(namespace("c", false))));
        copies.take(Event::Copy(Delete(copy("c", "new"))));
        assert_eq!(copies.due(), []);
        copies.take(Event::Namespace(Delete(namespace("c", false))));
        assert_eq!(copies.due(), []);
    }

    #[test]
    fn another_content_reaches_every_namespace_and_none_removes_our_copies() {
        let mut copies = known();
        copies.due();
        copies.want(Some("newer".to_owned()));
        assert_eq!(
            copies.due(),
            [create("a", "newer"), change("b", "newer"), change("c", "newer")]
        );
        copies.want(None);
        let remove = |name: &str| Write::Remove { namespace: name.to_owned() };
        let (name, other) = copy("c", "of somebody else");
        copies.take(Event::Copy(Apply((name, Copy { is_ours: false, ..other }))));
        assert_eq!(copies.due(), [remove("b")]);
    }

    #[test]
    fn what_has_failed_is_tried_again() {
        let mut copies = known();
        let due = copies.due();
        copies.failed(due[0].clone());
        assert!(copies.has_failed());
        assert_eq!(copies.due(), []);
        copies.retry();
        assert_eq!(copies.due(), [create("a", "new")]);
        assert!(!copies.has_failed());
    }
}
