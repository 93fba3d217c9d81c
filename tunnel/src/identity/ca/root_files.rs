//! The files of the local CA: read if they exist, otherwise created exactly once.
//!
//! Node processes that start together share one directory: the directory is locked while it is
//! looked at, and files appear whole or not at all.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use super::CaError;

const CERTIFICATE_FILE: &str = "root-cert.pem";
const KEY_FILE: &str = "root-key.pem";

const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
const GROUP_AND_OTHERS: u32 = 0o077;
const WRITE_BY_GROUP_AND_OTHERS: u32 = 0o022;

/// Largest file read: a certificate or a key of any kind in use is far smaller.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// The root as PEM text.
pub(super) struct RootPem {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// Where a root lives.
pub(super) struct RootFiles {
    directory: PathBuf,
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

// === impl RootFiles ===

impl RootFiles {
    pub(super) fn within(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            certificate: directory.join(CERTIFICATE_FILE),
            key: directory.join(KEY_FILE),
        }
    }

    /// Returns the stored root, or stores the one that `generate` makes.
    pub(super) fn load_or_create(
        &self,
        generate: impl FnOnce() -> Result<RootPem, CaError>,
    ) -> Result<RootPem, CaError> {
        let directory = self.open_directory()?;
        // Released when `directory` is dropped, or when the process dies.
        directory.lock().map_err(io_error("lock", &self.directory))?;
        if let Some(stored) = self.load()? {
            return Ok(stored);
        }
        let fresh = generate()?;
        // The key first: a certificate that others may already use always has its key.
        publish(&self.key, &fresh.key)?;
        publish(&self.certificate, &fresh.certificate)?;
        directory.sync_all().map_err(io_error("store", &self.directory))?;
        Ok(fresh)
    }

    fn open_directory(&self) -> Result<File, CaError> {
        let path = &self.directory;
        DirBuilder::new()
            .recursive(true)
            .mode(DIRECTORY_MODE)
            .create(path)
            .map_err(io_error("create", path))?;
        let directory = File::open(path).map_err(io_error("open", path))?;
        let metadata = directory.metadata().map_err(io_error("examine", path))?;
        if metadata.permissions().mode() & WRITE_BY_GROUP_AND_OTHERS != 0 {
            return Err(unusable(path, "other users may write to it", "run chmod 700 on it"));
        }
        Ok(directory)
    }

    fn load(&self) -> Result<Option<RootPem>, CaError> {
        let remedy = "restore it, or move the other file away to make a new root";
        match (read(&self.certificate)?, read(&self.key)?) {
            (None, None) => Ok(None),
            (None, Some(_)) => Err(unusable(&self.certificate, "it is missing", remedy)),
            (Some(_), None) => Err(unusable(&self.key, "it is missing", remedy)),
            (Some(certificate), Some(key)) => {
                self.check_key_is_private()?;
                Ok(Some(RootPem { certificate, key }))
            }
        }
    }

    fn check_key_is_private(&self) -> Result<(), CaError> {
        let metadata = fs::metadata(&self.key).map_err(io_error("examine", &self.key))?;
        if metadata.permissions().mode() & GROUP_AND_OTHERS != 0 {
            return Err(unusable(&self.key, "other users may use it", "run chmod 600 on it"));
        }
        Ok(())
    }
}

/// Returns the error for a file that exists but cannot serve.
pub(super) fn unusable(path: &Path, problem: impl Into<String>, remedy: &'static str) -> CaError {
    CaError::Unusable { path: path.to_owned(), problem: problem.into(), remedy }
}

/// Makes `content` appear at `path` whole, without ever replacing a file.
fn publish(path: &Path, content: &str) -> Result<(), CaError> {
    let draft = path.with_extension("pem.new");
    // A process that was killed while it wrote leaves its draft behind.
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(io_error("remove", &draft)(error));
        }
        Ok(()) | Err(_) => {}
    }
    let written = write_private(&draft, content).and_then(|()| fs::hard_link(&draft, path));
    written.map_err(io_error("create", path))?;
    fs::remove_file(&draft).map_err(io_error("remove", &draft))
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CaError {
    let path = path.to_owned();
    move |source| CaError::Io { action, path, source }
}

fn read(path: &Path) -> Result<Option<String>, CaError> {
    match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("examine", path)(error)),
        Ok(metadata) if metadata.len() > MAX_FILE_BYTES => {
            let remedy = "put a PEM file with a single certificate or key there";
            return Err(unusable(path, "it is too large", remedy));
        }
        Ok(_) => {}
    }
    fs::read_to_string(path).map(Some).map_err(io_error("read", path))
}

fn write_private(path: &Path, content: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path)?;
    file.write_all(content.as_bytes())?;
    file.sync_all()
}
