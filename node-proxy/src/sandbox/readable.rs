//! Whether the user of a process without privilege can read a file that it is to follow.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use nix::unistd::{Gid, Uid};

/// Permission bits of one class of users.
const READ: u32 = 0o4;
const ENTER: u32 = 0o1;

/// Why such a process could not read a file.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// The path leads nowhere.
    #[error("cannot find {}: {source}", path.display())]
    Missing {
        /// The path.
        path: PathBuf,
        /// What is wrong.
        source: io::Error,
    },
    /// The file lies elsewhere than its directory, which is all that the process sees.
    #[error(
        "{} is a link to {}, which the process that reads it cannot see: give the path of the file itself",
        path.display(), target.display()
    )]
    LinksElsewhere {
        /// The path as given.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// Permissions are missing.
    #[error(
        "user {user} with group {group} may not read {} (mode {mode:o}, owner \
         {owner}:{owner_group}): use chmod or chown, or choose another --proxy-user or \
         --agent-user",
        path.display()
    )]
    Forbidden {
        /// The file or directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// Its owner.
        owner: u32,
        /// Its group.
        owner_group: u32,
        /// Who wants to read it.
        user: Uid,
        /// Its only group.
        group: Gid,
    },
}

/// Checks that `user`, with `group` as its only group, will be able to read the file at `path` and
/// to watch its directory when nothing but that directory is
/// [left to see](super::Sandbox::readable).
///
/// Goes by permission bits. What lies above the directory does not matter.
pub fn ensure_readable(path: &Path, user: Uid, group: Gid) -> Result<(), Unreadable> {
    let missing = |source| Unreadable::Missing { path: path.to_owned(), source };
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
    let directory = fs::canonicalize(parent.unwrap_or_else(|| Path::new("."))).map_err(missing)?;
    let file = fs::canonicalize(path).map_err(missing)?;
    let Ok(below) = file.strip_prefix(&directory) else {
        return Err(Unreadable::LinksElsewhere { path: path.to_owned(), target: file });
    };
    let check = |path: &Path, wanted| check(path, wanted, user, group);
    check(&directory, READ | ENTER)?;
    let mut current = directory.clone();
    for part in below.parent().into_iter().flatten() {
        current.push(part);
        check(&current, ENTER)?;
    }
    check(&file, READ)
}

fn check(path: &Path, wanted: u32, user: Uid, group: Gid) -> Result<(), Unreadable> {
    let metadata = fs::metadata(path)
        .map_err(|source| Unreadable::Missing { path: path.to_owned(), source })?;
    let (owner, owner_group) = (metadata.uid(), metadata.gid());
    let mode = metadata.mode() & 0o7777;
    if permits(mode, owner == user.as_raw(), owner_group == group.as_raw(), wanted) {
        return Ok(());
    }
    Err(Unreadable::Forbidden { path: path.to_owned(), mode, owner, owner_group, user, group })
}

/// The first class that fits decides, as in the kernel.
fn permits(mode: u32, is_owner: bool, is_in_group: bool, wanted: u32) -> bool {
    let class = match (is_owner, is_in_group) {
        (true, _) => mode >> 6,
        (false, true) => mode >> 3,
        (false, false) => mode,
    };
    class & wanted == wanted
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn the_first_class_that_fits_decides() {
        for (mode, owner, group, wanted, permitted) in [
            (0o400, true, false, READ, true),
            (0o400, false, true, READ, false),
            (0o044, true, true, READ, false),
            (0o640, false, true, READ, true),
            (0o604, false, true, READ, false),
            (0o604, false, false, READ, true),
            (0o744, false, false, READ | ENTER, false),
            (0o755, false, false, READ | ENTER, true),
        ] {
            assert_eq!(permits(mode, owner, group, wanted), permitted, "{mode:o} {owner} {group}");
        }
    }

    #[test]
    fn a_file_is_checked_with_its_directory_and_the_error_says_what_to_do() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("config");
        let file = directory.join("mesh.yaml");
        fs::create_dir(&directory).unwrap();
        fs::write(&file, "x").unwrap();
        // An id that owns nothing here.
        let (user, group) = (Uid::from_raw(64_999), Gid::from_raw(64_999));
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        mode(root.path(), 0o700);
        mode(&directory, 0o755);
        mode(&file, 0o644);
        ensure_readable(&file, user, group).unwrap();
        mode(&file, 0o600);
        let error = ensure_readable(&file, user, group).unwrap_err().to_string();
        for part in ["mesh.yaml", "64999", "mode 600", "chmod", "chown", "--proxy-user"] {
            assert!(error.contains(part), "{part}: {error}");
        }
        mode(&file, 0o644);
        mode(&directory, 0o711);
        let error = ensure_readable(&file, user, group).unwrap_err().to_string();
        assert!(error.contains("config (mode 711"), "{error}");
    }

    #[test]
    fn links_within_the_directory_are_followed_and_others_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("config");
        fs::create_dir_all(directory.join("..2026")).unwrap();
        fs::write(directory.join("..2026/mesh.yaml"), "x").unwrap();
        symlink("..2026", directory.join("..data")).unwrap();
        symlink("..data/mesh.yaml", directory.join("mesh.yaml")).unwrap();
        let (user, group) = (Uid::from_raw(64_999), Gid::from_raw(64_999));
        for path in [&directory, &directory.join("..2026")] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let file = directory.join("mesh.yaml");
        ensure_readable(&file, user, group).unwrap();
        fs::set_permissions(directory.join("..2026"), fs::Permissions::from_mode(0o700)).unwrap();
        assert!(matches!(ensure_readable(&file, user, group), Err(Unreadable::Forbidden { .. })));
        let elsewhere = root.path().join("elsewhere.yaml");
        fs::write(&elsewhere, "x").unwrap();
        symlink(&elsewhere, directory.join("link.yaml")).unwrap();
        let error = ensure_readable(&directory.join("link.yaml"), user, group).unwrap_err();
        assert!(matches!(error, Unreadable::LinksElsewhere { .. }), "{error}");
        let gone = ensure_readable(&directory.join("gone"), user, group).unwrap_err();
        assert!(matches!(gone, Unreadable::Missing { .. }), "{gone}");
    }
}
