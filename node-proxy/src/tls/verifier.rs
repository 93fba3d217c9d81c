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

use super::{
    peer::{self, PeerError},
    sessions::Sessions,
};

/// Most intermediates accepted from a peer: plugged-in CAs use one to three, and building paths
/// through many costs processor time that the peer does not pay for.
pub(super) const MAX_INTERMEDIATES: usize = 8;

/// Verifies clients: any workload of the own trust domain may knock, policy decides later.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    trust_domain: TrustDomain,
}

/// Verifies servers: only the identities that the connection is meant for may answer.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    roots: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
    expected: Box<[Identity]>,
    sessions: Arc<Sessions>,
}

// === impl ClientVerifier ===

impl ClientVerifier {
    /// Returns a verifier that adds the leaf checks to `chain`.
    pub(super) fn new(chain: Arc<dyn ClientCertVerifier>, trust_domain: TrustDomain) -> Self {
        Self { chain, trust_domain }
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
    /// Returns a verifier that accepts `expected` with a chain to `roots`, and tells `sessions` for
    /// how long.
    pub(super) fn new(
        roots: Arc<RootCertStore>,
        algorithms: WebPkiSupportedAlgorithms,
        expected: &[Identity],
        sessions: Arc<Sessions>,
    ) -> Self {
        Self { roots, algorithms, expected: expected.into(), sessions }
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
            &self.roots,
            intermediates,
            now,
            self.algorithms.all,
        )?;
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
