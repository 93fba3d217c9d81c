use std::{collections::HashSet, io::ErrorKind, sync::Arc};

use fairlead_tunnel::tls::HandshakeFailure;

use super::{CloseReason as R, ResponseFlags as F};
use crate::telemetry::fixtures::policy_key;

/// Every variant, with its name, its flags and a part of its sentence.
fn table() -> Vec<(R, &'static str, F, &'static str)> {
    let policy = policy_key();
    let (changed, not_allowed) = (Arc::clone(&policy), Arc::clone(&policy));
    let around = R::WaypointRequired { policy: Arc::clone(&policy) };
    let denied = R::DeniedByPolicy { policy: Arc::clone(&policy) };
    vec![
        (R::Completed, "completed", F::None, "completed"),
        (R::ClientReset, "client_reset", F::None, "client"),
        (R::ServerReset, "server_reset", F::None, "server"),
        (denied.clone(), "denied_by_policy", F::Deny, "shop/deny-all"),
        (around, "waypoint_required", F::Deny, "past the waypoint (shop/deny-all): connect to the"),
        (R::NotAllowed { policy: not_allowed }, "not_allowed", F::Deny, "no ALLOW policy"),
        (R::UnknownPolicy { policy }, "unknown_policy", F::Deny, "shop/deny-all"),
        (
            R::DeniedByPolicyChange { policy: changed },
            "denied_by_policy_change",
            F::Deny,
            "shop/deny-all",
        ),
        (R::WorkloadUnknown, "workload_unknown", F::Connect, "workloads"),
        (R::NoHealthyEndpoint, "no_healthy_endpoint", F::Connect, "ready"),
        (R::WaypointUnavailable, "waypoint_unavailable", F::Connect, "--waypoint-fallback"),
        (R::GatewayUnavailable, "gateway_unavailable", F::Connect, "no gateway"),
        (R::NameNotResolved, "name_not_resolved", F::Connect, "--name-servers"),
        (R::DestinationUnknown, "destination_unknown", F::Deny, "ServiceEntry"),
        (R::DestinationNotAllowed, "destination_not_allowed", F::Connect, "not this pod's"),
        (R::IllegalPort, "illegal_port", F::Connect, "port"),
        (R::ConnectRefused, "connect_refused", F::Connect, "listens"),
        (R::ConnectTimeout { port: 15008 }, "connect_timeout", F::NetworkPolicy, "network policy"),
        (R::ConnectTimeout { port: 80 }, "connect_timeout", F::Connect, "port 80"),
        (
            R::ConnectFailed(ErrorKind::NetworkUnreachable),
            "connect_failed",
            F::Connect,
            "network unreachable",
        ),
        (R::NoCertificate, "no_certificate", F::IdentityError, "certificate authority"),
        (R::TlsHandshake(HandshakeFailure::Timeout), "tls_timeout", F::TlsFailure, "in time"),
        (R::TlsHandshake(HandshakeFailure::Revoked), "revoked_peer", F::CertRevoked, "revoked"),
        (R::CertificateRevoked, "certificate_revoked", F::CertRevoked, "is revoked"),
        (R::PeerIdentityMismatch, "peer_identity_mismatch", F::TlsFailure, "another identity"),
        (R::Http2, "http2", F::H2HandshakeFailure, "HTTP/2"),
        (
            R::RefusedByPeer { status: 401, denial: None },
            "refused_by_peer",
            F::Connect,
            "401: a policy",
        ),
        (
            R::RefusedByPeer { status: 401, denial: Some(Arc::new(denied)) },
            "refused_by_peer",
            F::Connect,
            "401, denied by policy shop/deny-all: change that policy",
        ),
        (R::TunnelLost, "tunnel_lost", F::Connect, "tunnel"),
        (R::Drained, "drained", F::None, "drain period"),
        (R::Idle, "idle_timeout", F::None, "--idle-timeout"),
        (R::PodReleased, "pod_released", F::None, "left the mesh"),
        (R::LimitReached { limit: "streams" }, "limit_reached", F::Connect, "\"streams\""),
        (R::BadRequest, "bad_request", F::Connect, "CONNECT"),
    ]
}

#[test]
fn every_reason_has_its_name_flags_and_sentence() {
    for (reason, name, flags, part) in table() {
        assert_eq!(reason.as_str(), name);
        assert_eq!(reason.response_flags(), flags, "{name}");
        assert_eq!(reason.is_failure(), flags != F::None, "{name}");
        let sentence = reason.to_string();
        assert!(sentence.contains(part), "{name}: {sentence}");
        assert!(!sentence.contains("  ") && !sentence.contains('\n'), "{name}: {sentence}");
    }
    let names: HashSet<_> = table().iter().map(|(_, name, ..)| *name).collect();
    assert_eq!(names.len(), 32);
}

#[test]
fn a_reason_names_its_policy_when_one_decided() {
    for (reason, ..) in table() {
        let named = reason.to_string().contains("shop/deny-all");
        assert_eq!(reason.policy().is_some(), named, "{reason:?}");
    }
}

#[test]
fn response_flags_are_the_documented_ones_in_the_order_of_their_index() {
    let names = F::ALL.map(F::as_str);
    assert_eq!(
        names,
        [
            "-",
            "DENY",
            "CONNECT",
            "TLS_FAILURE",
            "H2_HANDSHAKE_FAILURE",
            "NETWORK_POLICY",
            "IDENTITY_ERROR",
            "CERT_REVOKED"
        ]
    );
    for (index, flags) in F::ALL.into_iter().enumerate() {
        assert_eq!(flags as usize, index);
    }
}
