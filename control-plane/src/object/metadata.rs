//! What every object has.

use std::{collections::BTreeMap, sync::Arc};

use serde::Deserialize;
use serde_json::Value;

use super::{InvalidObject, ObjectKind, ObjectName, Problem, read::part};

/// Namespace of objects that name none, as for `kubectl`.
const DEFAULT_NAMESPACE: &str = "default";

/// Longest name of an object, in bytes, as Kubernetes limits it.
const MAX_NAME_BYTES: usize = 253;

/// Parts of the annotations' names that are used. The others are not kept: one of `kubectl` holds the
/// whole object once more.
const ANNOTATION_DOMAINS: [&str; 2] = ["istio.io/", "fairlead.io/"];

/// What every object has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// What it is called.
    pub name: ObjectName,
    /// Its labels.
    pub labels: Labels,
    /// Its annotations, as far as they may matter.
    pub annotations: Labels,
    /// When it was created, in RFC 3339; earlier ones are less.
    pub created: Option<Box<str>>,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// The object that controls it.
    pub owner: Option<Owner>,
}

/// The object that controls another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its kind.
    pub kind: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

/// Labels or annotations, sorted by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Labels(Box<[(Arc<str>, Arc<str>)]>);

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Written {
    name: String,
    namespace: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    creation_timestamp: Option<Box<str>>,
    deletion_timestamp: Option<String>,
    owner_references: Vec<WrittenOwner>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WrittenOwner {
    kind: String,
    name: String,
    controller: bool,
}

// === impl ObjectName ===

impl Default for ObjectName {
    fn default() -> Self {
        Self::new("", "")
    }
}

// === impl Metadata ===

impl Metadata {
    /// Reads the metadata of an object, which is of `kind`.
    pub(super) fn read(kind: ObjectKind, value: &Value) -> Result<Self, InvalidObject> {
        let written: Written = part(value, "metadata")?;
        check_name("metadata.name", &written.name)?;
        let namespace = match written.namespace {
            _ if kind.is_of_cluster() => String::new(),
            namespace if namespace.is_empty() => DEFAULT_NAMESPACE.to_owned(),
            namespace => namespace,
        };
        if !namespace.is_empty() {
            check_name("metadata.namespace", &namespace)?;
        }
        let owner = written.owner_references.into_iter().find(|owner| owner.controller);
        let mut annotations = written.annotations;
        annotations.retain(|name, _| ANNOTATION_DOMAINS.iter().any(|domain| name.contains(domain)));
        Ok(Self {
            name: ObjectName::new(namespace, written.name),
            labels: written.labels.into_iter().collect(),
            annotations: annotations.into_iter().collect(),
            created: written.creation_timestamp,
            deleting: written.deletion_timestamp.is_some(),
            owner: owner.map(|owner| Owner { kind: owner.kind.into(), name: owner.name.into() }),
        })
    }

    /// Returns the namespace.
    pub fn namespace(&self) -> &Arc<str> {
        &self.name.namespace
    }

    /// Returns the value of a label.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.get(name)
    }

    /// Returns the value of an annotation.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.get(name)
    }
}

// === impl Labels ===

impl Labels {
    /// Returns the value of a label.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.binary_search_by(|(key, _)| (**key).cmp(name));
        found.ok().map(|i| &*self.0[i].1)
    }

    /// Returns all labels, by name.
    pub fn iter(&self) -> impl Iterator<Item = &(Arc<str>, Arc<str>)> {
        self.0.iter()
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether all labels of `selector` are among these.
    pub fn contains(&self, selector: &Self) -> bool {
        selector.iter().all(|(name, value)| self.get(name) == Some(value))
    }
}

impl<S: Into<Arc<str>>> FromIterator<(S, S)> for Labels {
    fn from_iter<I: IntoIterator<Item = (S, S)>>(labels: I) -> Self {
        let labels: BTreeMap<Arc<str>, Arc<str>> =
            labels.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Self(labels.into_iter().collect())
    }
}

impl From<&BTreeMap<String, String>> for Labels {
    fn from(labels: &BTreeMap<String, String>) -> Self {
        labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }
}

/// Returns whether an object may be called so, as in Kubernetes.
pub(crate) fn is_name(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.');
    let edges = [name.bytes().next(), name.bytes().next_back()];
    (1..=MAX_NAME_BYTES).contains(&name.len())
        && name.bytes().all(inner)
        && edges.into_iter().flatten().all(|b| b.is_ascii_alphanumeric())
}

/// Checks the name of an object.
fn check_name(field: &str, name: &str) -> Result<(), InvalidObject> {
    if name.is_empty() {
        return Err(Problem::Missing("set it").at(field));
    }
    if is_name(name) {
        Ok(())
    } else {
        Err(Problem::Name(name.escape_debug().to_string()).at(field))
    }
}
