//! Why a connection was closed: the one vocabulary of the access log, the metrics and the admin
//! output.

mod explain;

use std::{io, sync::Arc};

use fairlead_ebpf::HBONE_PORT;
use fairlead_tunnel::tls::HandshakeFailure;
use mesh_api::workload::PolicyKey;

/// Why a connection was closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// When both directions ended with FIN.
    Completed,
    /// When the client reset the connection; passed on to the server.
    ClientReset,
    /// When the server reset the connection; passed on to the client.
    ServerReset,
    /// When a DENY policy matched the connection before it was opened.
    DeniedByPolicy {
        /// The policy that matched.
        policy: Arc<PolicyKey>,
    },
    /// When the destination takes connections from its waypoint only, and this one went past it.
    WaypointRequired {
        /// The policy that says so.
        policy: Arc<PolicyKey>,
    },
    /// When ALLOW policies select the destination and none of them matched.
    NotAllowed {
        /// The first of those policies.
        policy: Arc<PolicyKey>,
    },
    /// When the destination names a policy that this proxy does not hold.
    UnknownPolicy {
        /// The policy that is missing.
        policy: Arc<PolicyKey>,
    },
    /// When an open connection was denied after a change of policy.
    DeniedByPolicyChange {
        /// The policy that denies, is missing, or is an ALLOW policy that does not match.
        policy: Arc<PolicyKey>,
    },
    /// When no configuration describes the pod that opened or received the connection.
    WorkloadUnknown,
    /// When the service has no endpoint that may take the connection.
    NoHealthyEndpoint,
    /// When the destination is bound to a waypoint of which no instance is there.
    WaypointUnavailable,
    /// When the service has endpoints on other networks only, and no gateway to those is there.
    GatewayUnavailable,
    /// When the destination has a host name in place of addresses, for which none was found.
    NameNotResolved,
    /// When the mesh does not know the destination and this node lets nothing else pass.
    DestinationUnknown,
    /// When a peer asked by CONNECT for an address that is not the pod's.
    DestinationNotAllowed,
    /// When the connection was for one of the proxy's own ports.
    IllegalPort,
    /// When the destination answered the connect with a reset.
    ConnectRefused,
    /// When the destination did not answer the connect in time.
    ConnectTimeout {
        /// Port that did not answer.
        port: u16,
    },
    /// When the connect failed in another way.
    ConnectFailed(io::ErrorKind),
    /// When the pod has no certificate yet, or an expired one.
    NoCertificate,
    /// When the TLS handshake failed.
    TlsHandshake(HandshakeFailure),
    /// When a certificate of the peer of an open connection was revoked.
    CertificateRevoked,
    /// When the peer's certificate is valid and names another identity than expected.
    PeerIdentityMismatch,
    /// When the peer broke HTTP/2, or refused the settings or the stream.
    Http2,
    /// When the peer answered CONNECT with another status than 200.
    RefusedByPeer {
        /// HTTP status of the answer.
        status: u16,
        /// Why, as far as this proxy knows the policies of the destination.
        denial: Option<Arc<CloseReason>>,
    },
    /// When the tunnel broke under an open connection.
    TunnelLost,
    /// When the proxy shut down and the connection outlived the drain period.
    Drained,
    /// When no byte had passed for as long as this proxy's operator allows.
    Idle,
    /// When the pod was released from the mesh, or disappeared.
    PodReleased,
    /// When a limit of this proxy was reached.
    LimitReached {
        /// Name of the limit, as in `fairlead_limit_reached_total`.
        limit: &'static str,
    },
    /// When a peer sent a request that is not a valid CONNECT.
    BadRequest,
}

/// Value of the `response_flags` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResponseFlags {
    /// `-`: no failure.
    None,
    /// `DENY`: policy, at the start or later.
    Deny,
    /// `CONNECT`: the connection could not be made or kept.
    Connect,
    /// `TLS_FAILURE`: the handshake.
    TlsFailure,
    /// `H2_HANDSHAKE_FAILURE`: the HTTP/2 layer.
    H2HandshakeFailure,
    /// `NETWORK_POLICY`: no answer from the HBONE port.
    NetworkPolicy,
    /// `IDENTITY_ERROR`: no certificate.
    IdentityError,
    /// `CERT_REVOKED`: the peer's certificate is revoked.
    CertRevoked,
}

// === impl CloseReason ===

impl CloseReason {
    /// Returns the stable name of the reason, as in the access log.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::ClientReset => "client_reset",
            Self::ServerReset => "server_reset",
            Self::DeniedByPolicy { .. } => "denied_by_policy",
            Self::WaypointRequired { .. } => "waypoint_required",
            Self::NotAllowed { .. } => "not_allowed",
            Self::UnknownPolicy { .. } => "unknown_policy",
            Self::DeniedByPolicyChange { .. } => "denied_by_policy_change",
            Self::WorkloadUnknown => "workload_unknown",
            Self::NoHealthyEndpoint => "no_healthy_endpoint",
            Self::WaypointUnavailable => "waypoint_unavailable",
            Self::GatewayUnavailable => "gateway_unavailable",
            Self::NameNotResolved => "name_not_resolved",
            Self::DestinationUnknown => "destination_unknown",
            Self::DestinationNotAllowed => "destination_not_allowed",
            Self::IllegalPort => "illegal_port",
            Self::ConnectRefused => "connect_refused",
            Self::ConnectTimeout { .. } => "connect_timeout",
            Self::ConnectFailed(_) => "connect_failed",
            Self::NoCertificate => "no_certificate",
            Self::TlsHandshake(failure) => failure.as_str(),
            Self::CertificateRevoked => "certificate_revoked",
            Self::PeerIdentityMismatch => "peer_identity_mismatch",
            Self::Http2 => "http2",
            Self::RefusedByPeer { .. } => "refused_by_peer",
            Self::TunnelLost => "tunnel_lost",
            Self::Drained => "drained",
            Self::Idle => "idle_timeout",
            Self::PodReleased => "pod_released",
            Self::LimitReached { .. } => "limit_reached",
            Self::BadRequest => "bad_request",
        }
    }

    /// Returns the value of the `response_flags` label.
    pub fn response_flags(&self) -> ResponseFlags {
        match self {
            Self::Completed
            | Self::ClientReset
            | Self::ServerReset
            | Self::Drained
            | Self::Idle
            | Self::PodReleased => ResponseFlags::None,
            Self::DeniedByPolicy { .. }
            | Self::WaypointRequired { .. }
            | Self::NotAllowed { .. }
            | Self::UnknownPolicy { .. }
            | Self::DeniedByPolicyChange { .. }
            | Self::DestinationUnknown => ResponseFlags::Deny,
            Self::ConnectTimeout { port: HBONE_PORT } => ResponseFlags::NetworkPolicy,
            Self::WorkloadUnknown
            | Self::NoHealthyEndpoint
            | Self::WaypointUnavailable
            | Self::GatewayUnavailable
            | Self::NameNotResolved
            | Self::DestinationNotAllowed
            | Self::IllegalPort
            | Self::ConnectRefused
            | Self::ConnectTimeout { .. }
            | Self::ConnectFailed(_)
            | Self::RefusedByPeer { .. }
            | Self::TunnelLost
            | Self::LimitReached { .. }
            | Self::BadRequest => ResponseFlags::Connect,
            Self::NoCertificate => ResponseFlags::IdentityError,
            Self::TlsHandshake(HandshakeFailure::Revoked) | Self::CertificateRevoked => {
                ResponseFlags::CertRevoked
            }
            Self::TlsHandshake(_) | Self::PeerIdentityMismatch => ResponseFlags::TlsFailure,
            Self::Http2 => ResponseFlags::H2HandshakeFailure,
        }
    }

    /// Returns the policy that decided, if one did.
    pub fn policy(&self) -> Option<&PolicyKey> {
        match self {
            Self::DeniedByPolicy { policy }
            | Self::WaypointRequired { policy }
            | Self::NotAllowed { policy }
            | Self::UnknownPolicy { policy }
            | Self::DeniedByPolicyChange { policy } => Some(policy),
            Self::RefusedByPeer { denial, .. } => denial.as_ref()?.policy(),
            Self::Completed
            | Self::ClientReset
            | Self::ServerReset
            | Self::WorkloadUnknown
            | Self::NoHealthyEndpoint
            | Self::WaypointUnavailable
            | Self::GatewayUnavailable
            | Self::NameNotResolved
            | Self::DestinationUnknown
            | Self::DestinationNotAllowed
            | Self::IllegalPort
            | Self::ConnectRefused
            | Self::ConnectTimeout { .. }
            | Self::ConnectFailed(_)
            | Self::NoCertificate
            | Self::TlsHandshake(_)
            | Self::CertificateRevoked
            | Self::PeerIdentityMismatch
            | Self::Http2
            | Self::TunnelLost
            | Self::Drained
            | Self::Idle
            | Self::PodReleased
            | Self::LimitReached { .. }
            | Self::BadRequest => None,
        }
    }

    /// Returns the reason of a connection whose tunnel was `cut` under it since its peer is not
    /// trusted any more, or was not.
    #[must_use]
    pub fn in_tunnel(self, cut: bool) -> Self {
        if cut && self != Self::Completed { Self::CertificateRevoked } else { self }
    }

    /// Returns whether the mesh refused, could not make or lost the connection.
    ///
    /// A reset by either application is not a failure: the mesh passed it on.
    pub fn is_failure(&self) -> bool {
        self.response_flags() != ResponseFlags::None
    }
}

// === impl ResponseFlags ===

impl ResponseFlags {
    /// Every value, in the order of declaration.
    pub const ALL: [Self; 8] = [
        Self::None,
        Self::Deny,
        Self::Connect,
        Self::TlsFailure,
        Self::H2HandshakeFailure,
        Self::NetworkPolicy,
        Self::IdentityError,
        Self::CertRevoked,
    ];

    /// Returns the label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "-",
            Self::Deny => "DENY",
            Self::Connect => "CONNECT",
            Self::TlsFailure => "TLS_FAILURE",
            Self::H2HandshakeFailure => "H2_HANDSHAKE_FAILURE",
            Self::NetworkPolicy => "NETWORK_POLICY",
            Self::IdentityError => "IDENTITY_ERROR",
            Self::CertRevoked => "CERT_REVOKED",
        }
    }
}

#[cfg(test)]
mod tests;
