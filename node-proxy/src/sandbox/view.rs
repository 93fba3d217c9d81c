//! The view of the file system: a few directories and files, read-only, and nothing else.

use std::{
    ffi::CStr,
    fs::{DirBuilder, File, OpenOptions},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Component, Path, PathBuf},
};

use fairlead_sys::mount::make_read_only;
use nix::{
    libc,
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    sys::stat::{Mode, umask},
    unistd::{chdir, fchdir, pivot_root},
};

use super::{SandboxError, failed};

/// Where the new root is built: a directory that every Linux system has. It is covered for this
/// process only, and what is to be shown is opened before.
const STAGE: &str = "/dev";

/// Size and mode of the new root; it holds nothing but empty directories.
const STAGE_OPTIONS: &str = "size=64k,mode=0755";

/// Mode of the directories above those that are shown.
const DIRECTORY_MODE: u32 = 0o755;

/// What the mask leaves of [`DIRECTORY_MODE`], whatever it was before.
const NOT_WRITABLE_BY_OTHERS: Mode = Mode::from_bits_truncate(0o022);

const ROOT: &CStr = c"/";

/// No argument of `mount(2)`.
const NONE: Option<&str> = None;

/// Mode of the files that others are shown through.
const FILE_MODE: u32 = 0o444;

/// Leaves this process a file system that holds only `directories`, with all below them, and those
/// of `files` that exist.
pub(super) fn confine(directories: &[PathBuf], files: &[PathBuf]) -> Result<(), SandboxError> {
    let directories = outermost(directories)?;
    let files = files.iter().filter(|file| !directories.iter().any(|dir| file.starts_with(dir)));
    let files: Vec<_> = files.filter_map(|file| Some((file, file.canonicalize().ok()?))).collect();
    let namespaces = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
    unshare(namespaces).map_err(failed("make namespaces"))?;
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)
        .map_err(failed("make mounts private"))?;
    let mut sources = Vec::new();
    for path in &directories {
        sources.push((*path, open(path)?));
    }
    umask(NOT_WRITABLE_BY_OTHERS);
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("tmpfs"), STAGE, Some("tmpfs"), flags, Some(STAGE_OPTIONS))
        .map_err(failed("mount a file system"))?;
    for (path, source) in sources {
        show(path, &source)?;
    }
    for (path, source) in files {
        show_file(path, &source)?;
    }
    change_root().map_err(failed("change the root directory"))?;
    make_read_only(ROOT).map_err(failed("make the file system read-only"))
}

/// Leaves out what lies below another directory, and is shown with it.
fn outermost(directories: &[PathBuf]) -> Result<Vec<&Path>, SandboxError> {
    let mut sorted: Vec<&Path> = directories.iter().map(PathBuf::as_path).collect();
    sorted.sort_unstable();
    let mut outermost: Vec<&Path> = Vec::new();
    for path in sorted {
        let mut components = path.components();
        let is_absolute = components.next() == Some(Component::RootDir);
        let mut below = components.peekable();
        let is_below_root = below.peek().is_some();
        if !is_absolute || !is_below_root || below.any(|c| !matches!(c, Component::Normal(_))) {
            return Err(SandboxError::Path(path.to_owned()));
        }
        if !outermost.last().is_some_and(|outer| path.starts_with(outer)) {
            outermost.push(path);
        }
    }
    Ok(outermost)
}

fn open(path: &Path) -> Result<File, SandboxError> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)
        .map_err(|source| SandboxError::Show { path: path.to_owned(), source })
}

fn show(path: &Path, source: &File) -> Result<(), SandboxError> {
    let failed = |source| SandboxError::Show { path: path.to_owned(), source };
    // Proven absolute above.
    let target = Path::new(STAGE).join(path.strip_prefix("/").unwrap_or(path));
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(&target).map_err(failed)?;
    // Through the open directory, since its path may be covered by the stage.
    fchdir(source).map_err(|e| failed(e.into()))?;
    mount(Some("."), &target, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)
        .map_err(|e| failed(e.into()))
}

/// Shows the file at `source` as `path`.
fn show_file(path: &Path, source: &Path) -> Result<(), SandboxError> {
    let failed = |source| SandboxError::Show { path: path.to_owned(), source };
    let target = Path::new(STAGE).join(path.strip_prefix("/").unwrap_or(path));
    let mut directory = DirBuilder::new();
    let parent = target.parent().unwrap_or_else(|| Path::new(STAGE));
    directory.recursive(true).mode(DIRECTORY_MODE).create(parent).map_err(failed)?;
    let mut file = OpenOptions::new();
    file.write(true).create(true).truncate(false).mode(FILE_MODE).open(&target).map_err(failed)?;
    mount(Some(source), &target, NONE, MsFlags::MS_BIND, NONE).map_err(|e| failed(e.into()))
}

/// Makes the stage the root and lets go of everything else.
fn change_root() -> nix::Result<()> {
    chdir(STAGE)?;
    // The old root ends up on top of the new one, where it can be taken away.
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    chdir(ROOT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_below_others_are_shown_with_those() {
        let given = ["/b/c", "/a", "/b", "/a/b/c", "/ab", "/b"].map(PathBuf::from);
        assert_eq!(outermost(&given).unwrap(), ["/a", "/ab", "/b"].map(Path::new));
    }

    #[test]
    fn what_is_not_the_absolute_path_of_a_part_is_refused() {
        for path in ["", ".", "a/b", "/", "/a/../b", "/..", "//"] {
            assert!(outermost(&[PathBuf::from(path)]).is_err(), "{path:?}");
        }
    }
}
