//! The local configuration file: loaded, watched, applied without a restart.

use std::{
    ffi::OsStr,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use mesh_api::{
    config::{ConfigError, LocalConfig, MAX_CONFIG_BYTES, MeshConfig},
    workload::Network,
};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::{sync::mpsc, time::sleep};

use crate::{proxy::node::Node, state::MeshState};

/// Pause between the first sign of a change and reading the file: editors write in several steps.
const SETTLE_TIME: Duration = Duration::from_millis(20);

/// Why a configuration was not applied.
#[derive(Debug, thiserror::Error)]
pub enum LocalConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {cause}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        cause: std::io::Error,
    },
    /// The file is not a valid configuration.
    #[error("{}: {cause}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: Box<ConfigError>,
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

/// A configuration file and the proxy that it configures.
#[derive(Debug)]
pub struct WatchedConfig {
    path: PathBuf,
    network: Network,
    node: Arc<Node>,
    changes: mpsc::Receiver<()>,
    /// The version read last: a file that is written in several steps is several changes to the
    /// watcher.
    text: String,
    _watcher: RecommendedWatcher,
}

// === impl WatchedConfig ===

impl WatchedConfig {
    /// Applies the file and starts to watch it. A file that is broken at the start is an error: no
    /// good state exists yet.
    pub fn start(
        path: PathBuf,
        network: Network,
        node: Arc<Node>,
    ) -> Result<Self, LocalConfigError> {
        // Room for one: what counts is that something changed.
        let (send, changes) = mpsc::channel(1);
        let watcher = watch(&path, send)
            .map_err(|cause| LocalConfigError::Watch { path: path.clone(), cause })?;
        let text = read(&path)?;
        let config = Self { path, network, node, changes, text, _watcher: watcher };
        config.apply(config.parse()?);
        Ok(config)
    }

    /// Applies every further version of the file. Never returns.
    pub async fn follow(mut self) {
        while self.changes.recv().await.is_some() {
            sleep(SETTLE_TIME).await;
            // Whatever happened up to here is part of what is read next.
            while self.changes.try_recv().is_ok() {}
            match read(&self.path) {
                Ok(text) if text == self.text => continue,
                Ok(text) => self.text = text,
                Err(error) => {
                    // When it comes back, that is worth a word, whatever it says.
                    self.text.clear();
                    self.reject(&error);
                    continue;
                }
            }
            match self.parse() {
                Ok(config) => self.apply(config),
                Err(error) => self.reject(&error),
            }
        }
    }

    fn parse(&self) -> Result<MeshConfig, LocalConfigError> {
        LocalConfig::parse(&self.text)
            .map_err(|e| LocalConfigError::Invalid { path: self.path.clone(), cause: Box::new(e) })
    }

    fn reject(&self, error: &LocalConfigError) {
        self.node.metrics.config_reloads.rejected.inc();
        tracing::error!(%error, "configuration not applied; the last good one stays");
    }

    fn apply(&self, config: MeshConfig) {
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        let (workloads, services) = (config.workloads.len(), config.services.len());
        let policies = config.policies.len();
        self.node.set_state(MeshState::new(config, self.network.clone()));
        self.node.metrics.config_reloads.applied.inc();
        tracing::info!(workloads, services, policies, "configuration applied");
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

fn read(path: &Path) -> Result<String, LocalConfigError> {
    let read = |cause| LocalConfigError::Read { path: path.to_owned(), cause };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(read)?;
    // One byte more than allowed, so that the parser sees that it is too long.
    file.take(MAX_CONFIG_BYTES as u64 + 1).read_to_string(&mut text).map_err(read)?;
    Ok(text)
}
