//! The authority's files.
//!
//! Besides the files of [`super::contents`] there is `issued-until`: no certificate issued until now
//! lives longer; seconds of Unix time.
//!
//! Several processes may share the directory: it is locked while it is read or written, and files
//! appear whole or not at all.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{ErrorKind, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{
    contents::{Contents, KEY, NEXT_KEY, ROOTS, Write},
    error::CaError,
};

const ISSUED_UNTIL: &str = "issued-until";

/// Node proxies of the same machine, which are other users, read the roots and watch for new ones.
const DIRECTORY_MODE: u32 = 0o755;
const ROOTS_MODE: u32 = 0o644;
const FILE_MODE: u32 = 0o600;
const OTHERS: u32 = 0o007;

/// Largest file read, in bytes; a long list of revoked certificates is the largest there is.
const MAX_FILE_BYTES: u64 = 8 * 1024 * 1024;

/// A directory with the authority's files.
#[derive(Clone, Debug)]
pub struct CaDirectory {
    path: PathBuf,
}

/// The directory while no other process reads or writes it.
#[derive(Debug)]
pub(super) struct Locked<'a> {
    path: &'a Path,
    /// Holds the lock until dropped.
    handle: File,
}

// === impl CaDirectory ===

impl CaDirectory {
    /// Names a directory, which is made if it does not exist.
    pub fn open(path: &Path) -> Result<Self, CaError> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(DIRECTORY_MODE);
        builder.create(path).map_err(CaError::io("create", path))?;
        Ok(Self { path: path.to_owned() })
    }

    /// Returns where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Asks the process that serves from this directory to replace its root.
    pub fn request_rotation(&self) -> Result<(), CaError> {
        let locked = self.lock()?;
        locked.write(Contents::request_rotation(locked.contents()?.as_ref())?)
    }

    pub(super) fn lock(&self) -> Result<Locked<'_>, CaError> {
        let path = self.path.as_path();
        let handle = File::open(path).map_err(CaError::io("open", path))?;
        handle.lock().map_err(CaError::io("lock", path))?;
        Ok(Locked { path, handle })
    }
}

// === impl Locked ===

impl Locked<'_> {
    /// Returns what the files say; none if there is no certificate and no key.
    pub(super) fn contents(&self) -> Result<Option<Contents>, CaError> {
        let contents = Contents::read(|file| self.read(file))?;
        for key in [KEY, NEXT_KEY] {
            self.check_key_is_private(key)?;
        }
        Ok(contents)
    }

    /// Returns when the last certificate ends, as far as it is recorded.
    pub(super) fn issued_until(&self) -> Result<Option<SystemTime>, CaError> {
        let Some(text) = self.read(ISSUED_UNTIL)? else { return Ok(None) };
        let time =
            text.trim().parse().ok().and_then(|s| UNIX_EPOCH.checked_add(Duration::from_secs(s)));
        let wrong = || CaError::unusable(ISSUED_UNTIL, "it holds no time; remove it");
        time.map(Some).ok_or_else(wrong)
    }

    pub(super) fn record_issued_until(&self, end: SystemTime) -> Result<(), CaError> {
        let seconds = super::rotation::unix_seconds(end);
        self.write((ISSUED_UNTIL, Some(format!("{seconds}\n"))))
    }

    /// Makes a file appear with this content, in place of what was there, or removes it.
    pub(super) fn write(&self, (name, content): Write) -> Result<(), CaError> {
        let Some(content) = content else { return self.remove(name) };
        let path = self.path.join(name);
        let draft = self.path.join(format!(".{name}.new"));
        let mut options = OpenOptions::new();
        let mode = if name == ROOTS { ROOTS_MODE } else { FILE_MODE };
        options.write(true).create(true).truncate(true).mode(mode);
        let mut file = options.open(&draft).map_err(CaError::io("create", &draft))?;
        file.write_all(content.as_bytes()).map_err(CaError::io("write", &draft))?;
        file.sync_all().map_err(CaError::io("store", &draft))?;
        fs::rename(&draft, &path).map_err(CaError::io("replace", &path))?;
        self.handle.sync_all().map_err(CaError::io("store", self.path))
    }

    fn remove(&self, name: &'static str) -> Result<(), CaError> {
        let path = self.path.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(CaError::io("remove", &path)(error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn check_key_is_private(&self, name: &'static str) -> Result<(), CaError> {
        let path = self.path.join(name);
        let metadata = match fs::metadata(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            metadata => metadata.map_err(CaError::io("examine", &path))?,
        };
        if metadata.permissions().mode() & OTHERS != 0 {
            return Err(CaError::unusable(
                name,
                "every user of this machine may use it; run chmod 600 on it",
            ));
        }
        Ok(())
    }

    fn read(&self, name: &'static str) -> Result<Option<String>, CaError> {
        let path = self.path.join(name);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(CaError::io("open", &path)(error)),
        };
        let mut text = String::new();
        let mut file = file.take(MAX_FILE_BYTES + 1);
        file.read_to_string(&mut text).map_err(CaError::io("read", &path))?;
        if text.len() as u64 > MAX_FILE_BYTES {
            return Err(CaError::unusable(name, format!("larger than {MAX_FILE_BYTES} bytes")));
        }
        Ok(Some(text))
    }
}
