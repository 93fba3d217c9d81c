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
use webpki::KeyUsage;

use super::{
    peer::{self, PeerError, peer_identity},
    revocation::{Revocations, TrustedChain},
    sessions::Sessions,
    verifier::{ClientVerifier, ServerVerifier, Trust},
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
    trust: Trust,
    own: Arc<TrustedChain>,
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
    /// Builds the configurations of `svid`; certificates of peers are compared with `clock`, and good
    /// as long as `revocations` do not name them.
    pub fn new(
        svid: &Svid,
        clock: &Clock,
        revocations: &Revocations,
    ) -> Result<Self, TlsConfigError> {
        let mut roots = RootCertStore::empty();
        for root in svid.roots() {
            roots.add(root.clone())?;
        }
        let trust = Trust { roots: Arc::new(roots), revocations: revocations.clone() };
        // Verified by nobody but the CA, for any use: what it says is compared with the lists only.
        let own = trust.chain(svid.chain().to_vec(), KeyUsage::client_auth(), clock);
        Ok(Self {
            identity: svid.identity().clone(),
            not_after: svid.validity().not_after,
            clock: clock.clone(),
            own: Arc::new(own),
            client: client_config(svid, clock, &trust)?,
            clients: Mutex::default(),
            server: Arc::new(server_config(svid, clock, &trust)?),
            trust,
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

    /// Returns the own certificates.
    pub fn own_chain(&self) -> Arc<TrustedChain> {
        Arc::clone(&self.own)
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
        expect(&mut config, &self.trust, expected, &self.clock);
        let config = Arc::new(config);
        clients.insert(expected.into(), Arc::clone(&config));
        config
    }

    /// Returns who a client is after the handshake, whose session may be an old one.
    pub fn check_client(
        &self,
        certificates: Option<&[CertificateDer<'static>]>,
    ) -> Result<(Identity, TrustedChain), PeerError> {
        self.check(certificates, KeyUsage::client_auth())
    }

    /// Checks a server after the handshake, whose session may be an old one.
    pub fn check_server(
        &self,
        certificates: Option<&[CertificateDer<'static>]>,
        expected: &[Identity],
    ) -> Result<TrustedChain, PeerError> {
        let (got, chain) = self.check(certificates, KeyUsage::server_auth())?;
        if expected.contains(&got) {
            return Ok(chain);
        }
        Err(PeerError::UnexpectedIdentity { expected: expected.into(), got })
    }

    fn check(
        &self,
        certificates: Option<&[CertificateDer<'static>]>,
        usage: KeyUsage,
    ) -> Result<(Identity, TrustedChain), PeerError> {
        let shown = certificates.unwrap_or_default();
        let expiry = peer::first_expiry(shown)?;
        if expiry.is_some_and(|not_after| not_after < self.clock.now()) {
            return Err(PeerError::Expired);
        }
        let identity = peer_identity(certificates)?;
        let chain = self.trust.chain(shown.to_vec(), usage, &self.clock);
        if chain.is_revoked() {
            return Err(PeerError::Revoked);
        }
        Ok((identity, chain))
    }
}

// === impl Trust ===

impl Trust {
    fn chain(
        &self,
        certificates: Vec<CertificateDer<'static>>,
        usage: KeyUsage,
        clock: &Clock,
    ) -> TrustedChain {
        let Self { roots, revocations } = self.clone();
        TrustedChain::new(certificates, roots, usage, clock.now(), revocations)
    }
}

/// Returns a configuration that trusts nobody until it is told whom to expect.
fn client_config(
    svid: &Svid,
    clock: &Clock,
    trust: &Trust,
) -> Result<ClientConfig, TlsConfigError> {
    let mut config =
        ClientConfig::builder_with_details(Arc::clone(&PROVIDER), Arc::new(clock.clone()))
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(server_verifier(trust, &[], clock).0)
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
    trust: &Trust,
) -> Result<ServerConfig, TlsConfigError> {
    let chain = WebPkiClientVerifier::builder_with_provider(
        Arc::clone(&trust.roots),
        Arc::clone(&PROVIDER),
    )
    .build()?;
    let verifier = ClientVerifier::new(chain, trust.clone(), svid.identity().trust_domain.clone());
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

/// Makes `config` expect `expected`, and gives it their sessions.
fn expect(config: &mut ClientConfig, trust: &Trust, expected: &[Identity], clock: &Clock) {
    let (verifier, sessions) = server_verifier(trust, expected, clock);
    config.dangerous().set_certificate_verifier(verifier);
    config.resumption = Resumption::store(sessions).tls12_resumption(Tls12Resumption::Disabled);
}

fn server_verifier(
    trust: &Trust,
    expected: &[Identity],
    clock: &Clock,
) -> (Arc<ServerVerifier>, Arc<Sessions>) {
    let algorithms = PROVIDER.signature_verification_algorithms;
    let sessions = Arc::new(Sessions::new(clock.clone()));
    let verifier = ServerVerifier::new(trust.clone(), algorithms, expected, sessions.clone());
    (Arc::new(verifier), sessions)
}
