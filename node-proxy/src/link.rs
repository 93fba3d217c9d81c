//! What the two halves of the node proxy say to each other.
//!
//! [`capture`](crate::capture) owns what needs privilege and hands out sockets;
//! [`proxy`](crate::proxy) has all the parsing. Between them is a unix socket that carries
//! [`message`]s with descriptors. The same protocol joins them within one process. Captures of two
//! releases hand everything over in the same way ([`handover`]). Both protocols are versioned.

pub mod channel;
pub mod handover;
pub mod listeners;
pub mod message;
pub mod resolver;

/// Version of both protocols that this release speaks.
///
/// Fields and messages may be added without counting it up: unknown ones are ignored. What changes
/// the meaning of a message counts it up, and keeps reading [`OLDEST_VERSION`].
pub const VERSION: u16 = 1;

/// Oldest version that this release understands: that of the previous release.
pub const OLDEST_VERSION: u16 = 1;

/// Returns whether this release understands a peer of `version`. A newer peer is trusted to
/// understand us.
pub fn understands(version: u16) -> bool {
    version >= OLDEST_VERSION
}
