//! The objects of a file.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    fmt,
};

use serde_json::Value;

use super::FileProblem;
use crate::object::{Object, ObjectKey, Read, read, yaml};

/// Most objects of a file.
pub(super) const MAX_OBJECTS: usize = 100_000;
/// Deepest nesting of lists of objects.
const MAX_LIST_DEPTH: usize = 4;

/// Where an object is in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which of the documents that are not empty, counted from 1.
    pub document: usize,
    /// Which item of the list that the document is, counted from 1.
    pub item: Option<usize>,
}

/// What a file holds.
#[derive(Debug, Default)]
pub(super) struct Documents {
    /// Objects that the mesh depends on, with their places.
    pub(super) objects: HashMap<ObjectKey, (Place, Object)>,
    /// Number of other objects, by kind.
    pub(super) ignored: BTreeMap<String, usize>,
}

// === impl Place ===

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "document {}", self.document)?;
        self.item.map_or(Ok(()), |item| write!(f, ", item {item}"))
    }
}

/// Reads the objects of a file; all of them or none.
pub(super) fn parse(text: &str) -> Result<Documents, FileProblem> {
    let mut documents = Documents::default();
    for (i, value) in yaml::documents(text).into_iter().enumerate() {
        let document = i + 1;
        let value = value.map_err(|message| FileProblem::Syntax { document, message })?;
        documents.add(value, Place { document, item: None }, 0)?;
    }
    Ok(documents)
}

// === impl Documents ===

impl Documents {
    fn add(&mut self, value: Value, place: Place, depth: usize) -> Result<(), FileProblem> {
        match read(value).map_err(|error| FileProblem::Object { place, error })? {
            Read::Object(object) => self.add_object(object, place),
            Read::Other(kind) => {
                *self.ignored.entry(kind).or_default() += 1;
                Ok(())
            }
            Read::List(_) if depth >= MAX_LIST_DEPTH => Err(FileProblem::TooMany),
            Read::List(items) => {
                for (i, item) in items.into_iter().enumerate() {
                    self.add(item, Place { item: Some(i + 1), ..place }, depth + 1)?;
                }
                Ok(())
            }
        }
    }

    fn add_object(&mut self, object: Object, place: Place) -> Result<(), FileProblem> {
        if self.objects.len() >= MAX_OBJECTS {
            return Err(FileProblem::TooMany);
        }
        match self.objects.entry(object.key()) {
            Entry::Vacant(entry) => {
                entry.insert((place, object));
                Ok(())
            }
            Entry::Occupied(entry) => {
                let other = entry.get().0;
                Err(FileProblem::Repeated { place, key: entry.key().clone(), other })
            }
        }
    }
}
