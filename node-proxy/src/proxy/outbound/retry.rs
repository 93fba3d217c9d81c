//! Whether another endpoint of a service is tried.

use crate::telemetry::reason::CloseReason;

/// Whether a failure says something about the endpoint and nothing about the client.
pub(super) fn is_worth_another_endpoint(reason: &CloseReason) -> bool {
    match reason {
        CloseReason::ConnectRefused
        | CloseReason::ConnectTimeout { .. }
        | CloseReason::ConnectFailed(_)
        | CloseReason::NameNotResolved
        | CloseReason::TlsHandshake(_)
        | CloseReason::CertificateRevoked
        | CloseReason::PeerIdentityMismatch
        | CloseReason::Http2
        | CloseReason::TunnelLost => true,
        CloseReason::RefusedByPeer { status, denial: _ } => *status == 503,
        CloseReason::Completed
        | CloseReason::ClientReset
        | CloseReason::ServerReset
        | CloseReason::DeniedByPolicy { .. }
        | CloseReason::WaypointRequired { .. }
        | CloseReason::NotAllowed { .. }
        | CloseReason::UnknownPolicy { .. }
        | CloseReason::DeniedByPolicyChange { .. }
        | CloseReason::WorkloadUnknown
        | CloseReason::NoHealthyEndpoint
        | CloseReason::WaypointUnavailable
        | CloseReason::GatewayUnavailable
        | CloseReason::DestinationUnknown
        | CloseReason::DestinationNotAllowed
        | CloseReason::IllegalPort
        | CloseReason::NoCertificate
        | CloseReason::Drained
        | CloseReason::Idle
        | CloseReason::PodReleased
        | CloseReason::LimitReached { .. }
        | CloseReason::BadRequest => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fairlead_tunnel::tls::HandshakeFailure;

    #[test]
    fn a_refusal_counts_for_all_endpoints_and_a_broken_one_for_itself() {
        for (reason, expected) in [
            (CloseReason::ConnectRefused, true),
            (CloseReason::ConnectTimeout { port: 15008 }, true),
            (CloseReason::TlsHandshake(HandshakeFailure::Expired), true),
            (CloseReason::TunnelLost, true),
            (CloseReason::RefusedByPeer { status: 503, denial: None }, true),
            (CloseReason::RefusedByPeer { status: 401, denial: None }, false),
            (CloseReason::NoCertificate, false),
            (CloseReason::ClientReset, false),
            (CloseReason::LimitReached { limit: "tunnel_streams" }, false),
        ] {
            assert_eq!(is_worth_another_endpoint(&reason), expected, "{reason}");
        }
    }
}
