//! The local configuration file: loaded, watched, applied without a restart.

use std::{
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use fairlead_component::watched_file::WatchedFile;
use mesh_api::{
    config::{ConfigError, LocalConfig, MAX_CONFIG_BYTES, MeshConfig},
    workload::Network,
};

use crate::{proxy::node::Node, state::MeshState};

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
    file: WatchedFile,
    network: Network,
    node: Arc<Node>,
    /// The version read last: a file that is written in several steps is several changes to the
    /// watcher.
    text: String,
}

// === impl WatchedConfig ===

impl WatchedConfig {
    /// Applies the file and starts to watch it. A file that is broken at the start is an error: no
    /// good state exists yet.
    pub fn start(path: &Path, network: Network, node: Arc<Node>) -> Result<Self, LocalConfigError> {
        let file = WatchedFile::new(path)
            .map_err(|cause| LocalConfigError::Watch { path: path.to_owned(), cause })?;
        let text = read(path)?;
        let config = Self { file, network, node, text };
        config.apply(config.parse()?);
        Ok(config)
    }

    /// Applies every further version of the file. Never returns.
    pub async fn follow(mut self) {
        while self.file.changed().await {
            match read(self.file.path()) {
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
        LocalConfig::parse(&self.text).map_err(|cause| LocalConfigError::Invalid {
            path: self.file.path().to_owned(),
            cause: Box::new(cause),
        })
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

fn read(path: &Path) -> Result<String, LocalConfigError> {
    let read = |cause| LocalConfigError::Read { path: path.to_owned(), cause };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(read)?;
    // One byte more than allowed, so that the parser sees that it is too long.
    file.take(MAX_CONFIG_BYTES as u64 + 1).read_to_string(&mut text).map_err(read)?;
    Ok(text)
}
