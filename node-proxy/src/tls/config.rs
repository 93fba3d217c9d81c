//! TLS configurations of one workload certificate, built once and shared by its connections.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::SystemTime,
};

use fairlead_component::clock::Clock;
use mesh_api::identity::Identity;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::{Resumption, Tls12Resumption},
    crypto::{
        CryptoProvider,
        aws_lc_rs::{
            self, Ticketer,
            cipher_suite::{TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384},
        },
    },
    pki_types::{CertificateDer, ServerName},
    server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier},
    sign::SingleCertAndKey,
    version::TLS13,
};

use super::{
    peer::{self, PeerError, peer_identity},
    sessions::Sessions,
    verifier::{ClientVerifier, ServerVerifier},
};
use crate::identity::svid::Svid;

/// The only application protocol of a tunnel.
const ALPN_H2: &[u8] = b"h2";

/// Sets of expected identities whose configurations are kept: services that one workload talks to.
const MAX_EXPECTED_SETS: usize = 64;

/// Session tickets that a server sends: a client uses each once, and may have two threads.
const TICKETS: usize = 2;

/// What Istio's proxies speak, the cheaper suite first. Every processor that runs nodes has AES
/// instructions, so there is no choice by processor to make; `ChaCha20` would never be agreed on.
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
    clock: Clock,
    roots: Arc<RootCertStore>,
    client: ClientConfig,
    clients: Mutex<HashMap<Box<[Identity]>, Arc<ClientConfig>>>,
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

/// Returns the name by which the sessions of a peer are known. It is not sent, and identities are
/// checked in its place.
pub fn server_name(address: IpAddr) -> ServerName<'static> {
    ServerName::IpAddress(address.into())
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
            clock: clock.clone(),
            client: client_config(svid, clock, &roots)?,
            clients: Mutex::default(),
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

    /// Returns the configuration to open a tunnel with that only one of `expected` may answer. It is
    /// built once; sessions are resumed only with the one that they began with.
    pub fn client(&self, expected: &[Identity]) -> Arc<ClientConfig> {
        // The map is whole between any two of its operations.
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = clients.get(expected) {
            return Arc::clone(config);
        }
        if clients.len() >= MAX_EXPECTED_SETS {
            clients.clear();
        }
        let mut config = self.client.clone();
        trust(&mut config, &self.roots, expected, &self.clock);
        let config = Arc::new(config);
        clients.insert(expected.into(), Arc::clone(&config));
        config
    }

    /// Returns the identity of a client after the handshake, whose session may be an old one.
    pub fn check_client(
        &self,
        certificates: Option<&[CertificateDer<'_>]>,
    ) -> Result<Identity, PeerError> {
        let expiry = peer::first_expiry(certificates.unwrap_or_default())?;
        if expiry.is_some_and(|not_after| not_after < self.clock.now()) {
            return Err(PeerError::Expired);
        }
        peer_identity(certificates)
    }

    /// Checks a server after the handshake, whose session may be an old one.
    pub fn check_server(
        &self,
        certificates: Option<&[CertificateDer<'_>]>,
        expected: &[Identity],
    ) -> Result<(), PeerError> {
        let got = self.check_client(certificates)?;
        if expected.contains(&got) {
            return Ok(());
        }
        Err(PeerError::UnexpectedIdentity { expected: expected.into(), got })
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
            .with_custom_certificate_verifier(server_verifier(roots, &[], clock).0)
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
    // Sessions are in the tickets, sealed with keys that live and die with this configuration. Each
    // agrees on a fresh key all the same, and no data is accepted ahead of it.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = Ticketer::new()?;
    config.send_tls13_tickets = TICKETS;
    config.enable_secret_extraction = true;
    Ok(config)
}

/// Makes `config` trust `expected`, and gives it their sessions.
fn trust(
    config: &mut ClientConfig,
    roots: &Arc<RootCertStore>,
    expected: &[Identity],
    clock: &Clock,
) {
    let (verifier, sessions) = server_verifier(roots, expected, clock);
    config.dangerous().set_certificate_verifier(verifier);
    config.resumption = Resumption::store(sessions).tls12_resumption(Tls12Resumption::Disabled);
}

fn server_verifier(
    roots: &Arc<RootCertStore>,
    expected: &[Identity],
    clock: &Clock,
) -> (Arc<ServerVerifier>, Arc<Sessions>) {
    let algorithms = PROVIDER.signature_verification_algorithms;
    let sessions = Arc::new(Sessions::new(clock.clone()));
    let verifier = ServerVerifier::new(Arc::clone(roots), algorithms, expected, sessions.clone());
    (Arc::new(verifier), sessions)
}
