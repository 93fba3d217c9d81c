//! Follows a directory.

use std::{path::PathBuf, time::Duration};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::{
    sync::mpsc,
    task::spawn_blocking,
    time::{Instant, timeout, timeout_at},
};

use super::{Changes, Directory, DirectoryError};

/// Pause without changes before the files are read: editors write in several steps.
const SETTLE_TIME: Duration = Duration::from_millis(20);
/// Longest wait for such a pause.
const MAX_SETTLE_TIME: Duration = Duration::from_millis(500);

/// A directory that is watched.
#[derive(Debug)]
pub struct WatchedDirectory {
    directory: Directory,
    signs: mpsc::Receiver<()>,
    _watcher: RecommendedWatcher,
}

// === impl WatchedDirectory ===

impl WatchedDirectory {
    /// Starts to watch a directory and reads it. Files that are broken are among the changes; a
    /// directory that cannot be read is an error.
    pub fn start(root: PathBuf) -> Result<(Self, Changes), DirectoryError> {
        // Room for one: what counts is that something changed.
        let (send, signs) = mpsc::channel(1);
        let watcher = watch(&root, send)
            .map_err(|cause| DirectoryError::Watch { path: root.clone(), cause })?;
        let mut directory = Directory::new(root);
        let changes = directory.refresh()?;
        Ok((Self { directory, signs, _watcher: watcher }, changes))
    }

    /// Sends what every further look at the directory brings, until nobody listens.
    pub async fn follow(mut self, changes: mpsc::Sender<Result<Changes, DirectoryError>>) {
        while self.signs.recv().await.is_some() {
            self.settle().await;
            let mut directory = self.directory;
            let looked = spawn_blocking(move || {
                let outcome = directory.refresh();
                (directory, outcome)
            });
            // It only fails if it panicked or the program ends.
            let Ok((directory, outcome)) = looked.await else { return };
            self.directory = directory;
            if changes.send(outcome).await.is_err() {
                return;
            }
        }
    }

    /// Waits for a pause in the changes.
    async fn settle(&mut self) {
        let latest = Instant::now() + MAX_SETTLE_TIME;
        while let Ok(Ok(Some(()))) =
            timeout_at(latest, timeout(SETTLE_TIME, self.signs.recv())).await
        {}
    }
}

fn watch(root: &std::path::Path, signs: mpsc::Sender<()>) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !event.kind.is_access()) {
            // A full queue means that a change is already on its way.
            let _ = signs.try_send(());
        }
    })?;
    watcher.watch(root, RecursiveMode::Recursive)?;
    Ok(watcher)
}
