//! What anything from the network may cost: every bound, with its unit and its reason.
//!
//! `fairlead_limit_reached_total` counts how often one is reached, by these names:
//!
//! | `limit` | Bound |
//! |---|---|
//! | `accept` | descriptors of the process, when a connection comes |
//! | `descriptors` | descriptors of the process, when a pod or a socket in one is handed over |
//! | `pods` | [`MAX_PODS`](fairlead_ebpf::MAX_PODS) |
//! | `pod_connections` | [`DEFAULT_MAX_POD_CONNECTIONS`], or `--max-pod-connections` |
//! | `handshakes` | [`MAX_HANDSHAKES`](fairlead_tunnel::limits::MAX_HANDSHAKES) |
//! | `tunnel_frames` | what a peer may send through a tunnel: control frames, header blocks and lists, CONTINUATION, resets, empty and tiny DATA |
//! | `forwarded` | [`MAX_FORWARDED_BYTES`](fairlead_tunnel::limits::MAX_FORWARDED_BYTES) |
//! | `dns_queries` | [`MAX_QUERIES`](dns::MAX_QUERIES) |
//! | `dns_cache` | [`MAX_CACHED_ANSWERS`](dns::MAX_CACHED_ANSWERS) |
//! | `dns_answers` | the socket of a pod takes no more answers |
//! | `metrics_connections`, `readiness_connections`, `admin_connections` | [`MAX_CONNECTIONS`](fairlead_component::http::MAX_CONNECTIONS) |
//!
//! Streams past [`SERVER_MAX_STREAMS`](fairlead_tunnel::limits::SERVER_MAX_STREAMS) are refused by HTTP/2; a connection
//! that gets no place in a tunnel ends as `limit_reached`. `fairlead_log_lines_dropped_total` counts
//! what [`MAX_QUEUED_LINES`](fairlead_component::logging::MAX_QUEUED_LINES) leaves no room for; series
//! past [`MAX_SERIES`](crate::telemetry::metrics::MAX_SERIES) are one that is called `overflow`.

use std::num::NonZeroUsize;

pub mod dns;

/// Connections that one pod may have open unless an operator wants otherwise: more than it has ports
/// for to one server, and some 370 MiB of ours if they do nothing, at 6 KB each.
// Zero would not compile.
pub const DEFAULT_MAX_POD_CONNECTIONS: NonZeroUsize = NonZeroUsize::new(1 << 16).unwrap();
