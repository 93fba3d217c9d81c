//! Bounds of tunnels, HBONE, at both ends. What a peer can see has ztunnel's values, but for the receive
//! window of a connection, which is larger.

use std::time::Duration;

/// Receive window of a stream, in bytes: the bandwidth-delay product of 10 Gbit/s at 3 ms.
pub const STREAM_WINDOW_BYTES: u32 = 4 << 20;

/// Receive window of a connection, in bytes: sixteen streams whose readers have stopped fill it, and
/// only then hold up the others.
pub const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;

/// Largest DATA frame accepted, in bytes: few frames per read of a fast stream.
pub const MAX_FRAME_BYTES: u32 = 1 << 20;

/// Largest header list that the client accepts in an answer, in bytes.
pub const CLIENT_MAX_HEADER_LIST_BYTES: u32 = 16 << 10;

/// Largest header list that the server accepts in a CONNECT, in bytes. Decoded size: this is what
/// bounds HPACK bombs (CVE-2016-6581) and CONTINUATION floods (CVE-2024-27316).
pub const SERVER_MAX_HEADER_LIST_BYTES: u32 = 64 << 10;

/// Longest header block that either end accepts undecoded, in bytes. Past four times the header list
/// the library ends the connection too, once it has decoded that much; before, it would keep the
/// parts of one long string.
pub const MAX_HEADER_BLOCK_BYTES: usize = 4 * SERVER_MAX_HEADER_LIST_BYTES as usize;

/// Frames that carry nothing (PING, SETTINGS and the like) that a peer may send at once.
pub const CONTROL_FRAMES_AT_ONCE: u32 = 1_000;

/// Such frames that a peer may send in the long run, per second: ten times what a peer sends that
/// measures its path by PINGs.
pub const CONTROL_FRAMES_PER_SECOND: u32 = 100;

/// Bytes written to a peer for each window update or reset that they explain. The smallest DATA frame
/// has 10, and a peer that sees to its windows with the least thought answers it with two updates:
/// one for the stream and one for the tunnel. What is not explained counts as a control frame, so
/// that honest peers need none of that allowance, whatever they carry.
pub const BYTES_WRITTEN_PER_UPDATE: u64 = 5;

/// Window updates and resets that a header block of a peer explains: the window of a new stream, and
/// its reset.
pub const UPDATES_PER_HEADER_BLOCK: u64 = 2;

/// Streams that a client may open, send nothing through and reset, at once: ten times those that it
/// may have open. Each has made us connect to the application. One that is used allows another one.
pub const ABANDONED_STREAMS_AT_ONCE: u32 = 10 * SERVER_MAX_STREAMS;

/// Such streams in the long run, per second: all that a client may have open, given up twice, as when
/// the application has stopped answering and impatient clients go away.
pub const ABANDONED_STREAMS_PER_SECOND: u32 = 2 * SERVER_MAX_STREAMS;

/// Bytes that one stream may hold unsent.
pub const SEND_BUFFER_BYTES: usize = 400 << 10;

/// Streams that the server lets a peer open at once on one connection.
pub const SERVER_MAX_STREAMS: u32 = 200;

/// Streams that the client opens at once on one connection; a peer may allow fewer.
pub const CLIENT_MAX_STREAMS: usize = 100;

/// Resets by the peer that may be pending before the connection is ended (CVE-2023-44487).
pub const MAX_PENDING_RESETS: usize = 20;

/// Resets that a peer may provoke before the connection is ended (CVE-2025-8671).
pub const MAX_PROVOKED_RESETS: usize = 1024;

/// Time for a TCP connect; past it the address counts as unreachable.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Time for the TLS and HTTP/2 handshakes: generous for a loaded peer, short for a stalled one.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Time for the answer to CONNECT: the peer's own connect time-out, and slack.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(15);

/// Pause between PINGs.
pub const PING_INTERVAL: Duration = Duration::from_secs(10);

/// Time for the answer to a PING; past it the peer counts as gone.
pub const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Tunnels of one thread to one peer that bulk transfers may make it open: with more, each thread of
/// the peer has one already, and memory grows.
pub const MAX_BULK_TUNNELS: usize = 4;

/// Bytes per second, of both directions, from which on a tunnel is filled by bulk transfers: an
/// eighth of what a core encrypts, so that a small message waits less than it travels.
pub const BULK_BYTES_PER_SECOND: u64 = 128 << 20;

/// Shortest time over which that speed is measured.
pub const BULK_LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// Time that a tunnel without streams stays in the pool.
pub const POOL_IDLE_TIMEOUT: Duration = Duration::from_mins(5);

/// Plaintext that TLS encrypts before it writes to the socket, in bytes: many records per call.
pub const TLS_WRITE_BYTES: usize = 512 << 10;

/// Records that may wait for the socket when more are sealed, in bytes: the head of a frame goes out
/// with its body.
pub const TLS_UNSENT_BYTES: usize = 64 << 10;

/// Memory that buffered small DATA frames of one connection may cost, in bytes, before the peer is
/// told to calm down. An application that writes single bytes to a slow reader is legitimate.
pub const SMALL_FRAME_BUDGET_BYTES: usize = 64 << 20;

/// TLS handshakes of a pod at once; more peers wait in the kernel's queue. As many as dial when a
/// large cluster restarts; peers that say nothing hold some 20 MiB, and each no longer than
/// [`HANDSHAKE_TIMEOUT`].
pub const MAX_HANDSHAKES: usize = 1_024;

/// Of these, handshakes with one address: four peers that stall all of theirs are needed to make others
/// wait. A peer that has none stalled needs a few at once, and one more is refused.
pub const MAX_PEER_HANDSHAKES: usize = MAX_HANDSHAKES / 4;

/// Longest `forwarded` header that is parsed, in bytes; a longer one is ignored, and
/// counted under `forwarded`.
pub const MAX_FORWARDED_BYTES: usize = 1024;

/// Longest `baggage` header that is read, in bytes: seven names as long as they come. A longer one is
/// ignored, and counted under `baggage`.
pub const MAX_BAGGAGE_BYTES: usize = 2_048;

/// Longest `traceparent` header that counts as one, in bytes: later versions may append to the 55 of
/// today's. It is ignored in any case: there is nothing that traces.
pub const MAX_TRACEPARENT_BYTES: usize = 256;

/// Most intermediate certificates accepted from a peer: plugged-in CAs use one to three, and building
/// paths through many costs processor time that the peer does not pay for.
pub const MAX_INTERMEDIATES: usize = 8;

/// Longest message accepted after a TLS handshake, in bytes: a session ticket.
pub const MAX_MESSAGE_BYTES: usize = 1 << 16;

/// TLS records and such messages in a row that may carry nothing for the application: more would
/// only keep us busy. A record has room for a thousand messages, and each costs a key or a ticket.
pub const MAX_FRUITLESS: u8 = 32;

/// Peers whose TLS sessions are kept for one set of expected identities: as many as a large service
/// has endpoints. A session takes about 3 KiB.
pub const MAX_SESSION_PEERS: usize = 64;

/// TLS sessions kept for a peer: each is used once, and two threads may dial at the same time.
pub const MAX_SESSIONS: usize = 2;

/// Tunnels that a stream waits for in vain before it is given up: nobody got a place in them, since
/// they closed at once or their peer allows no streams.
pub const MAX_VAIN_DIALS: usize = 8;
