//! Bounds of the discovery server: each is a constant with its reason, or the default of an option.

use std::time::Duration;

/// Clients at once unless configured; Kubernetes supports 5,000 nodes in a cluster.
pub const DEFAULT_MAX_CLIENTS: usize = 5_000;

/// Largest request, in bytes. A reconnecting client names everything that it has: 100,000
/// resources, each with a name of about 100 bytes.
pub const MAX_REQUEST_BYTES: usize = 16 * 1024 * 1024;

/// Size above which a request is large, in bytes: what a connection may receive ahead anyway.
pub const LARGE_REQUEST_BYTES: usize = 64 * 1024;

/// Large requests in memory at once, of all clients; the next waits in its client. All nodes come
/// back together when a control plane is replaced, and this is more than the processors that take
/// their requests up.
pub const MAX_LARGE_REQUESTS: usize = 16;

/// Time for a large request to come, once it has its place: 16 MiB over a slow link. A client that
/// stops in the middle would keep others out.
pub const LARGE_REQUEST_TIME: Duration = Duration::from_secs(30);

/// Names that one client may subscribe to in one type. A client that needs more than this subscribes
/// to everything instead.
pub const MAX_SUBSCRIBED_NAMES: usize = 10_000;

/// Types that do not exist here and that one client may ask for: Envoy has about ten.
pub const MAX_OTHER_TYPES: usize = 32;

/// Largest response unless configured, in bytes; a single resource that is larger goes alone.
///
/// Clients written for Istio take 200 MiB and hold their state for complete after the first
/// response; a mesh of 50,000 pods fits into one of this size.
pub const DEFAULT_MAX_RESPONSE_BYTES: usize = 16 * 1024 * 1024;

/// Clients that are being taken up at once: those who are first are complete soon, instead of all
/// of them late.
pub const MAX_STARTING_CLIENTS: usize = 16;

/// Longest time that a client counts as being taken up, until its first acknowledgement.
pub const START_TIME: Duration = Duration::from_secs(5);

/// Time without an acknowledgement after which a client is shown as late.
pub const ACKNOWLEDGE_TIME: Duration = Duration::from_secs(30);

/// Bytes kept of a client's reason for a rejection, and of its name.
pub const MAX_REMARK_BYTES: usize = 1024;

/// Names of resources that are gone, kept for clients that have not been told, in one collection.
/// A client that is further behind is disconnected and names what it has when it comes back.
pub const MAX_TOMBSTONES: usize = 100_000;

/// Bytes of a response that are copied at once, on their way to a client: a whole number of TLS
/// records, and all that a slow client holds of the response's content.
pub const COPY_BYTES: usize = 32 * 1024;
