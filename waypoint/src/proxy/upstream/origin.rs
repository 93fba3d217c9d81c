//! TLS with endpoints, as destination rules want it: not that of the mesh, which is around it.

mod verifier;

use std::{
    cell::RefCell,
    collections::HashMap,
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::{
    ClientConfig, RootCertStore,
    client::{VerifierBuilderError, WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{
        CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName,
        pem::{self, PemObject},
    },
};
use tokio::task::spawn_blocking;
use tokio_rustls::{TlsConnector, client::TlsStream};

use self::verifier::{Named, Unverified};
use super::{Io, Version};
use crate::mesh::OriginTls;

/// Time after which files are read again: whoever replaces them waits for no longer, and a busy
/// waypoint reads them rarely.
const REREAD_INTERVAL: Duration = Duration::from_secs(10);

/// What HTTP/2 is agreed on by. Nothing is said of HTTP/1.1: not every server that speaks it says so.
const ALPN_H2: &[u8] = b"h2";

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
    /// A file cannot be used.
    #[error("trafficPolicy.tls.{field}: {}: {problem}", .path.display())]
    File { field: &'static str, path: PathBuf, problem: Arc<pem::Error> },
    /// A file has nothing of what it is for.
    #[error("trafficPolicy.tls.{field}: {}: there is none in it", .path.display())]
    Empty { field: &'static str, path: PathBuf },
    /// The operating system has no roots.
    #[error(
        "trafficPolicy.tls: this system has no root certificates; name a file of them in \
         caCertificates"
    )]
    NoRoots,
    /// What the files say makes no configuration.
    #[error("trafficPolicy.tls: {0}")]
    Config(#[from] rustls::Error),
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

/// Reads the files and makes a configuration of them.
fn load(tls: &OriginTls, version: Version) -> Result<ClientConfig, OriginError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier(tls, provider)?);
    let mut config = match &tls.own {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = read("clientCertificate", certificate)?;
            let private = PrivateKeyDer::from_pem_file(key);
            let private = private.map_err(|problem| unusable("privateKey", key, problem))?;
            builder.with_client_auth_cert(chain, private)?
        }
    };
    config.alpn_protocols = match version {
        Version::Http1 => Vec::new(),
        Version::Http2 => vec![ALPN_H2.to_vec()],
    };
    Ok(config)
}

fn verifier(
    tls: &OriginTls,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, OriginError> {
    if tls.skip_verification {
        return Ok(Arc::new(Unverified(provider)));
    }
    let roots = Arc::new(roots(tls.roots.as_deref())?);
    let mut builder = WebPkiServerVerifier::builder_with_provider(roots, provider);
    if let Some(path) = &tls.revoked {
        let lists = read::<CertificateRevocationListDer<'_>>("caCrl", path)?;
        // As in Envoy, whose lists need not be of every authority.
        builder = builder.with_crls(lists).allow_unknown_revocation_status();
    }
    Ok(Arc::new(Named::new(builder.build()?, tls.names.clone())))
}

/// Returns the roots of a file, or else those of the operating system, of which some may be no use.
fn roots(path: Option<&Path>) -> Result<RootCertStore, OriginError> {
    let mut roots = RootCertStore::empty();
    let Some(path) = path else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return if roots.is_empty() { Err(OriginError::NoRoots) } else { Ok(roots) };
    };
    for root in read::<CertificateDer<'_>>("caCertificates", path)? {
        roots.add(root)?;
    }
    Ok(roots)
}

/// Reads what is in a file, of which there is at least one.
fn read<T: PemObject>(field: &'static str, path: &Path) -> Result<Vec<T>, OriginError> {
    let read = T::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = read.map_err(|problem| unusable(field, path, problem))?;
    let empty = found.is_empty().then(|| OriginError::Empty { field, path: path.to_owned() });
    empty.map_or(Ok(found), Err)
}

fn unusable(field: &'static str, path: &Path, problem: pem::Error) -> OriginError {
    OriginError::File { field, path: path.to_owned(), problem: Arc::new(problem) }
}
