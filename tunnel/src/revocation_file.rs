//! The file with the revocation lists: loaded, watched, applied without a restart.

use std::{
    fs::File,
    io::{self, ErrorKind, Read},
    path::{Path, PathBuf},
};

use fairlead_component::watched_file::WatchedFile;

use crate::tls::{RevocationLists, Revocations, revocation::InvalidLists};

/// Largest file read, in bytes: a hundred thousand revoked certificates, and more than a config map
/// holds.
const MAX_FILE_BYTES: u64 = 8 << 20;

/// Why revocation lists were not applied.
#[derive(Debug, thiserror::Error)]
pub enum RevocationFileError {
    /// The file cannot be read.
    #[error("cannot read {}: {cause}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        cause: io::Error,
    },
    /// The file is too large.
    #[error("{} has more than {MAX_FILE_BYTES} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The file holds something else.
    #[error("{}: {cause}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: InvalidLists,
    },
    /// The file cannot be watched.
    #[error("cannot watch {}: {cause}", path.display())]
    Watch {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        cause: notify::Error,
    },
}

/// A file with revocation lists, and where they are in force.
#[derive(Debug)]
pub struct RevocationFile {
    file: WatchedFile,
    revocations: Revocations,
    /// The version read last; none if the file was not there.
    content: Option<Vec<u8>>,
}

// === impl RevocationFile ===

impl RevocationFile {
    /// Applies the file and starts to watch it. A file that is not there revokes nothing; one that
    /// is broken at the start is an error: no good lists are known yet.
    pub fn start(path: &Path, revocations: Revocations) -> Result<Self, RevocationFileError> {
        let file = WatchedFile::new(path)
            .map_err(|cause| RevocationFileError::Watch { path: path.to_owned(), cause })?;
        let content = read(path)?;
        let file = Self { file, revocations, content };
        file.apply()?;
        Ok(file)
    }

    /// Applies every further version of the file. Never returns.
    pub async fn follow(mut self) {
        while self.file.changed().await {
            if let Err(error) = self.reload() {
                tracing::error!(%error, "revocation lists not applied; the last good ones stay");
            }
        }
    }

    fn reload(&mut self) -> Result<(), RevocationFileError> {
        let content = read(self.file.path())?;
        if content == self.content {
            return Ok(());
        }
        self.content = content;
        self.apply()
    }

    fn apply(&self) -> Result<(), RevocationFileError> {
        let path = self.file.path();
        let lists = match &self.content {
            Some(content) => RevocationLists::parse(content)
                .map_err(|cause| RevocationFileError::Invalid { path: path.to_owned(), cause })?,
            None => RevocationLists::default(),
        };
        tracing::info!(file = %path.display(), lists = lists.len(), "revocation lists applied");
        self.revocations.set(lists);
        Ok(())
    }
}

/// Returns what the file holds; nothing if it is not there.
fn read(path: &Path) -> Result<Option<Vec<u8>>, RevocationFileError> {
    let failed = |cause| RevocationFileError::Read { path: path.to_owned(), cause };
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed)?,
    };
    let mut content = Vec::new();
    let length = file.take(MAX_FILE_BYTES + 1).read_to_end(&mut content).map_err(failed)?;
    if length as u64 > MAX_FILE_BYTES {
        return Err(RevocationFileError::TooLarge { path: path.to_owned() });
    }
    Ok(Some(content))
}

#[cfg(test)]
mod tests;
