//! What requests are.

use std::fmt;

use serde::Serialize;

use crate::rig::HTTP;

/// What requests are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    /// HTTP/1.1 on connections that are kept.
    Http1,
    /// HTTP/2.
    Http2,
    /// Unary calls of gRPC.
    Grpc,
}

// === impl Kind ===

impl Kind {
    pub(super) const ALL: [Self; 3] = [Self::Http1, Self::Http2, Self::Grpc];

    /// Port of the load generator's HTTP/2 server.
    pub(super) const HTTP2: u16 = HTTP + 1;

    /// Name of the service's port, which says what is spoken there.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Http1 => "http",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
        }
    }

    /// Port of the service.
    pub(super) fn port(self) -> u16 {
        match self {
            Self::Http1 => 80,
            Self::Http2 => 81,
            Self::Grpc => 82,
        }
    }

    /// Port of the server.
    pub(super) fn server_port(self) -> u16 {
        match self {
            Self::Http1 => HTTP,
            Self::Http2 | Self::Grpc => Self::HTTP2,
        }
    }

    /// What the load generator calls it.
    pub(super) fn argument(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http1 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
            Self::Grpc => "gRPC",
        })
    }
}
