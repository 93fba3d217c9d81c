//! A directory of YAML and JSON files, with what one would give to `kubectl apply`.
//!
//! The unit is the file: it is taken as a whole or not at all. A file that is broken keeps the
//! objects of its last good version; one that is gone takes its objects along. Of two files with the
//! same object, the one that had it first keeps it, and the other is refused. At the start, when
//! neither has it, that is the one whose path comes first.

mod files;
mod parse;
mod signs;
mod watch;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt, io,
    path::{Path, PathBuf},
};

use self::parse::Documents;
pub use self::{parse::Place, watch::WatchedDirectory};
use crate::{
    mesh::Event,
    object::{InvalidObject, Object, ObjectKey},
};

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileError {
    /// The file, below the directory.
    pub file: PathBuf,
    /// What is wrong with it.
    pub problem: FileProblem,
}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileProblem {
    /// It cannot be read.
    #[error("cannot be read: {message}")]
    Read {
        /// What the system says.
        message: String,
        /// Whether it does not exist.
        not_found: bool,
    },
    /// It is too long.
    #[error("is longer than {} bytes: split it", files::MAX_FILE_BYTES)]
    TooLong,
    /// It is neither YAML nor JSON.
    #[error("document {document}: {message}")]
    Syntax {
        /// Which of the documents is broken, counted from 1.
        document: usize,
        /// What the parser says.
        message: String,
    },
    /// An object is not valid.
    #[error("{place}: {error}")]
    Object {
        /// Where the object is.
        place: Place,
        /// What is wrong with it.
        error: InvalidObject,
    },
    /// Another place has the same object.
    #[error("{place}: {key} is in {}, too: remove one of them", other.display())]
    Duplicate {
        /// Where the object is.
        place: Place,
        /// The object.
        key: ObjectKey,
        /// The other file that has it.
        other: PathBuf,
    },
    /// Another document of the file has the same object.
    #[error("{place}: {key} is in {other}, too: remove one of them")]
    Repeated {
        /// Where the object is.
        place: Place,
        /// The object.
        key: ObjectKey,
        /// Where it is before.
        other: Place,
    },
    /// It has too many objects.
    #[error("has more than {} objects: split it", parse::MAX_OBJECTS)]
    TooMany,
}

/// Why a directory cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// It cannot be read.
    #[error("cannot read {}: {cause}", path.display())]
    Read {
        /// The directory, or one below.
        path: PathBuf,
        /// What went wrong.
        cause: io::Error,
    },
    /// It cannot be watched.
    #[error("cannot watch {}: {cause}", path.display())]
    Watch {
        /// The directory.
        path: PathBuf,
        /// What went wrong.
        cause: notify::Error,
    },
    /// It has too many files.
    #[error(
        "{} has more than {} files: keep others elsewhere", path.display(), files::MAX_FILES
    )]
    TooManyFiles {
        /// The directory.
        path: PathBuf,
    },
}

/// What a new look at a directory brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// What happened to objects.
    pub events: Vec<Event>,
    /// Number of files whose new version was taken.
    pub applied: usize,
    /// Number of files whose new version was refused.
    pub refused: usize,
    /// What is wrong with files now; their last good versions are in force.
    pub errors: Vec<FileError>,
    /// How many objects are passed over because the mesh does not depend on their kind.
    pub ignored: BTreeMap<String, usize>,
}

/// The objects of a directory, by file. Does not watch it by itself.
#[derive(Debug)]
pub struct Directory {
    root: PathBuf,
    files: BTreeMap<PathBuf, File>,
    /// The file that each object in force is from.
    owners: HashMap<ObjectKey, PathBuf>,
}

/// What is known of a file.
#[derive(Debug, Default)]
struct File {
    /// What tells the version seen last from others.
    fingerprint: Option<u64>,
    objects: HashMap<ObjectKey, Object>,
    ignored: BTreeMap<String, usize>,
    error: Option<FileProblem>,
}

/// New versions of files that are valid by themselves.
type Candidates = BTreeMap<PathBuf, Documents>;

// === impl FileError ===

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.problem)
    }
}

impl std::error::Error for FileError {}

// === impl Directory ===

impl Directory {
    /// Returns the directory at `root`, of which nothing has been read.
    pub fn new(root: PathBuf) -> Self {
        Self { root, files: BTreeMap::new(), owners: HashMap::new() }
    }

    /// Reads the files and returns what is different from the last time.
    pub fn refresh(&mut self) -> Result<Changes, DirectoryError> {
        let paths = files::list(&self.root)?;
        let mut changes = Changes::default();
        let mut gone = self.forget_missing(&paths);
        let mut candidates = Candidates::new();
        for path in paths {
            if let Some(documents) = self.new_version(&path, &mut changes) {
                candidates.insert(path, documents);
            }
        }
        for (path, problem) in self.conflicts(&mut candidates) {
            self.refuse(path, problem, &mut changes);
        }
        for (path, documents) in candidates {
            self.accept(&path, documents, &mut gone, &mut changes);
        }
        gone.retain(|key| !self.owners.contains_key(key));
        changes.events.extend(gone.into_iter().map(Event::Deleted));
        changes.errors = self.errors();
        changes.ignored = self.ignored();
        Ok(changes)
    }

    fn errors(&self) -> Vec<FileError> {
        let broken = self.files.iter().filter_map(|(path, file)| Some((path, file.error.clone()?)));
        broken.map(|(file, problem)| FileError { file: file.clone(), problem }).collect()
    }

    fn ignored(&self) -> BTreeMap<String, usize> {
        let mut ignored = BTreeMap::new();
        for (kind, count) in self.files.values().flat_map(|file| &file.ignored) {
            *ignored.entry(kind.clone()).or_default() += count;
        }
        ignored
    }

    /// Forgets the files that are not among `paths`; returns their objects.
    fn forget_missing(&mut self, paths: &BTreeSet<PathBuf>) -> BTreeSet<ObjectKey> {
        let missing = self.files.extract_if(.., |path, _| !paths.contains(path));
        let gone: BTreeSet<_> = missing.flat_map(|(_, file)| file.objects.into_keys()).collect();
        for key in &gone {
            self.owners.remove(key);
        }
        gone
    }

    /// Returns what a file holds now, if that is worth looking at and valid by itself.
    fn new_version(&mut self, path: &Path, changes: &mut Changes) -> Option<Documents> {
        let text = match files::read(&self.root.join(path)) {
            Ok(text) => text,
            // It went away after it was listed, which the next look sees.
            Err(FileProblem::Read { not_found: true, .. }) => return None,
            Err(problem) => {
                self.refuse(path.to_owned(), problem, changes);
                return None;
            }
        };
        let file = self.files.entry(path.to_owned()).or_default();
        let fingerprint = Some(files::fingerprint(&text));
        // An object that another file had may have become free.
        let waits = matches!(file.error, Some(FileProblem::Duplicate { .. }));
        if file.fingerprint == fingerprint && !waits {
            return None;
        }
        file.fingerprint = fingerprint;
        match parse::parse(&text) {
            Ok(documents) => Some(documents),
            Err(problem) => {
                self.refuse(path.to_owned(), problem, changes);
                None
            }
        }
    }

    /// Removes the candidates that have an object of another file; returns what to say of them.
    ///
    /// A candidate that is removed leaves its last good version in force, which may be in the way of
    /// another one.
    fn conflicts(&self, candidates: &mut Candidates) -> Vec<(PathBuf, FileProblem)> {
        let mut refused = Vec::new();
        loop {
            let losers = self.losers(candidates);
            if losers.is_empty() {
                return refused;
            }
            for (path, _) in &losers {
                candidates.remove(path);
            }
            refused.extend(losers);
        }
    }

    fn losers(&self, candidates: &Candidates) -> Vec<(PathBuf, FileProblem)> {
        let mut first: HashMap<&ObjectKey, &Path> = HashMap::new();
        for (path, documents) in candidates {
            for key in documents.objects.keys() {
                first.entry(key).or_insert(path);
            }
        }
        let loser = |(path, documents): (&PathBuf, &Documents)| {
            let conflict = documents.objects.iter().find_map(|(key, (place, _))| {
                let owner = self.owners.get(key).filter(|owner| keeps(owner, key, candidates));
                let winner = owner.map(PathBuf::as_path).or_else(|| first.get(key).copied())?;
                (winner != path).then(|| FileProblem::Duplicate {
                    place: *place,
                    key: key.clone(),
                    other: winner.to_owned(),
                })
            });
            Some((path.clone(), conflict?))
        };
        candidates.iter().filter_map(loser).collect()
    }

    fn refuse(&mut self, path: PathBuf, problem: FileProblem, changes: &mut Changes) {
        let file = self.files.entry(path).or_default();
        let problem = Some(problem);
        if file.error != problem {
            changes.refused += 1;
            file.error = problem;
        }
    }

    /// Puts the new version of a file in force; adds the objects that it had before to `gone`.
    fn accept(
        &mut self,
        path: &Path,
        documents: Documents,
        gone: &mut BTreeSet<ObjectKey>,
        changes: &mut Changes,
    ) {
        let file = self.files.entry(path.to_owned()).or_default();
        let mut old = std::mem::take(&mut file.objects);
        file.error = None;
        file.ignored = documents.ignored;
        changes.applied += 1;
        for (key, (_, object)) in documents.objects {
            if old.remove(&key).as_ref() != Some(&object) {
                changes.events.push(Event::Applied(object.clone()));
            }
            self.owners.insert(key.clone(), path.to_owned());
            file.objects.insert(key, object);
        }
        for key in old.into_keys() {
            // Another file may have taken it over already.
            if self.owners.get(&key).is_some_and(|owner| owner == path) {
                self.owners.remove(&key);
            }
            gone.insert(key);
        }
    }
}

/// Returns whether a file that has an object still has it in the version in question.
fn keeps(owner: &Path, key: &ObjectKey, candidates: &Candidates) -> bool {
    candidates.get(owner).is_none_or(|documents| documents.objects.contains_key(key))
}

#[cfg(test)]
mod tests;
