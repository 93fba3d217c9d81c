//! Finds the routes whose path may match, by what such paths are or begin with.

use std::collections::{BTreeMap, HashMap};

use super::Bucket;

/// Routes by path.
#[derive(Clone, Debug, Default)]
pub(super) struct PathIndex {
    exact: HashMap<Box<str>, Box<[usize]>>,
    /// Sorted by prefix.
    prefixes: Box<[Prefix]>,
}

#[derive(Clone, Debug)]
struct Prefix {
    text: Box<str>,
    /// The longest of the other prefixes that this one begins with.
    parent: Option<usize>,
    /// Ascending.
    routes: Box<[usize]>,
}

// === impl PathIndex ===

impl PathIndex {
    /// Indexes routes that come in ascending order.
    pub(super) fn new<'a>(routes: impl Iterator<Item = (usize, Bucket<'a>)>) -> Self {
        let mut exact: HashMap<&str, Vec<usize>> = HashMap::new();
        let mut prefixes: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (route, bucket) in routes {
            let same = if bucket.exact {
                exact.entry(bucket.prefix).or_default()
            } else {
                prefixes.entry(bucket.prefix).or_default()
            };
            same.push(route);
        }
        let exact = exact.into_iter().map(|(path, routes)| (path.into(), routes.into())).collect();
        Self { exact, prefixes: linked(prefixes) }
    }

    /// Returns whether there are no routes.
    pub(super) fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.prefixes.is_empty()
    }

    /// Shows the routes whose path may be this one, in lists that ascend.
    pub(super) fn visit(&self, path: &str, mut show: impl FnMut(&[usize])) {
        if let Some(routes) = self.exact.get(path) {
            show(routes);
        }
        // Whatever the path begins with sorts before it; and what sorts between the longest of
        // those and the path begins with that one too, and so leads to it.
        let after = self.prefixes.partition_point(|prefix| *prefix.text <= *path);
        let mut at = after.checked_sub(1);
        while let Some(prefix) = at.and_then(|at| self.prefixes.get(at)) {
            if path.starts_with(&*prefix.text) {
                show(&prefix.routes);
            }
            at = prefix.parent;
        }
    }
}

/// Links each prefix with the longest that it begins with.
fn linked(prefixes: BTreeMap<&str, Vec<usize>>) -> Box<[Prefix]> {
    let mut linked: Vec<Prefix> = Vec::with_capacity(prefixes.len());
    for (text, routes) in prefixes {
        let mut parent = linked.len().checked_sub(1);
        while let Some(candidate) = parent.and_then(|at| linked.get(at)) {
            if text.starts_with(&*candidate.text) {
                break;
            }
            parent = candidate.parent;
        }
        linked.push(Prefix { text: text.into(), parent, routes: routes.into() });
    }
    linked.into()
}
