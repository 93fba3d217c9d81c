//! Certificate verifiers for both ends of a handshake: the chain first, then the leaf.
//!
//! The order keeps bytes that nobody vouches for away from the leaf parser.

use std::{iter, sync::Arc};

use mesh_api::identity::{Identity, TrustDomain};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    PeerIncompatible, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        ParsedCertificate,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};

use webpki::KeyUsage;

use super::{
    peer::{self, PeerError},
    revocation::Revocations,
    sessions::Sessions,
};
use crate::limits::MAX_INTERMEDIATES;

/// Which certificates are good.
#[derive(Clone, Debug)]
pub(super) struct Trust {
    /// Those that chain to these,
    pub(super) roots: Arc<RootCertStore>,
    /// and that these do not name.
    pub(super) revocations: Revocations,
}

/// Verifies clients: any workload of the own trust domain may knock, policy decides later.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    trust: Trust,
    trust_domain: TrustDomain,
}

/// Verifies servers: only the identities that the connection is meant for may answer.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    trust: Trust,
    algorithms: WebPkiSupportedAlgorithms,
    expected: Box<[Identity]>,
    sessions: Arc<Sessions>,
}

// === impl Trust ===

impl Trust {
    /// Refuses a chain to the roots of which a certificate is revoked.
    fn check(
        &self,
        chain: (&CertificateDer<'_>, &[CertificateDer<'_>]),
        usage: KeyUsage,
        now: UnixTime,
    ) -> Result<(), Error> {
        if self.revocations.revoke(chain, &self.roots, usage, now) {
            return Err(CertificateError::Revoked.into());
        }
        Ok(())
    }
}

// === impl ClientVerifier ===

impl ClientVerifier {
    /// Returns a verifier that adds the leaf checks to `chain`.
    pub(super) fn new(
        chain: Arc<dyn ClientCertVerifier>,
        trust: Trust,
        trust_domain: TrustDomain,
    ) -> Self {
        Self { chain, trust, trust_domain }
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        true
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // A client has one certificate per connection and sends it in any case.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        check_length(intermediates)?;
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        self.trust.check((end_entity, intermediates), KeyUsage::client_auth(), now)?;
        peer::check_member(end_entity, &self.trust_domain).map_err(refuse)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOfferedOrEnabled.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

// === impl ServerVerifier ===

impl ServerVerifier {
    /// Returns a verifier that accepts `expected` with certificates that `trust` finds good, and
    /// tells `sessions` for how long.
    pub(super) fn new(
        trust: Trust,
        algorithms: WebPkiSupportedAlgorithms,
        expected: &[Identity],
        sessions: Arc<Sessions>,
    ) -> Self {
        Self { trust, algorithms, expected: expected.into(), sessions }
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        check_length(intermediates)?;
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(end_entity)?,
            &self.trust.roots,
            intermediates,
            now,
            self.algorithms.all,
        )?;
        self.trust.check((end_entity, intermediates), KeyUsage::server_auth(), now)?;
        peer::check_expected(end_entity, &self.expected).map_err(refuse)?;
        let chain = iter::once(end_entity).chain(intermediates);
        if let Some(not_after) = peer::first_expiry(chain).map_err(refuse)? {
            self.sessions.verified(server_name, not_after);
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOfferedOrEnabled.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn check_length(intermediates: &[CertificateDer<'_>]) -> Result<(), Error> {
    if intermediates.len() > MAX_INTERMEDIATES {
        return Err(refuse(PeerError::LongChain(intermediates.len() + 1)));
    }
    Ok(())
}

fn refuse(error: PeerError) -> Error {
    CertificateError::Other(OtherError(Arc::new(error))).into()
}
