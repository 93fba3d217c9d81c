//! Why a handshake failed, in the few words that logs and metrics use.

use std::{fmt, io};

use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};

use super::peer::PeerError;

/// Reason of a failed TLS handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HandshakeFailure {
    /// The peer showed no certificate.
    NoPeerCert,
    /// The peer's certificate does not chain to our roots, or is unusable in another way.
    UntrustedPeer,
    /// The peer's certificate has expired, or is not valid yet.
    Expired,
    /// The peer's certificate is on a revocation list.
    Revoked,
    /// The peer's certificate is good, but for no identity that may be on this connection.
    PeerIdentity,
    /// The peer speaks no TLS version or cipher that we do.
    ProtocolVersion,
    /// The peer does not offer HTTP/2.
    Alpn,
    /// The peer refused us with an alert.
    RefusedByPeer,
    /// The peer took too long.
    Timeout,
    /// The connection broke.
    Io,
    /// The peer does not speak TLS, or breaks its rules.
    Other,
}

// === impl HandshakeFailure ===

impl HandshakeFailure {
    /// Returns the reason as it appears in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoPeerCert => "no_peer_cert",
            Self::UntrustedPeer => "untrusted_peer",
            Self::Expired => "expired_peer",
            Self::Revoked => "revoked_peer",
            Self::PeerIdentity => "peer_identity",
            Self::ProtocolVersion => "protocol_version",
            Self::Alpn => "alpn",
            Self::RefusedByPeer => "tls_refused_by_peer",
            Self::Timeout => "tls_timeout",
            Self::Io => "tls_io",
            Self::Other => "tls_other",
        }
    }
}

impl fmt::Display for HandshakeFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<&Error> for HandshakeFailure {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the library may add errors at any time")]
    fn from(error: &Error) -> Self {
        match error {
            Error::NoCertificatesPresented => Self::NoPeerCert,
            Error::InvalidCertificate(error) => certificate(error),
            Error::PeerIncompatible(error) => incompatible(error),
            Error::NoApplicationProtocol => Self::Alpn,
            Error::AlertReceived(alert) => received(*alert),
            _ => Self::Other,
        }
    }
}

impl From<&PeerError> for HandshakeFailure {
    fn from(error: &PeerError) -> Self {
        match error {
            PeerError::NoPeerCertificate => Self::NoPeerCert,
            PeerError::LongChain(_) => Self::UntrustedPeer,
            PeerError::Expired => Self::Expired,
            PeerError::Revoked => Self::Revoked,
            PeerError::Leaf(_)
            | PeerError::TrustDomain { .. }
            | PeerError::UnexpectedIdentity { .. } => Self::PeerIdentity,
        }
    }
}

impl From<&io::Error> for HandshakeFailure {
    fn from(error: &io::Error) -> Self {
        match error.get_ref().and_then(|source| source.downcast_ref::<Error>()) {
            Some(error) => error.into(),
            None if error.kind() == io::ErrorKind::TimedOut => Self::Timeout,
            None => Self::Io,
        }
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the library may add errors at any time")]
fn certificate(error: &CertificateError) -> HandshakeFailure {
    match error {
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => HandshakeFailure::Expired,
        CertificateError::Revoked => HandshakeFailure::Revoked,
        CertificateError::Other(other) => {
            other.0.downcast_ref::<PeerError>().map_or(HandshakeFailure::UntrustedPeer, Into::into)
        }
        _ => HandshakeFailure::UntrustedPeer,
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the library may add errors at any time")]
fn incompatible(error: &PeerIncompatible) -> HandshakeFailure {
    match error {
        PeerIncompatible::NoCertificateRequestSignatureSchemesInCommon
        | PeerIncompatible::NoSignatureSchemesInCommon => HandshakeFailure::UntrustedPeer,
        _ => HandshakeFailure::ProtocolVersion,
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "alerts are an open registry")]
fn received(alert: AlertDescription) -> HandshakeFailure {
    match alert {
        AlertDescription::ProtocolVersion => HandshakeFailure::ProtocolVersion,
        AlertDescription::NoApplicationProtocol => HandshakeFailure::Alpn,
        _ => HandshakeFailure::RefusedByPeer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_connections_and_time_outs_are_told_apart() {
        let failure = |kind: io::ErrorKind| HandshakeFailure::from(&io::Error::from(kind));
        assert_eq!(failure(io::ErrorKind::TimedOut), HandshakeFailure::Timeout);
        assert_eq!(failure(io::ErrorKind::ConnectionReset), HandshakeFailure::Io);
        assert_eq!(failure(io::ErrorKind::UnexpectedEof), HandshakeFailure::Io);
    }

    #[test]
    fn the_error_inside_an_io_error_counts() {
        let error = io::Error::new(io::ErrorKind::InvalidData, Error::NoApplicationProtocol);
        assert_eq!(HandshakeFailure::from(&error), HandshakeFailure::Alpn);
    }

    #[test]
    fn alerts_of_the_peer_keep_their_meaning() {
        for (alert, expected) in [
            (AlertDescription::ProtocolVersion, HandshakeFailure::ProtocolVersion),
            (AlertDescription::NoApplicationProtocol, HandshakeFailure::Alpn),
            (AlertDescription::CertificateRequired, HandshakeFailure::RefusedByPeer),
            (AlertDescription::AccessDenied, HandshakeFailure::RefusedByPeer),
        ] {
            assert_eq!(HandshakeFailure::from(&Error::AlertReceived(alert)), expected);
        }
    }
}
