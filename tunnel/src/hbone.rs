//! HBONE: TCP streams as HTTP/2 CONNECT streams over mutual TLS (the wire format of Istio ambient).
//!
//! Client and server know nothing of pods or policy: they carry streams between sockets they are
//! given.

pub mod client;
pub mod duplex;
mod frames;
pub mod headers;
pub mod keepalive;
mod metered;
pub mod nested;
pub mod pool;
pub mod server;
pub mod transport;

use h2::Reason;

pub use self::frames::{Alarm, Excess, Guarded};

/// Why a tunnel could not be made or ended early.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// The peer did not answer in time: a handshake, or a PING.
    #[error("the peer does not answer")]
    Timeout,
    /// The peer sent too much of what costs this end more.
    #[error("{0}")]
    Excess(#[from] Excess),
    /// The peer broke HTTP/2, or the connection broke.
    #[error("{0}")]
    Http2(#[from] h2::Error),
    /// The socket failed.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

// === impl TunnelError ===

impl TunnelError {
    /// Returns whether this end has had enough of what the peer sent.
    pub fn is_excess(&self) -> bool {
        match self {
            Self::Excess(_) => true,
            Self::Http2(error) => {
                error.is_library() && error.reason() == Some(Reason::ENHANCE_YOUR_CALM)
            }
            Self::Timeout | Self::Io(_) => false,
        }
    }
}
