//! Bounds of connections.

use std::time::Duration;

/// Connections unless configured: one for discovery and one for certificates of each of 5,000 nodes.
pub const DEFAULT_MAX_CONNECTIONS: usize = 10_000;

/// Time in which clients are sent away when the server stops, unless configured; within the 30 s
/// that Kubernetes grants.
pub const DEFAULT_DRAIN_TIME: Duration = Duration::from_secs(20);

/// Age of connections unless configured (Istio's default).
pub const DEFAULT_MAX_CONNECTION_AGE: Duration = Duration::from_mins(30);

/// Largest certificate request, in bytes: the request itself is bounded to 16 KiB.
pub const MAX_CERTIFICATE_REQUEST_BYTES: usize = 64 * 1024;

/// Time for the TLS handshake.
pub(super) const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// Time for a new connection to show a valid token: without one it only takes a place.
pub(super) const INTRODUCTION_TIME: Duration = Duration::from_secs(20);

/// Time for a connection to end once its client was sent away.
pub(super) const LINGER_TIME: Duration = Duration::from_secs(5);

/// Share of a connection's age by which it is shortened at random: clients that came together do
/// not leave together.
pub(super) const AGE_JITTER: f64 = 0.2;

/// Requests at once on a connection: one stream of discovery, and eight certificates at a time.
pub(super) const MAX_STREAMS: u32 = 64;

/// Bytes that a client may send ahead of what is read, for a stream and for a connection.
pub(super) const WINDOW_BYTES: u32 = 64 * 1024;

/// Bytes of a response that wait in a connection for a client that does not read.
pub(super) const SEND_BUFFER_BYTES: usize = 64 * 1024;

/// Request headers, in bytes; a token has up to 16 KiB.
pub(super) const MAX_HEADER_BYTES: u32 = 32 * 1024;

/// Time between pings to a client that is silent (what clients do too).
pub(super) const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);

/// Time for the answer to a ping.
pub(super) const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause after a failed accept, which is most often for want of file descriptors.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
