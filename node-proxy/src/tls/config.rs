//! TLS configurations of one workload certificate, built once and shared by its connections.

use std::{
    net::Ipv4Addr,
    sync::{Arc, LazyLock},
    time::SystemTime,
};

use mesh_api::identity::Identity;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::Resumption,
    crypto::{
        CryptoProvider,
        aws_lc_rs::{
            self,
            cipher_suite::{TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384},
        },
    },
    pki_types::ServerName,
    server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier},
    sign::SingleCertAndKey,
    version::TLS13,
};

use super::verifier::{ClientVerifier, ServerVerifier};
use crate::identity::{clock::Clock, svid::Svid};

/// The only application protocol of a tunnel.
const ALPN_H2: &[u8] = b"h2";

static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    Arc::new(CryptoProvider {
        cipher_suites: vec![TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384],
        ..aws_lc_rs::default_provider()
    })
});

/// TLS configurations for both directions of one workload certificate.
#[derive(Debug)]
pub struct TlsConfigs {
    identity: Identity,
    not_after: SystemTime,
    roots: Arc<RootCertStore>,
    client: ClientConfig,
    server: Arc<ServerConfig>,
}

/// Why a certificate makes no TLS configuration.
#[derive(Debug, thiserror::Error)]
pub enum TlsConfigError {
    /// A root certificate is malformed, or the library refused the settings.
    #[error("cannot use the certificate for TLS: {0}")]
    Rustls(#[from] rustls::Error),
    /// There is no root to verify clients with.
    #[error("cannot verify clients: {0}")]
    ClientVerifier(#[from] VerifierBuilderError),
}

/// Returns the name that clients connect to: none, since identities are checked instead.
pub fn server_name() -> ServerName<'static> {
    ServerName::IpAddress(Ipv4Addr::UNSPECIFIED.into())
}

// === impl TlsConfigs ===

impl TlsConfigs {
    /// Builds the configurations of `svid`; certificates of peers are compared with `clock`.
    pub fn new(svid: &Svid, clock: &Clock) -> Result<Self, TlsConfigError> {
        let mut roots = RootCertStore::empty();
        for root in svid.roots() {
            roots.add(root.clone())?;
        }
        let roots = Arc::new(roots);
        Ok(Self {
            identity: svid.identity().clone(),
            not_after: svid.validity().not_after,
            client: client_config(svid, clock, &roots)?,
            server: Arc::new(server_config(svid, clock, &roots)?),
            roots,
        })
    }

    /// Returns the workload that these configurations speak for.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Returns the end of the certificate's validity.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Returns the configuration to accept tunnels with.
    pub fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server)
    }

    /// Returns the configuration to open a tunnel with that only one of `expected` may answer.
    ///
    /// Costs a few reference counts: keys, roots and settings are shared.
    pub fn client(&self, expected: &[Identity]) -> Arc<ClientConfig> {
        let mut config = self.client.clone();
        config.dangerous().set_certificate_verifier(server_verifier(&self.roots, expected));
        Arc::new(config)
    }
}

/// Returns a configuration that trusts nobody until it is told whom to expect.
fn client_config(
    svid: &Svid,
    clock: &Clock,
    roots: &Arc<RootCertStore>,
) -> Result<ClientConfig, TlsConfigError> {
    let mut config =
        ClientConfig::builder_with_details(Arc::clone(&PROVIDER), Arc::new(clock.clone()))
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(server_verifier(roots, &[]))
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(svid.certified_key())));
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    config.enable_sni = false;
    config.enable_secret_extraction = true;
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn server_config(
    svid: &Svid,
    clock: &Clock,
    roots: &Arc<RootCertStore>,
) -> Result<ServerConfig, TlsConfigError> {
    let chain =
        WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(&PROVIDER))
            .build()?;
    let verifier = ClientVerifier::new(chain, svid.identity().trust_domain.clone());
    let mut config =
        ServerConfig::builder_with_details(Arc::clone(&PROVIDER), Arc::new(clock.clone()))
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(svid.certified_key())));
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.enable_secret_extraction = true;
    Ok(config)
}

fn server_verifier(roots: &Arc<RootCertStore>, expected: &[Identity]) -> Arc<ServerVerifier> {
    let algorithms = PROVIDER.signature_verification_algorithms;
    Arc::new(ServerVerifier::new(Arc::clone(roots), algorithms, expected))
}
