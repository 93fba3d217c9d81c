//! Follows a directory.

use std::{path::PathBuf, time::Duration};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::{
    sync::mpsc,
    task::spawn_blocking,
    time::{Instant, timeout, timeout_at},
};

use super::{
    Changes, Directory, DirectoryError,
    signs::{Sign, Unfinished},
};

/// Longest wait for a pause in the changes, or for a file to be closed, before the files are read.
const MAX_SETTLE_TIME: Duration = Duration::from_millis(500);
/// Signs that wait while the files are read; more stay with the kernel, which tells when it lost any.
const SIGN_QUEUE: usize = 256;

/// A directory that is watched.
#[derive(Debug)]
pub struct WatchedDirectory {
    directory: Directory,
    signs: mpsc::Receiver<Sign>,
    _watcher: RecommendedWatcher,
}

// === impl WatchedDirectory ===

impl WatchedDirectory {
    /// Starts to watch a directory and reads it. Files that are broken are among the changes; a
    /// directory that cannot be read is an error.
    pub fn start(root: PathBuf) -> Result<(Self, Changes), DirectoryError> {
        let (send, signs) = mpsc::channel(SIGN_QUEUE);
        let watcher = watch(&root, send)
            .map_err(|cause| DirectoryError::Watch { path: root.clone(), cause })?;
        let mut directory = Directory::new(root);
        let changes = directory.refresh()?;
        Ok((Self { directory, signs, _watcher: watcher }, changes))
    }

    /// Sends what every further look at the directory brings, until nobody listens.
    pub async fn follow(mut self, changes: mpsc::Sender<Result<Changes, DirectoryError>>) {
        while let Some(sign) = self.signs.recv().await {
            self.settle(sign).await;
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

    /// Waits until files are whole and nothing follows.
    async fn settle(&mut self, first: Sign) {
        let latest = Instant::now() + MAX_SETTLE_TIME;
        let mut unfinished = Unfinished::default();
        unfinished.note(first);
        // A sign that is there is taken even when its time is over.
        while Instant::now() < latest {
            let pause = unfinished.pause().unwrap_or(MAX_SETTLE_TIME);
            let next = timeout_at(latest, timeout(pause, self.signs.recv())).await;
            let Ok(Ok(Some(sign))) = next else { return };
            unfinished.note(sign);
        }
    }
}

fn watch(root: &std::path::Path, signs: mpsc::Sender<Sign>) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let sign = event.map_or(Some(Sign::Unclear), |event| Sign::of(&event));
        if let Some(sign) = sign {
            // Nobody listens any more.
            let _ = signs.blocking_send(sign);
        }
    })?;
    watcher.watch(root, RecursiveMode::Recursive)?;
    Ok(watcher)
}
