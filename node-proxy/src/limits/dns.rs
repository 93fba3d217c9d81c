//! Bounds of the DNS proxy.

use std::time::Duration;

/// Queries of a pod that may wait for name servers at once. A thousand answers a second from a server
/// that takes half a second; more are told that the server fails, which they count as reason to try
/// another.
pub const MAX_QUERIES: usize = 512;

/// Names of a pod's destinations that are looked up at once: each has a socket. More wait, until they
/// are given up. A name counts once, however many connections want it.
pub const MAX_LOOKUPS: usize = 64;

/// Longest query, in bytes. They are some hundred; nobody fragments them.
pub const MAX_QUERY_BYTES: usize = 4_096;

/// Time that a name server has for an answer: that of the C library's resolver, which then asks
/// another one.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Sockets that are kept for the next queries to a name server. More only serve a burst.
pub const MAX_IDLE_SOCKETS: usize = 16;

/// Name servers that sockets are kept for; resolv.conf names up to three.
pub const MAX_SERVERS: usize = 8;

/// Queries that one socket is used for. Its port is one of the secrets that protect an answer from
/// being forged, so it is changed now and then.
pub const MAX_SOCKET_USES: u32 = 32;

/// Time after which sockets to name servers that are not used are closed.
pub const SOCKET_IDLE_TIME: Duration = Duration::from_secs(30);

/// Time that a client has for its next query (as ztunnel).
pub const CLIENT_IDLE_TIME: Duration = Duration::from_secs(5);

/// Answers that are kept for one pod. With [`MAX_CACHED_ANSWER_BYTES`] and
/// [`MAX_CACHED_QUERY_BYTES`] that is 400 KiB at most; those that find no place are counted.
pub const MAX_CACHED_ANSWERS: usize = 256;

/// Longest answer that is kept, in bytes: what fits a packet of every network.
pub const MAX_CACHED_ANSWER_BYTES: usize = 1_232;

/// Longest query whose answer is kept, in bytes: a name of full length and what clients add to it.
pub const MAX_CACHED_QUERY_BYTES: usize = 320;

/// Longest time for which an answer is kept, whatever it says: as long as clients keep what the
/// mesh itself answers, so that a name that changes is not wrong for longer in here than there.
pub const MAX_CACHE_TIME: Duration = Duration::from_secs(30);
