//! Pins of BPF links: replaced without a gap, removed without a trace.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aya::programs::links::FdLink;

use super::programs::ProgramsError;

/// Pins `link` at `path`, in place of a predecessor's link, which is let go of afterwards.
pub(super) fn pin(link: FdLink, path: &Path) -> Result<(), ProgramsError> {
    let fail = |cause| ProgramsError::Pin { path: path.to_owned(), cause };
    let fresh = successor(path);
    remove_file(&fresh).map_err(fail)?;
    link.pin(&fresh).map_err(|e| fail(io::Error::other(e)))?;
    fs::rename(&fresh, path).map_err(fail)
}

/// Removes a pin; an absent one is no error.
pub(super) fn unpin(path: &Path) -> Result<(), ProgramsError> {
    remove_file(path).map_err(|cause| ProgramsError::Pin { path: path.to_owned(), cause })
}

/// Returns the pins of `dir` whose names are numbers.
pub(super) fn numbered(dir: &Path) -> Result<Vec<u64>, ProgramsError> {
    let fail = |cause| ProgramsError::Pin { path: dir.to_owned(), cause };
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir).map_err(fail)? {
        let name = entry.map_err(fail)?.file_name();
        numbers.extend(name.to_str().and_then(|n| n.parse::<u64>().ok()));
    }
    Ok(numbers)
}

/// Removes `dir` with its empty `children`, and its parent if that is left empty.
pub(super) fn remove_dirs(dir: &Path, children: &[&str]) -> Result<(), ProgramsError> {
    let dirs: Vec<PathBuf> = children.iter().map(|c| dir.join(c)).chain([dir.into()]).collect();
    for path in dirs {
        fs::remove_dir(&path).map_err(|cause| ProgramsError::Pin { path, cause })?;
    }
    if let Some(parent) = dir.parent() {
        // Not empty when another layout's pins are there.
        let _ = fs::remove_dir(parent);
    }
    Ok(())
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// A name beside `path`; the BPF file system allows no dots.
fn successor(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("_new");
    name.into()
}
