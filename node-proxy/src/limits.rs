//! What anything from the network may cost: every bound, with its unit and its reason. Those of tunnels
//! are in [`fairlead_tunnel::limits`], those of names in [`dns`], the rest is here.
//!
//! `fairlead_limit_reached_total` counts how often one is reached, by these names:
//!
//! | `limit` | Bound |
//! |---|---|
//! | `accept` | descriptors of the process, when a connection comes |
//! | `descriptors` | descriptors of the process, when a pod or a socket in one is handed over |
//! | `pods` | [`MAX_PODS`](fairlead_ebpf::MAX_PODS) |
//! | `pod_connections` | [`DEFAULT_MAX_POD_CONNECTIONS`], or `--max-pod-connections` |
//! | `peer_connections` | [`DEFAULT_MAX_PEER_CONNECTIONS`], or `--max-peer-connections` |
//! | `peer_tunnels` | [`DEFAULT_MAX_PEER_TUNNELS`], or `--max-peer-tunnels` |
//! | `peer_handshakes` | [`MAX_PEER_HANDSHAKES`](fairlead_tunnel::limits::MAX_PEER_HANDSHAKES) |
//! | `handshakes` | [`MAX_HANDSHAKES`](fairlead_tunnel::limits::MAX_HANDSHAKES) |
//! | `tunnel_frames` | what a peer may send through a tunnel: control frames, window updates, header blocks and lists, CONTINUATION, resets, empty and tiny DATA |
//! | `forwarded` | [`MAX_FORWARDED_BYTES`](fairlead_tunnel::limits::MAX_FORWARDED_BYTES) |
//! | `baggage` | [`MAX_BAGGAGE_BYTES`](fairlead_tunnel::limits::MAX_BAGGAGE_BYTES) |
//! | `traceparent` | [`MAX_TRACEPARENT_BYTES`](fairlead_tunnel::limits::MAX_TRACEPARENT_BYTES) |
//! | `dns_queries` | [`MAX_QUERIES`](dns::MAX_QUERIES) |
//! | `dns_lookups` | [`MAX_LOOKUPS`](dns::MAX_LOOKUPS) |
//! | `dns_cache` | [`MAX_CACHED_ANSWERS`](dns::MAX_CACHED_ANSWERS) |
//! | `dns_answers` | the socket of a pod takes no more answers |
//! | `metrics_connections`, `readiness_connections`, `admin_connections` | [`MAX_CONNECTIONS`](fairlead_component::http::MAX_CONNECTIONS) |
//!
//! Others are seen elsewhere:
//!
//! | Bound | Once it is reached |
//! |---|---|
//! | [`SERVER_MAX_STREAMS`](fairlead_tunnel::limits::SERVER_MAX_STREAMS) | HTTP/2 refuses the stream; honest peers wait or open another tunnel |
//! | [`MAX_VAIN_DIALS`](fairlead_tunnel::limits::MAX_VAIN_DIALS), [`MAX_TUNNELS_TRIED`] | the connection ends as `limit_reached` (`tunnel_streams`), or as its last tunnel did, in the log and in `istio_tcp_connections_closed_total` |
//! | [`MAX_INTERMEDIATES`](fairlead_tunnel::limits::MAX_INTERMEDIATES), [`HANDSHAKE_TIMEOUT`](fairlead_tunnel::limits::HANDSHAKE_TIMEOUT) and other times | the connection ends with a reason of its own, likewise |
//! | [`MAX_QUEUED_LINES`](fairlead_component::logging::MAX_QUEUED_LINES) | lines are left out of the log; `fairlead_log_lines_dropped_total` |
//! | [`MAX_SERIES`], [`MAX_PATHS`] | what exceeds it is in one series whose labels are all `overflow` |

use std::num::NonZeroUsize;

pub mod dns;

/// Connections that one pod may have open unless an operator wants otherwise: more than it has ports
/// for to one server, and some 370 MiB of ours if they do nothing, at 6 KB each.
// Zero would not compile.
pub const DEFAULT_MAX_POD_CONNECTIONS: NonZeroUsize = NonZeroUsize::new(1 << 16).unwrap();

/// Connections from one address that a pod may have open unless an operator wants otherwise: half of
/// what the pod may have, and more than a client has ephemeral ports for to one port of it.
pub const DEFAULT_MAX_PEER_CONNECTIONS: NonZeroUsize = NonZeroUsize::new(1 << 15).unwrap();

/// Tunnels from one address to all pods of this node unless an operator wants otherwise: sixteen of a
/// gateway to each of 256 pods, and some 140 MiB if they do nothing, at 34 KiB each.
pub const DEFAULT_MAX_PEER_TUNNELS: NonZeroUsize = NonZeroUsize::new(1 << 12).unwrap();

/// Label sets of the metrics of connections. A scrape spends about 4 KiB on each, so this many make
/// 40 MiB; what exceeds it is counted in one series whose labels are all `overflow`.
pub const MAX_SERIES: usize = 10_000;

/// Pairs of workloads whose paths are told apart in the metrics. A scrape spends about 6 KiB on each;
/// what exceeds the bound is counted in one pair whose labels are all `overflow`.
pub const MAX_PATHS: usize = 2_000;

/// Times that a stream moves on to another tunnel because the one it got had just closed. A peer that
/// closes that many is not about to keep the next one.
pub const MAX_TUNNELS_TRIED: usize = 3;
