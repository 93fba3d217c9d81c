//! The server's own certificate, from the authority that it serves.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
    version::TLS13,
};
use tokio::time::sleep;
use tracing::{error, info};

use crate::ca::{Authority, CaError};

/// Pause after a certificate could not be renewed.
const RETRY_PAUSE: Duration = Duration::from_mins(1);

/// The certificate that clients see; renewed before it ends.
pub struct ServingCertificate {
    authority: Arc<Authority>,
    names: Vec<String>,
    provider: Arc<CryptoProvider>,
    current: ArcSwap<Current>,
}

struct Current {
    key: Arc<CertifiedKey>,
    renew_at: SystemTime,
}

/// Why there is no certificate to serve with.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The authority issues none.
    #[error("cannot issue a serving certificate: {0}")]
    Issue(#[from] CaError),
    /// TLS does not take it.
    #[error("cannot serve TLS: {0}")]
    Tls(#[from] rustls::Error),
}

// === impl ServingCertificate ===

impl ServingCertificate {
    /// Has a certificate issued for the given DNS names and addresses.
    pub fn new(authority: Arc<Authority>, names: Vec<String>) -> Result<Arc<Self>, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let current = ArcSwap::from_pointee(issue(&authority, &names, &provider)?);
        Ok(Arc::new(Self { authority, names, provider, current }))
    }

    /// Renews the certificate at half of its life. Never returns.
    pub async fn keep_fresh(&self) {
        loop {
            let due = self.current.load().renew_at.duration_since(SystemTime::now());
            sleep(due.unwrap_or_default()).await;
            match issue(&self.authority, &self.names, &self.provider) {
                Ok(current) => {
                    info!("serving certificate renewed");
                    self.current.store(Arc::new(current));
                }
                Err(error) => {
                    error!(%error, "serving certificate not renewed");
                    sleep(RETRY_PAUSE).await;
                }
            }
        }
    }

    /// Returns how to serve `protocol` with the certificate of each moment.
    pub(crate) fn server_config(
        self: &Arc<Self>,
        protocol: &[u8],
    ) -> Result<ServerConfig, TlsError> {
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&TLS13])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![protocol.to_vec()];
        Ok(config)
    }
}

impl ResolvesServerCert for ServingCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.load().key))
    }
}

impl fmt::Debug for ServingCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServingCertificate").field("names", &self.names).finish_non_exhaustive()
    }
}

fn issue(
    authority: &Authority,
    names: &[String],
    provider: &CryptoProvider,
) -> Result<Current, TlsError> {
    let (issued, key) = authority.issue_to_server(names)?;
    let life = issued.not_after.duration_since(issued.not_before).unwrap_or_default();
    Ok(Current {
        key: Arc::new(CertifiedKey::from_der(issued.chain, key, provider)?),
        renew_at: issued.not_before + life / 2,
    })
}
