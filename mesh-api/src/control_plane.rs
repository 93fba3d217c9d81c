//! The way to a control plane: gRPC over TLS, with a bearer token.
//!
//! Roots and token are read when they are used, so that whoever replaces the files, as Kubernetes
//! does, need not tell anyone.

mod address;
mod connector;
mod files;
mod options;

use std::{error::Error, path::PathBuf, time::Duration};

use rustls::pki_types::ServerName;
use tonic::{
    Request,
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint},
};

use self::connector::Connector;
pub use self::{
    address::{Address, InvalidAddress, server_name},
    options::ControlPlaneArgs,
};

/// Pause between two pings of a connection.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);

/// Time to answer a ping; a connection without answer is given up.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Header with the cluster that the caller is of.
const CLUSTER_HEADER: &str = "clusterid";

/// A service of the control plane, and what it takes to call it.
#[derive(Clone, Debug)]
pub struct ControlPlane {
    /// Where it is.
    pub address: Address,
    /// Name that its certificate has to carry; the host of the address where there is none.
    pub server_name: Option<ServerName<'static>>,
    /// PEM file with the roots that its certificate has to chain to.
    pub roots: PathBuf,
    /// File with the token that says who calls.
    pub token: PathBuf,
    /// Cluster that the caller is of.
    pub cluster_id: String,
}

/// Why the control plane cannot be called.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: std::io::Error,
    },
    /// The file is too large to be what it should be.
    #[error("{} is longer than {limit} bytes: it is not what it should be", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Longest that is accepted, in bytes.
        limit: u64,
    },
    /// The file with the roots holds none.
    #[error("{} holds no usable root certificate: {problem}", path.display())]
    Roots {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The file with the token holds something else.
    #[error("{} holds no token: it is empty or has characters that no token has", path.display())]
    Token {
        /// The file.
        path: PathBuf,
    },
    /// The name of the cluster does not fit into a header.
    #[error("the cluster id {0:?} has characters that a header cannot have")]
    ClusterId(String),
    /// The TLS library refuses the settings.
    #[error("cannot use TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// No connection came about.
    #[error("cannot connect to {address}: {problem}")]
    Unreachable {
        /// Where to.
        address: Address,
        /// What is wrong.
        problem: String,
    },
}

// === impl ControlPlane ===

impl ControlPlane {
    /// Connects, trusting the roots that are in the file now.
    pub async fn connect(&self) -> Result<Channel, ConnectError> {
        self.connect_with(&self.read_roots().await?).await
    }

    /// Returns the text of the file with the roots.
    pub async fn read_roots(&self) -> Result<Vec<u8>, ConnectError> {
        files::read(&self.roots, files::MAX_ROOTS_BYTES).await
    }

    /// Connects, trusting `roots`.
    pub async fn connect_with(&self, roots: &[u8]) -> Result<Channel, ConnectError> {
        let connector = Connector::new(self, roots)?;
        let endpoint = Endpoint::from(self.address.plain_uri())
            .origin(self.address.uri())
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true);
        let connect = move |_| {
            let connector = connector.clone();
            async move { connector.connect().await }
        };
        endpoint.connect_with_connector(tower::service_fn(connect)).await.map_err(|error| {
            let problem = innermost(&error);
            ConnectError::Unreachable { address: self.address.clone(), problem }
        })
    }

    /// Adds to `request` who calls, by the token that is in the file now.
    pub async fn authorize<T>(&self, request: &mut Request<T>) -> Result<(), ConnectError> {
        let token = files::read(&self.token, files::MAX_TOKEN_BYTES).await?;
        let metadata = request.metadata_mut();
        metadata.insert("authorization", self.bearer(&token)?);
        let cluster = self.cluster_id.parse();
        let cluster = cluster.map_err(|_| ConnectError::ClusterId(self.cluster_id.clone()))?;
        metadata.insert(CLUSTER_HEADER, cluster);
        Ok(())
    }

    fn bearer(&self, token: &[u8]) -> Result<MetadataValue<Ascii>, ConnectError> {
        let invalid = || ConnectError::Token { path: self.token.clone() };
        let token = std::str::from_utf8(token).map_err(|_| invalid())?.trim();
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(invalid());
        }
        let mut value: MetadataValue<Ascii> =
            format!("Bearer {token}").parse().map_err(|_| invalid())?;
        // Kept out of debug output.
        value.set_sensitive(true);
        Ok(value)
    }
}

/// Returns what is at the bottom of an error: the layers above say only that something failed.
fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

#[cfg(test)]
mod tests;
