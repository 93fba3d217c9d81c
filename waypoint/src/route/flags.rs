//! Why a request was not answered by whom it was meant for: the one table that replies, access logs
//! and metrics share.

use std::fmt;

use http::StatusCode;

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $long:literal;)*) => {
        /// What went wrong with a request, or was done to it on purpose; Envoy's response flags.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Flag {
            $($(#[$doc])* $name,)*
        }

        impl Flag {
            /// All flags, in the order in which they are listed.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Returns the code that logs and metrics show.
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// Returns the name in full.
            pub const fn long_name(self) -> &'static str {
                match self { $(Self::$name => $long,)* }
            }
        }
    };
}

flags! {
    /// No endpoint is healthy.
    NoHealthyUpstream = "UH", "NoHealthyUpstream";
    /// No connection to the endpoint could be made.
    UpstreamConnectionFailure = "UF", "UpstreamConnectionFailure";
    /// A circuit breaker was open.
    UpstreamOverflow = "UO", "UpstreamOverflow";
    /// No route matched.
    NoRouteFound = "NR", "NoRouteFound";
    /// All retries failed.
    UpstreamRetryLimitExceeded = "URX", "UpstreamRetryLimitExceeded";
    /// The destination does not exist.
    NoClusterFound = "NC", "NoClusterFound";
    /// The connection or the request lasted too long.
    DurationTimeout = "DT", "DurationTimeout";
    /// The client went away.
    DownstreamConnectionTermination = "DC", "DownstreamConnectionTermination";
    /// The response did not come in time.
    UpstreamRequestTimeout = "UT", "UpstreamRequestTimeout";
    /// The stream was reset here.
    LocalReset = "LR", "LocalReset";
    /// The endpoint reset the stream.
    UpstreamRemoteReset = "UR", "UpstreamRemoteReset";
    /// The endpoint closed the connection.
    UpstreamConnectionTermination = "UC", "UpstreamConnectionTermination";
    /// A delay was injected.
    DelayInjected = "DI", "DelayInjected";
    /// An error was injected.
    FaultInjected = "FI", "FaultInjected";
    /// A rate limit of this proxy was reached.
    RateLimited = "RL", "RateLimited";
    /// An external authorizer refused.
    UnauthorizedExternalService = "UAEX", "UnauthorizedExternalService";
    /// The service of rate limits failed.
    RateLimitServiceError = "RLSE", "RateLimitServiceError";
    /// A header had no valid value.
    InvalidEnvoyHeaders = "IH", "InvalidEnvoyHeaders";
    /// Nothing moved for too long.
    StreamIdleTimeout = "SI", "StreamIdleTimeout";
    /// The client broke the protocol.
    DownstreamProtocolError = "DPE", "DownstreamProtocolError";
    /// The endpoint broke the protocol.
    UpstreamProtocolError = "UPE", "UpstreamProtocolError";
    /// The stream to the endpoint lasted too long.
    UpstreamMaxStreamDurationReached = "UMSDR", "UpstreamMaxStreamDurationReached";
    /// This proxy had too much to do.
    OverloadManagerTerminated = "OM", "OverloadManagerTerminated";
    /// The destination's name could not be resolved.
    DnsResolutionFailed = "DF", "DnsResolutionFailed";
    /// The client reset the stream.
    DownstreamRemoteReset = "DR", "DownstreamRemoteReset";
}

/// A set of flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(u32);

const _: () = assert!(Flag::ALL.len() <= u32::BITS as usize);

/// An answer that this proxy gives itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalReply {
    /// No route matched.
    NoRoute,
    /// The request's path has no normal spelling.
    InvalidPath,
    /// The route names a destination that does not exist.
    NoCluster,
    /// The route names no destination that could be meant, or none with a share.
    NoDestination(StatusCode),
    /// No endpoint is healthy.
    NoHealthyUpstream,
    /// A circuit breaker is open.
    Overflow,
    /// The response did not come in time.
    Timeout,
    /// A single try did not answer in time, and no other one was left.
    PerTryTimeout,
    /// The endpoint failed before it answered.
    UpstreamReset(ResetReason),
    /// A fault of the route.
    FaultAbort(StatusCode),
    /// A policy refused.
    AccessDenied,
    /// The body is larger than can be kept.
    PayloadTooLarge,
    /// The request's headers are more than are accepted.
    HeadersTooLarge,
    /// The request asks for a tunnel to anywhere.
    UpgradeRefused,
}

/// How an endpoint failed before it answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResetReason {
    /// No connection could be made.
    ConnectionFailure,
    /// No connection could be made in time.
    ConnectionTimeout,
    /// The connection was closed.
    ConnectionTermination,
    /// The endpoint reset the stream.
    RemoteReset,
    /// The endpoint reset the stream before it did anything with it.
    RemoteRefusedStream,
    /// The stream was reset here.
    LocalReset,
    /// The endpoint broke the protocol.
    ProtocolError,
}

// === impl Flags ===

impl Flags {
    /// Adds a flag.
    pub fn insert(&mut self, flag: Flag) {
        self.0 |= 1 << flag as u32;
    }

    /// Returns the set with a flag.
    #[must_use]
    pub fn with(mut self, flag: Flag) -> Self {
        self.insert(flag);
        self
    }

    /// Returns whether a flag is in the set.
    pub fn contains(self, flag: Flag) -> bool {
        self.0 & (1 << flag as u32) != 0
    }

    /// Returns whether no flag is.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns the flags of the set, in their order.
    pub fn iter(self) -> impl Iterator<Item = Flag> {
        Flag::ALL.iter().copied().filter(move |flag| self.contains(*flag))
    }
}

/// Codes with commas between them; `-` without any.
impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("-");
        }
        for (index, flag) in self.iter().enumerate() {
            f.write_str(if index > 0 { "," } else { "" })?;
            f.write_str(flag.code())?;
        }
        Ok(())
    }
}

// === impl LocalReply ===

impl LocalReply {
    /// Returns the status of the answer.
    pub fn status(self) -> StatusCode {
        match self {
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::InvalidPath => StatusCode::BAD_REQUEST,
            Self::NoCluster | Self::NoHealthyUpstream | Self::Overflow => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::NoDestination(status) | Self::FaultAbort(status) => status,
            Self::Timeout | Self::PerTryTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::UpstreamReset(ResetReason::ProtocolError) => StatusCode::BAD_GATEWAY,
            Self::UpstreamReset(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::AccessDenied | Self::UpgradeRefused => StatusCode::FORBIDDEN,
            Self::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        }
    }

    /// Returns the body of the answer.
    pub fn body(self) -> &'static str {
        match self {
            Self::NoRoute
            | Self::InvalidPath
            | Self::NoCluster
            | Self::NoDestination(_)
            | Self::HeadersTooLarge
            | Self::UpgradeRefused => "",
            Self::NoHealthyUpstream => "no healthy upstream",
            Self::Overflow => {
                "upstream connect error or disconnect/reset before headers. reset reason: overflow"
            }
            Self::Timeout | Self::PerTryTimeout => "upstream request timeout",
            Self::UpstreamReset(reason) => reason.body(),
            Self::FaultAbort(_) => "fault filter abort",
            Self::AccessDenied => "RBAC: access denied",
            Self::PayloadTooLarge => "Payload Too Large",
        }
    }

    /// Returns what the access log calls it.
    pub fn details(self) -> &'static str {
        match self {
            Self::NoRoute => "route_not_found",
            Self::InvalidPath => "path_normalization_failed",
            Self::NoCluster => "cluster_not_found",
            Self::NoDestination(_) => "direct_response",
            Self::NoHealthyUpstream => "no_healthy_upstream",
            Self::Overflow => "upstream_reset_before_response_started{overflow}",
            Self::Timeout => "response_timeout",
            Self::PerTryTimeout => "upstream_per_try_timeout",
            Self::UpstreamReset(reason) => reason.details(),
            Self::FaultAbort(_) => "fault_filter_abort",
            Self::AccessDenied => "rbac_access_denied_matched_policy[none]",
            Self::PayloadTooLarge => "request_payload_too_large",
            Self::HeadersTooLarge => "request_headers_too_large",
            Self::UpgradeRefused => "upgrade_failed",
        }
    }

    /// Returns the flag that tells of it, if one does.
    pub fn flag(self) -> Option<Flag> {
        match self {
            Self::NoRoute => Some(Flag::NoRouteFound),
            Self::NoCluster => Some(Flag::NoClusterFound),
            Self::NoHealthyUpstream => Some(Flag::NoHealthyUpstream),
            Self::Overflow => Some(Flag::UpstreamOverflow),
            Self::Timeout | Self::PerTryTimeout => Some(Flag::UpstreamRequestTimeout),
            Self::UpstreamReset(reason) => Some(reason.flag()),
            Self::FaultAbort(_) => Some(Flag::FaultInjected),
            Self::InvalidPath
            | Self::NoDestination(_)
            | Self::AccessDenied
            | Self::PayloadTooLarge
            | Self::HeadersTooLarge
            | Self::UpgradeRefused => None,
        }
    }

    /// Returns the status that a gRPC client is told instead: its calls get 200 and this one.
    pub fn grpc_status(self) -> u8 {
        grpc_status(self.status())
    }
}

/// Returns the gRPC status that stands for a status of HTTP, as gRPC's own mapping has it.
pub fn grpc_status(status: StatusCode) -> u8 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}

// === impl ResetReason ===

impl ResetReason {
    fn body(self) -> &'static str {
        match self {
            Self::ConnectionFailure => concat!(
                "upstream connect error or disconnect/reset before headers. ",
                "reset reason: remote connection failure"
            ),
            Self::ConnectionTimeout => concat!(
                "upstream connect error or disconnect/reset before headers. ",
                "reset reason: connection timeout"
            ),
            Self::ConnectionTermination => concat!(
                "upstream connect error or disconnect/reset before headers. ",
                "reset reason: connection termination"
            ),
            Self::RemoteReset => concat!(
                "upstream connect error or disconnect/reset before headers. ",
                "reset reason: remote reset"
            ),
            Self::RemoteRefusedStream => concat!(
                "upstream connect error or disconnect/reset before headers. ",
                "reset reason: remote refused stream reset"
            ),
            Self::LocalReset => concat!(
                "upstream connect error or disconnect/reset before headers. ",
                "reset reason: local reset"
            ),
            Self::ProtocolError => concat!(
                "upstream connect error or disconnect/reset before headers. ",
                "reset reason: protocol error"
            ),
        }
    }

    fn details(self) -> &'static str {
        match self {
            Self::ConnectionFailure => {
                "upstream_reset_before_response_started{remote_connection_failure}"
            }
            Self::ConnectionTimeout => "upstream_reset_before_response_started{connection_timeout}",
            Self::ConnectionTermination => {
                "upstream_reset_before_response_started{connection_termination}"
            }
            Self::RemoteReset => "upstream_reset_before_response_started{remote_reset}",
            Self::RemoteRefusedStream => {
                "upstream_reset_before_response_started{remote_refused_stream_reset}"
            }
            Self::LocalReset => "upstream_reset_before_response_started{local_reset}",
            Self::ProtocolError => "upstream_reset_before_response_started{protocol_error}",
        }
    }

    fn flag(self) -> Flag {
        match self {
            Self::ConnectionFailure | Self::ConnectionTimeout => Flag::UpstreamConnectionFailure,
            Self::ConnectionTermination => Flag::UpstreamConnectionTermination,
            Self::RemoteReset | Self::RemoteRefusedStream => Flag::UpstreamRemoteReset,
            Self::LocalReset => Flag::LocalReset,
            Self::ProtocolError => Flag::UpstreamProtocolError,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_flag_has_a_code_of_its_own() {
        let codes: HashSet<_> = Flag::ALL.iter().map(|flag| flag.code()).collect();
        assert_eq!(codes.len(), Flag::ALL.len());
    }

    #[test]
    fn a_set_of_flags_is_shown_by_codes() {
        let empty = Flags::default();
        let timeout = empty.with(Flag::UpstreamRequestTimeout);
        let both = timeout.with(Flag::DelayInjected).with(Flag::DelayInjected);
        for (flags, shown) in [(empty, "-"), (timeout, "UT"), (both, "UT,DI")] {
            assert_eq!(flags.to_string(), shown);
        }
        assert!(both.contains(Flag::DelayInjected) && !timeout.contains(Flag::DelayInjected));
    }

    #[test]
    fn replies_are_those_that_clients_of_envoy_know() {
        let reset = LocalReply::UpstreamReset;
        let teapot = StatusCode::IM_A_TEAPOT;
        let table = [
            (LocalReply::NoRoute, 404, "NR", "route_not_found", "", 12),
            (LocalReply::InvalidPath, 400, "-", "path_normalization_failed", "", 13),
            (LocalReply::NoCluster, 503, "NC", "cluster_not_found", "", 14),
            (LocalReply::NoHealthyUpstream, 503, "UH", "no_healthy_upstream", "no healthy", 14),
            (LocalReply::Timeout, 504, "UT", "response_timeout", "upstream request timeout", 14),
            (LocalReply::FaultAbort(teapot), 418, "FI", "fault_filter_abort", "fault filter", 2),
            (LocalReply::AccessDenied, 403, "-", "rbac_access_denied", "RBAC: access denied", 7),
            (LocalReply::UpgradeRefused, 403, "-", "upgrade_failed", "", 7),
            (
                reset(ResetReason::ConnectionFailure),
                503,
                "UF",
                "upstream_reset",
                "upstream conn",
                14,
            ),
            (
                reset(ResetReason::ConnectionTermination),
                503,
                "UC",
                "upstream_reset",
                "upstream",
                14,
            ),
            (reset(ResetReason::RemoteReset), 503, "UR", "upstream_reset", "upstream connect", 14),
            (reset(ResetReason::ProtocolError), 502, "UPE", "upstream_reset", "upstream", 14),
            (LocalReply::Overflow, 503, "UO", "upstream_reset", "upstream connect error", 14),
        ];
        for (reply, status, flag, details, body, grpc) in table {
            assert_eq!(reply.status().as_u16(), status, "{reply:?}");
            assert_eq!(reply.flag().map_or("-", Flag::code), flag, "{reply:?}");
            assert!(reply.details().starts_with(details), "{reply:?}");
            assert!(reply.body().starts_with(body), "{reply:?}");
            assert_eq!(reply.grpc_status(), grpc, "{reply:?}");
        }
    }
}
