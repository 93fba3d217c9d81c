//! A file whose changes are noticed.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    time::Duration,
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::{sync::mpsc, time::sleep};

/// Pause between the first sign of a change and reading the file: editors write in several steps.
const SETTLE_TIME: Duration = Duration::from_millis(20);

/// A file that may change, or come and go.
#[derive(Debug)]
pub struct WatchedFile {
    path: PathBuf,
    changes: mpsc::Receiver<()>,
    _watcher: RecommendedWatcher,
}

// === impl WatchedFile ===

impl WatchedFile {
    /// Notices what happens to the file from now on. Its directory must exist.
    pub fn new(path: &Path) -> notify::Result<Self> {
        // Room for one: what counts is that something changed.
        let (send, changes) = mpsc::channel(1);
        let watcher = watch(path, send)?;
        Ok(Self { path: path.to_owned(), changes, _watcher: watcher })
    }

    /// Returns where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits until the file may have changed since the last call; returns whether it is still
    /// watched.
    pub async fn changed(&mut self) -> bool {
        if self.changes.recv().await.is_none() {
            return false;
        }
        sleep(SETTLE_TIME).await;
        // Whatever happened up to here is part of what is read next.
        while self.changes.try_recv().is_ok() {}
        true
    }
}

/// Watches the directory: editors and config maps replace files rather than write them.
fn watch(path: &Path, changes: mpsc::Sender<()>) -> notify::Result<RecommendedWatcher> {
    let name = path.file_name().map(OsStr::to_owned);
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let relevant = event.is_ok_and(|event| {
            let touches = |p: &PathBuf| {
                // A config map is swapped by way of this link.
                p.file_name() == name.as_deref() || p.file_name() == Some(OsStr::new("..data"))
            };
            !event.kind.is_access() && event.paths.iter().any(touches)
        });
        if relevant {
            // A full queue means that a change is already on its way.
            let _ = changes.try_send(());
        }
    })?;
    watcher.watch(parent.unwrap_or_else(|| Path::new(".")), RecursiveMode::NonRecursive)?;
    Ok(watcher)
}
