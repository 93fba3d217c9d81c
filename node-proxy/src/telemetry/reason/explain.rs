//! The sentence of each reason: what happened, and what to look at next.

use std::fmt;

use fairlead_tunnel::tls::HandshakeFailure;

use super::{CloseReason, HBONE_PORT};

// === impl CloseReason ===

impl CloseReason {
    /// Returns what to do about a connection that ended so.
    pub fn remedy(&self) -> Option<&'static str> {
        let remedy = match self {
            Self::Completed
            | Self::ClientReset
            | Self::ServerReset
            | Self::Drained
            | Self::Idle
            | Self::PodReleased => return None,
            Self::DeniedByPolicy { .. } | Self::DeniedByPolicyChange { .. } => {
                "change that policy if this source may connect"
            }
            Self::WaypointRequired { .. } => {
                "connect to the service, not to its pod: the waypoint decides then"
            }
            Self::NotAllowed { .. } => "add this source to one if it may connect",
            Self::UnknownPolicy { .. } => "check that it exists and is valid",
            Self::WorkloadUnknown => "check that its address is in the proxy's workloads",
            Self::NoHealthyEndpoint => "check that its pods are ready and its port is right",
            Self::WaypointUnavailable => {
                "check that the waypoint's pods are ready; --waypoint-fallback lets connections \
                 pass without it"
            }
            Self::GatewayUnavailable => {
                "check that the gateway's workload or service is known, and that its pods are ready"
            }
            Self::NameNotResolved => {
                "check the name, and that the name servers (--name-servers) answer this pod"
            }
            Self::DestinationUnknown => {
                "make a ServiceEntry for it; ALLOW_ANY of the mesh configuration, or \
                 --outbound-policy allow-any where that says nothing, lets pods connect to any \
                 address"
            }
            Self::DestinationNotAllowed => "the peer's workload data may be out of date",
            Self::IllegalPort => "use a port of the application",
            Self::ConnectRefused => "check that the application listens on that port",
            Self::ConnectTimeout { port: HBONE_PORT } => {
                "check that no network policy or firewall blocks it and that the proxy of that \
                 node runs"
            }
            Self::ConnectTimeout { .. } => {
                "check that it is up and that no network policy or firewall blocks the port"
            }
            Self::ConnectFailed(_) => "check its address and the routes of this node",
            Self::NoCertificate => "check that the certificate authority answers this proxy",
            Self::TlsHandshake(failure) => handshake_remedy(*failure),
            Self::CertificateRevoked => handshake_remedy(HandshakeFailure::Revoked),
            Self::PeerIdentityMismatch => {
                "its workload data may be out of date, or another pod answers at its address"
            }
            Self::Http2 => "check that the peer speaks HBONE on that port",
            Self::RefusedByPeer { denial: Some(denial), .. } => return denial.remedy(),
            Self::RefusedByPeer { status, denial: None } => status_remedy(*status),
            Self::TunnelLost => "check the network and the proxy of the other node",
            Self::LimitReached { .. } => "find the client that opens too much, or raise the limit",
            Self::BadRequest => "check which client uses the HBONE port",
        };
        Some(remedy)
    }

    fn write_event(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let event = match self {
            Self::DeniedByPolicy { policy } => return write!(f, "denied by policy {policy}"),
            Self::WaypointRequired { policy } => {
                return write!(f, "denied because it went past the waypoint ({policy})");
            }
            Self::UnknownPolicy { policy } => {
                return write!(f, "denied because policy {policy} applies and is not loaded");
            }
            Self::NotAllowed { policy } => {
                return write!(f, "denied because no ALLOW policy matches, such as {policy}");
            }
            Self::DeniedByPolicyChange { policy } => {
                return write!(
                    f,
                    "closed after a change: policy {policy} does not let it pass now"
                );
            }
            Self::ConnectTimeout { port } => {
                return write!(f, "no answer from port {port} of the destination");
            }
            Self::ConnectFailed(kind) => {
                return write!(f, "connect to the destination failed ({kind})");
            }
            Self::TlsHandshake(failure) => {
                return write!(f, "TLS handshake failed, {}", handshake_event(*failure));
            }
            Self::RefusedByPeer { status, denial } => {
                write!(f, "the proxy of the destination answered CONNECT with {status}")?;
                let Some(denial) = denial else { return Ok(()) };
                f.write_str(", ")?;
                return denial.write_event(f);
            }
            Self::LimitReached { limit } => {
                return write!(f, "limit \"{limit}\" of this proxy reached");
            }
            Self::Completed => "completed",
            Self::ClientReset => "reset by the client",
            Self::ServerReset => "reset by the server",
            Self::WorkloadUnknown => "no configuration describes this pod",
            Self::NoHealthyEndpoint => "the service has no healthy endpoint",
            Self::WaypointUnavailable => "no instance of the destination's waypoint is there",
            Self::GatewayUnavailable => "no gateway to the network of the endpoints is there",
            Self::NameNotResolved => "no address was found for the host name of the destination",
            Self::DestinationUnknown => "the mesh does not know the destination",
            Self::DestinationNotAllowed => "a peer asked for an address that is not this pod's",
            Self::IllegalPort => "the connection was for a port of the mesh itself",
            Self::ConnectRefused => "the destination refused the connection",
            Self::NoCertificate => "the pod has no valid certificate",
            Self::CertificateRevoked => "closed because the peer's certificate is revoked",
            Self::PeerIdentityMismatch => {
                "the peer's certificate names another identity than the destination's"
            }
            Self::Http2 => "the HTTP/2 connection to the peer failed",
            Self::TunnelLost => "the tunnel broke under the connection",
            Self::Drained => "closed by the shutdown of this proxy after the drain period",
            Self::Idle => "closed because no byte had passed for as long as --idle-timeout allows",
            Self::PodReleased => "closed because the pod left the mesh",
            Self::BadRequest => "a peer sent something else than a valid CONNECT request",
        };
        f.write_str(event)
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_event(f)?;
        match self.remedy() {
            Some(remedy) => write!(f, ": {remedy}"),
            None => Ok(()),
        }
    }
}

/// What an HBONE server means by each status.
fn status_remedy(status: u16) -> &'static str {
    match status {
        400 => "it does not accept the requested address as one of the pod's",
        401 | 403 => "a policy there denies this source; its log names the policy",
        503 => "it does not know the pod, or the application there does not accept connections",
        _ => "see its log",
    }
}

fn handshake_remedy(failure: HandshakeFailure) -> &'static str {
    match failure {
        HandshakeFailure::Timeout | HandshakeFailure::Io | HandshakeFailure::RefusedByPeer => {
            "see the log of the peer"
        }
        HandshakeFailure::ProtocolVersion | HandshakeFailure::Alpn | HandshakeFailure::Other => {
            "check that the peer speaks HBONE on that port"
        }
        HandshakeFailure::NoPeerCert | HandshakeFailure::PeerIdentity => {
            "check where the peer gets its certificate from"
        }
        HandshakeFailure::Expired => "check the peer's renewal and the clocks of both nodes",
        HandshakeFailure::UntrustedPeer => {
            "check that both sides trust the same certificate authority"
        }
        HandshakeFailure::Revoked => "give the peer a new certificate if it is to be trusted",
    }
}

fn handshake_event(failure: HandshakeFailure) -> &'static str {
    match failure {
        HandshakeFailure::Timeout => "the peer did not finish in time",
        HandshakeFailure::Io => "the connection broke",
        HandshakeFailure::ProtocolVersion => "no TLS version or cipher suite in common",
        HandshakeFailure::Alpn => "the peer does not offer HTTP/2",
        HandshakeFailure::NoPeerCert => "the peer presented no certificate",
        HandshakeFailure::PeerIdentity => "the peer's certificate is not a workload's of this mesh",
        HandshakeFailure::Expired => "the peer's certificate is not valid at this time",
        HandshakeFailure::UntrustedPeer => "the peer's certificate comes from no trusted root",
        HandshakeFailure::Revoked => "the peer's certificate is revoked",
        HandshakeFailure::RefusedByPeer => "the peer rejected this side",
        HandshakeFailure::Other => "the peer does not speak TLS, or breaks its rules",
    }
}
