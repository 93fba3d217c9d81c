//! The files of a directory.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs::{self, DirEntry, File},
    hash::Hasher as _,
    io::{ErrorKind, Read as _},
    path::{Path, PathBuf},
};

use twox_hash::XxHash64;

use super::{DirectoryError, FileProblem};

/// Longest file accepted, in bytes: some 20,000 pods, which take a few seconds to parse.
pub(super) const MAX_FILE_BYTES: u64 = 64 << 20;
/// Most files accepted; each is read at every change.
pub(super) const MAX_FILES: usize = 20_000;
/// Deepest folder that is looked into, counted from the directory.
const MAX_DEPTH: usize = 16;

const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];

/// Returns the paths of the files below `root`, relative to it.
///
/// Names that begin with a dot are left out: a config map that is mounted keeps its versions under
/// such names, next to links to the files of the current one.
pub(super) fn list(root: &Path) -> Result<BTreeSet<PathBuf>, DirectoryError> {
    let mut found = BTreeSet::new();
    let mut folders = vec![(PathBuf::new(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let path = if depth == 0 { root.to_owned() } else { root.join(&folder) };
        let error = |cause| DirectoryError::Read { path: path.clone(), cause };
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            // It went away after it was listed.
            Err(cause) if cause.kind() == ErrorKind::NotFound && depth > 0 => continue,
            Err(cause) => return Err(error(cause)),
        };
        for entry in entries {
            let entry = entry.map_err(error)?;
            let below = folder.join(entry.file_name());
            if is_hidden(&entry.file_name()) {
                continue;
            }
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if depth < MAX_DEPTH {
                    folders.push((below, depth + 1));
                }
            } else if is_configuration(&entry) {
                found.insert(below);
            }
        }
        if found.len() > MAX_FILES {
            return Err(DirectoryError::TooManyFiles { path: root.to_owned() });
        }
    }
    Ok(found)
}

/// Reads a file.
pub(super) fn read(path: &Path) -> Result<String, FileProblem> {
    let read = |cause: std::io::Error| FileProblem::Read {
        message: cause.to_string(),
        not_found: cause.kind() == ErrorKind::NotFound,
    };
    let mut text = String::new();
    let file = File::open(path).map_err(read)?;
    // One byte more than allowed, to tell a longer file from one that just fits.
    file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(read)?;
    if text.len() as u64 > MAX_FILE_BYTES { Err(FileProblem::TooLong) } else { Ok(text) }
}

/// Returns what tells a version of a file from others.
pub(super) fn fingerprint(text: &str) -> u64 {
    let mut hasher = XxHash64::with_seed(0);
    hasher.write(text.as_bytes());
    hasher.finish()
}

/// Returns whether an entry is a file to read; a link to a file is, too.
fn is_configuration(entry: &DirEntry) -> bool {
    let path = entry.path();
    has_extension(&path) && fs::metadata(&path).is_ok_and(|metadata| metadata.is_file())
}

/// Returns whether the name of a file or folder says that it is to be left out.
pub(super) fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

/// Returns whether a path ends as those of configuration do.
pub(super) fn has_extension(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| EXTENSIONS.contains(&extension))
}
