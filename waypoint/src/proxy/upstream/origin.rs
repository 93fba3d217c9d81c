//! TLS with endpoints, as destination rules want it: not that of the mesh, which is around it.

mod material;
mod verifier;

use std::{
    cell::RefCell,
    collections::HashMap,
    fmt, io,
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::{
    ClientConfig,
    client::VerifierBuilderError,
    pki_types::{ServerName, pem},
};
use tokio::task::spawn_blocking;
use tokio_rustls::{TlsConnector, client::TlsStream};

use self::material::{Place, load};
use super::{Io, Version};
use crate::mesh::OriginTls;

/// Time after which files are read again: whoever replaces them waits for no longer, and a busy
/// waypoint reads them rarely.
const REREAD_INTERVAL: Duration = Duration::from_secs(10);

/// Begins TLS with endpoints.
#[derive(Default)]
pub(super) struct Originator {
    configs: RefCell<HashMap<Key, Loaded>>,
}

/// What a configuration is made of.
type Key = (Arc<OriginTls>, Version);

/// A configuration, or why there is none.
struct Loaded {
    config: Result<Arc<ClientConfig>, OriginError>,
    at: Instant,
}

/// Why TLS was not begun.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum OriginError {
    /// What is there cannot be read.
    #[error("{0}: {1}")]
    Unreadable(Place, Arc<pem::Error>),
    /// There is nothing of what is needed.
    #[error("{0}: there is none in it")]
    Empty(Place),
    /// The operating system has no roots.
    #[error(
        "trafficPolicy.tls: this system has no root certificates; name a file of them in \
         caCertificates"
    )]
    NoRoots,
    /// What the files say makes no configuration.
    #[error("trafficPolicy.tls: {0}")]
    Config(rustls::Error),
    /// What a secret says makes none.
    #[error("trafficPolicy.tls.credentialName: secret {0}: {1}")]
    Secret(String, rustls::Error),
    /// The same.
    #[error("trafficPolicy.tls: {0}")]
    Verifier(#[from] VerifierBuilderError),
    /// Nobody can be asked for by this name.
    #[error("\"{0}\" is not a name that an endpoint could have; set trafficPolicy.tls.sni")]
    Name(Arc<str>),
    /// The process ends.
    #[error("this waypoint stops")]
    Stopping,
    /// The endpoint did not agree, or is not trusted.
    #[error("{0}")]
    Handshake(Arc<io::Error>),
}

// === impl Originator ===

impl Originator {
    /// Begins TLS with the endpoint that has this name.
    pub(super) async fn begin(
        &self,
        tls: &Arc<OriginTls>,
        name: &Arc<str>,
        version: Version,
        io: Box<dyn Io>,
    ) -> Result<TlsStream<Box<dyn Io>>, OriginError> {
        let config = self.config(tls, version).await?;
        // An address of IPv6 stands in brackets in an authority.
        let server = ServerName::try_from(name.trim_matches(['[', ']']).to_owned());
        let server = server.map_err(|_| OriginError::Name(name.clone()))?;
        let begun = TlsConnector::from(config).connect(server, io).await;
        begun.map_err(|error| OriginError::Handshake(Arc::new(error)))
    }

    /// Forgets what is to be read again anyway.
    pub(super) fn sweep(&self) {
        self.configs.borrow_mut().retain(|_, loaded| loaded.is_fresh());
    }

    async fn config(
        &self,
        tls: &Arc<OriginTls>,
        version: Version,
    ) -> Result<Arc<ClientConfig>, OriginError> {
        let key = (tls.clone(), version);
        if let Some(loaded) = self.configs.borrow().get(&key)
            && loaded.is_fresh()
        {
            return loaded.config.clone();
        }
        let settings = tls.clone();
        let reading = spawn_blocking(move || load(&settings, version).map(Arc::new));
        let config = reading.await.map_err(|_| OriginError::Stopping)?;
        let loaded = Loaded { config: config.clone(), at: Instant::now() };
        self.configs.borrow_mut().insert(key, loaded);
        config
    }
}

impl fmt::Debug for Originator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Originator").finish_non_exhaustive()
    }
}

// === impl Loaded ===

impl Loaded {
    fn is_fresh(&self) -> bool {
        self.at.elapsed() < REREAD_INTERVAL
    }
}
