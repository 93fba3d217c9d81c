//! What a proxy process runs: which function is at an address, and where its allocator is.
//!
//! Of files only those are read that this process itself runs, by its own sight of them: what a
//! process that was taken over shows is not opened.

use std::{
    collections::{BTreeSet, HashMap},
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use tracing::warn;

use crate::profile::{
    kernel,
    mappings::{FileId, Mapping, find, parse},
    symbols::{self, Unreadable},
};

const KERNEL_SYMBOLS: &str = "/proc/kallsyms";

/// Why a process cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub(in crate::capture) enum MemoryError {
    /// Its memory cannot be seen.
    #[error("the memory of process {process} cannot be looked at: {cause}")]
    Hidden {
        /// The process.
        process: u32,
        /// What the kernel said.
        cause: io::Error,
    },
    /// It is not what this process is.
    #[error("process {0} does not run the same program file as capture")]
    OtherProgram(u32),
    /// A file of this process's own cannot be read.
    #[error("{name} cannot be read: {cause}")]
    File {
        /// The file.
        name: String,
        /// What went wrong.
        cause: io::Error,
    },
    /// A file of this process's own makes no sense.
    #[error("{name} cannot be read: {cause}")]
    Form {
        /// The file.
        name: String,
        /// What is wrong.
        cause: Unreadable,
    },
    /// Nothing that it runs allocates memory.
    #[error("no file that the proxy runs has the functions of the C library's allocator")]
    NoAllocator,
}

/// What a process runs.
#[derive(Debug)]
pub(super) struct Memory {
    mappings: Vec<Mapping>,
    /// The files that this process runs as well, under names by which it opens them.
    files: HashMap<FileId, PathBuf>,
}

// === impl Memory ===

impl Memory {
    /// Looks at a process.
    pub(super) fn of(process: u32) -> Result<Self, MemoryError> {
        let hidden = |cause| MemoryError::Hidden { process, cause };
        let maps = fs::read_to_string(format!("/proc/{process}/maps")).map_err(hidden)?;
        let own = fs::read_to_string("/proc/self/maps").map_err(hidden)?;
        let memory = Self { mappings: parse(&maps), files: own_files(&parse(&own)) };
        let program = find(&parse(&own), own_code()).and_then(|mapping| mapping.file.clone());
        let runs =
            |program: &FileId| memory.mappings.iter().any(|m| m.file.as_ref() == Some(program));
        if program.is_some_and(|program| runs(&program)) {
            Ok(memory)
        } else {
            Err(MemoryError::OtherProgram(process))
        }
    }

    pub(super) fn mappings(&self) -> &[Mapping] {
        &self.mappings
    }

    /// Returns the file that has all of these functions, and their places in it.
    pub(super) fn allocator<'n>(
        &self,
        functions: &[&'n str],
    ) -> Result<(PathBuf, HashMap<&'n str, u64>), MemoryError> {
        for (mapping, path) in self.readable() {
            let places = symbols::places(open(mapping, path)?, functions);
            let places =
                places.map_err(|cause| MemoryError::Form { name: mapping.name.clone(), cause })?;
            if places.len() == functions.len() {
                return Ok((path.to_owned(), places));
            }
        }
        Err(MemoryError::NoAllocator)
    }

    /// Returns the names of the functions at these addresses. Where one is not known, the file's is
    /// given in brackets.
    pub(super) fn names(&self, addresses: &BTreeSet<u64>) -> HashMap<u64, String> {
        let mut names: HashMap<u64, String> =
            addresses.iter().map(|address| (*address, self.vague_name(*address))).collect();
        let kernels: Vec<_> =
            addresses.iter().copied().filter(|a| kernel::is_kernels(*a)).collect();
        if !kernels.is_empty() {
            match fs::read_to_string(KERNEL_SYMBOLS) {
                Ok(list) => names.extend(kernel::functions(&list, &kernels)),
                Err(error) => warn!(%error, "functions of the kernel have no names"),
            }
        }
        for (mapping, path) in self.readable() {
            let places: HashMap<u64, u64> = addresses
                .range(mapping.addresses.clone())
                .filter_map(|address| Some((mapping.place(*address)?, *address)))
                .collect();
            match functions(mapping, path, &places) {
                Ok(found) => names.extend(found),
                Err(error) => warn!(%error, "functions of a file have no names"),
            }
        }
        names
    }

    /// Returns the mappings of files that this process may read, each with its name here.
    fn readable(&self) -> impl Iterator<Item = (&Mapping, &Path)> {
        let path = |mapping: &Mapping| self.files.get(mapping.file.as_ref()?).map(PathBuf::as_path);
        self.mappings.iter().filter_map(move |mapping| Some((mapping, path(mapping)?)))
    }

    fn vague_name(&self, address: u64) -> String {
        if kernel::is_kernels(address) {
            return "[kernel]".to_owned();
        }
        let name = find(&self.mappings, address).map_or("unknown", |mapping| mapping.name.as_str());
        let name = name.rsplit('/').next().unwrap_or(name);
        format!("[{}]", name.trim_matches(['[', ']']))
    }
}

fn functions(
    mapping: &Mapping,
    path: &Path,
    places: &HashMap<u64, u64>,
) -> Result<Vec<(u64, String)>, MemoryError> {
    if places.is_empty() {
        return Ok(Vec::new());
    }
    let wanted: Vec<_> = places.keys().copied().collect();
    let found = symbols::functions(open(mapping, path)?, &wanted)
        .map_err(|cause| MemoryError::Form { name: mapping.name.clone(), cause })?;
    Ok(found.into_iter().filter_map(|(place, name)| Some((*places.get(&place)?, name))).collect())
}

fn open(mapping: &Mapping, path: &Path) -> Result<File, MemoryError> {
    let name = || mapping.name.clone();
    File::open(path).map_err(|cause| MemoryError::File { name: name(), cause })
}

/// Returns the files that this process runs. Where a name leads to another file by now, since it was
/// replaced or removed, the kernel still knows the file by where it is in memory.
fn own_files(own: &[Mapping]) -> HashMap<FileId, PathBuf> {
    let path = |mapping: &Mapping, file: &FileId| {
        let name = PathBuf::from(&mapping.name);
        if fs::metadata(&name).is_ok_and(|metadata| metadata.ino() == file.inode()) {
            return name;
        }
        let range = format!("{:x}-{:x}", mapping.addresses.start, mapping.addresses.end);
        Path::new("/proc/self/map_files").join(range)
    };
    let file = |mapping: &Mapping| {
        let file = mapping.file.clone()?;
        let path = path(mapping, &file);
        Some((file, path))
    };
    own.iter().filter_map(file).collect()
}

/// Returns an address of this very program.
fn own_code() -> u64 {
    own_code as fn() -> u64 as usize as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_process_runs_has_names_and_an_allocator() {
        let memory = Memory::of(std::process::id()).unwrap();
        let libc = memory.mappings().iter().find(|m| m.name.contains("libc.so")).unwrap();
        let unknown = libc.addresses.end;
        let names = memory.names(&BTreeSet::from([own_code(), unknown, u64::MAX]));
        assert!(names[&own_code()].ends_with("memory::own_code"), "{names:?}");
        assert!(names[&unknown].starts_with('['), "{names:?}");
        assert_eq!(names.len(), 3);
        let functions = ["malloc", "free"];
        let (path, places) = memory.allocator(&functions).unwrap();
        assert_eq!(places.len(), functions.len());
        assert!(File::open(path).is_ok());
        let none = memory.allocator(&["malloc", "no_such_function"]).unwrap_err();
        assert!(matches!(none, MemoryError::NoAllocator), "{none}");
    }

    #[test]
    fn a_process_that_is_another_program_is_not_looked_at() {
        let mut other = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let refused = Memory::of(other.id()).unwrap_err();
        other.kill().unwrap();
        other.wait().unwrap();
        assert!(matches!(refused, MemoryError::OtherProgram(_)), "{refused}");
        let gone = Memory::of(other.id()).unwrap_err();
        assert!(matches!(gone, MemoryError::Hidden { .. }), "{gone}");
    }
}
