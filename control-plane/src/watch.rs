//! Files that are replaced while they are in use.

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    time::Duration,
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::{sync::mpsc, time::sleep};

/// Pause between the first sign of a change and looking at the files: they are written in several
/// steps.
const SETTLE_TIME: Duration = Duration::from_millis(50);

/// A config map or secret in a volume is replaced by way of this link.
const VOLUME_LINK: &str = "..data";

/// Signs of changes to files of one directory.
#[derive(Debug)]
pub struct Watched {
    changes: mpsc::Receiver<()>,
    _watcher: RecommendedWatcher,
}

/// Why files cannot be watched.
#[derive(Debug, thiserror::Error)]
#[error("cannot watch {}: {source}", path.display())]
pub struct WatchError {
    path: PathBuf,
    source: notify::Error,
}

// === impl Watched ===

impl Watched {
    /// Watches one file, which need not exist.
    pub fn file(path: &Path) -> Result<Self, WatchError> {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        Self::new(parent.unwrap_or_else(|| Path::new(".")), path.file_name().map(OsStr::to_owned))
    }

    /// Watches every file of a directory.
    pub fn directory(path: &Path) -> Result<Self, WatchError> {
        Self::new(path, None)
    }

    /// Waits for the next change. Returns false if there will be none.
    pub async fn changed(&mut self) -> bool {
        if self.changes.recv().await.is_none() {
            return false;
        }
        sleep(SETTLE_TIME).await;
        // Whatever happened up to here is part of what is read next.
        while self.changes.try_recv().is_ok() {}
        true
    }

    fn new(directory: &Path, name: Option<OsString>) -> Result<Self, WatchError> {
        // Room for one: what counts is that something changed.
        let (send, changes) = mpsc::channel(1);
        let concerns = move |event: &notify::Event| {
            let named = |path: &PathBuf| {
                let file = path.file_name();
                name.is_none() || file == name.as_deref() || file == Some(OsStr::new(VOLUME_LINK))
            };
            !event.kind.is_access() && event.paths.iter().any(named)
        };
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // After an error it is safer to look than not to.
            if event.as_ref().map_or(true, &concerns) {
                // A full queue means that a change is already on its way.
                let _ = send.try_send(());
            }
        });
        let failed = |source| WatchError { path: directory.to_owned(), source };
        let mut watcher = watcher.map_err(failed)?;
        watcher.watch(directory, RecursiveMode::NonRecursive).map_err(failed)?;
        Ok(Self { changes, _watcher: watcher })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn a_file_is_seen_to_be_written_and_to_be_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (file, draft) = (dir.path().join("tokens"), dir.path().join("draft"));
        let mut watched = Watched::file(&file).unwrap();
        fs::write(&file, "1").unwrap();
        assert!(watched.changed().await);
        fs::write(&draft, "2").unwrap();
        fs::rename(draft, file).unwrap();
        assert!(watched.changed().await);
    }
}
