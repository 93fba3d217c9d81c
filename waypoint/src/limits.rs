//! What clients and endpoints may cost: every bound, with its unit and its reason. Those of tunnels
//! are in [`fairlead_tunnel::limits`], the rest is here.
//!
//! `fairlead_limit_reached_total` counts how often one is reached, by these names:
//!
//! | `limit` | Bound |
//! |---|---|
//! | `accept` | descriptors of the process, when a connection comes |
//! | `handshakes` | [`MAX_HANDSHAKES`](fairlead_tunnel::limits::MAX_HANDSHAKES), of each thread |
//! | `peer_handshakes` | [`MAX_PEER_HANDSHAKES`](fairlead_tunnel::limits::MAX_PEER_HANDSHAKES) |
//! | `peer_tunnels` | [`DEFAULT_MAX_PEER_TUNNELS`], or `--max-peer-tunnels` |
//! | `peer_connections` | [`DEFAULT_MAX_PEER_CONNECTIONS`], or `--max-peer-connections` |
//! | `tunnel_frames` | what a peer may send through a tunnel: control frames, window updates, header blocks and lists, CONTINUATION, resets, empty and tiny DATA |
//! | `request_frames` | the same for a connection of a client that speaks HTTP/2 in a tunnel |
//! | `forwarded` | [`MAX_FORWARDED_BYTES`](fairlead_tunnel::limits::MAX_FORWARDED_BYTES), and that it is text; the header is ignored |
//! | `baggage` | [`MAX_BAGGAGE_BYTES`](fairlead_tunnel::limits::MAX_BAGGAGE_BYTES), and that it is text; the header is ignored |
//! | `traceparent` | [`MAX_TRACEPARENT_BYTES`](fairlead_tunnel::limits::MAX_TRACEPARENT_BYTES), and that it is text; the header is ignored |
//! | `request_head` | [`MAX_HEAD_BYTES`], [`MAX_HEADERS`] over HTTP/1; the answer is 431 |
//! | `request_head_time` | [`DEFAULT_HEAD_TIMEOUT`], or `--request-head-timeout`; the connection is closed |
//! | `stream_idle` | [`DEFAULT_STREAM_IDLE_TIMEOUT`], or `--stream-idle-timeout`; the answer is 408, or what has begun is reset |
//! | `request_time` | `--request-timeout`; the answer is 408, or what has begun is reset |
//! | `tcp_idle` | [`DEFAULT_TCP_IDLE_TIMEOUT`], or `connectionPool.tcp.idleTimeout` of a destination rule, for connections that are not HTTP or not any longer; it is reset |
//! | `interim_answers` | [`MAX_INTERIM_ANSWERS`]; the answer is 502 with the flag `UPE` |
//! | `names` | [`MAX_NAMES`]; services that have only further ones are answered 503 with the flag `UH` |
//! | `answer_frames` | as `request_frames` for a connection to an endpoint that speaks HTTP/2; the answer is the same |
//!
//! Requests over HTTP/1 that can be read in two ways are answered 400 and counted by
//! `fairlead_malformed_requests_total`, with what is wrong as `reason`.
//!
//! Others are seen elsewhere:
//!
//! | Bound | Once it is reached |
//! |---|---|
//! | [`SERVER_MAX_STREAMS`](fairlead_tunnel::limits::SERVER_MAX_STREAMS), [`MAX_REQUESTS_AT_ONCE`] | HTTP/2 refuses the stream; honest clients wait or open another connection |
//! | [`MAX_KEPT_BYTES`] | the request is not tried again, and not mirrored |
//! | [`MAX_IDLE_CONNECTIONS`] | the one that waits longest is closed |
//! | [`CLIENT_IDLE_TIMEOUT`] | the connection is closed |
//! | [`MAX_LOOKUPS`] | further host names of endpoints wait until one has been looked up |
//! | limits of a destination rule | the answer is 503 with the flag `UO` |

use std::{num::NonZeroUsize, time::Duration};

/// Bytes of a request's head that are accepted (Envoy's limit).
pub const MAX_HEAD_BYTES: usize = 60 << 10;

/// Headers of a request that are accepted (Envoy's limit).
pub const MAX_HEADERS: usize = 100;

/// Requests of a client's HTTP/2 connection at once (Envoy's default for untrusted clients).
pub const MAX_REQUESTS_AT_ONCE: u32 = 100;

/// Bytes of a request's body that are kept in case that it has to be sent again (Envoy's buffer of a
/// connection). A longer one is sent once.
pub const MAX_KEPT_BYTES: usize = 1 << 20;

/// Answers with a status below 200 that an endpoint may send before the one that counts (RFC 9110
/// section 15.2): those that mean well send one or two, and one every 20 seconds while they work.
pub const MAX_INTERIM_ANSWERS: u32 = 100;

/// Connections without a request that are kept to an endpoint by each thread; more are closed.
pub const MAX_IDLE_CONNECTIONS: usize = 128;

/// Time to send the head of a request over HTTP/1, from its first byte on, unless an operator wants
/// otherwise: clients on lossy paths need seconds.
pub const DEFAULT_HEAD_TIMEOUT: Duration = Duration::from_mins(1);

/// Time after which a connection of a client without a request is closed (Envoy's default): a client
/// may count on it for longer than it keeps connections.
pub const CLIENT_IDLE_TIMEOUT: Duration = Duration::from_hours(1);

/// Time without a byte of a request or its answer after which it is given up, unless an operator
/// wants otherwise (Envoy's default).
pub const DEFAULT_STREAM_IDLE_TIMEOUT: Duration = Duration::from_mins(5);

/// Time without a byte after which a connection that is not HTTP is given up, unless a destination rule
/// wants otherwise (Istio's default), and time after which one is of which an end does not take what
/// waits for it: whoever pauses for longer may as well be gone.
pub const DEFAULT_TCP_IDLE_TIMEOUT: Duration = Duration::from_hours(1);

/// Tunnels from one address unless an operator wants otherwise: as many threads as a node has, for
/// each of its pods if they come from the node's address, and some 140 MiB if they do nothing.
// Zero would not compile.
pub const DEFAULT_MAX_PEER_TUNNELS: NonZeroUsize = NonZeroUsize::new(1 << 12).unwrap();

/// Connections from one address, through tunnels, unless an operator wants otherwise: more than a
/// client has ephemeral ports for to one port.
pub const DEFAULT_MAX_PEER_CONNECTIONS: NonZeroUsize = NonZeroUsize::new(1 << 15).unwrap();

/// Host names whose addresses are looked up for endpoints: each costs a lookup every few seconds.
pub const MAX_NAMES: usize = 1 << 10;

/// Lookups of host names at once: each takes a thread until the resolver of the system has answered.
pub const MAX_LOOKUPS: usize = 16;

/// Time after which the bytes of a connection that goes on are counted (Istio's), and after which a
/// policy that has come is held against it.
pub const REVIEW_INTERVAL: Duration = Duration::from_secs(5);
