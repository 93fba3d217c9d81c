//! The client of incremental discovery (delta ADS): keeps a consumer's view of the control plane's
//! resources up to date, across reconnects.
//!
//! [`Session`] is pure: what is retained, what is asked for, what is answered. [`run`] does the
//! talking. What the consumer gets is whole and in order: each [`Update`] is one response of the
//! control plane, and what was got stays good while no stream is open. Resources that cannot be
//! read are refused one by one, and all others of their response count.

mod backoff;
mod introduce;
mod log;
mod mesh;
mod session;
mod stream;

use std::{fmt, sync::Arc};

use tonic::Status;

pub use self::{
    backoff::Backoff,
    introduce::{Introduction, Role, introduce},
    log::StreamLog,
    mesh::{
        ADDRESS_TYPE, AUTHORIZATION_TYPE, CREDENTIAL_TYPE, EVERY_WAYPOINT, L7_TYPE, MeshResource,
        mesh_subscriptions,
    },
    session::{Answer, Session, UnknownType},
    stream::run,
};
use crate::control_plane::ConnectError;

/// Longest message accepted, in bytes: the whole mesh may come in one (Istio's limit, too).
pub const MAX_MESSAGE_BYTES: usize = 200 << 20;

/// Most refused resources that an answer names; the control plane needs some, not all.
pub const MAX_NAMED_REJECTIONS: usize = 100;

/// `system_version_info` of a response that is not the last one of a state: Fairlead's control plane
/// splits large ones.
pub const INCOMPLETE: &str = "incomplete";

/// Name that stands for every resource of a type.
pub const WILDCARD: &str = "*";

/// A type of resources to follow.
#[derive(Clone, Debug)]
pub struct Subscription<T> {
    /// Name of the type.
    pub type_url: &'static str,
    /// What is asked for.
    pub interest: Interest,
    /// Reads a resource from its name and its content, or says why it is of no use.
    pub read: fn(&str, &[u8]) -> Result<T, String>,
}

/// Which resources of a type are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interest {
    /// All that there are.
    Everything,
    /// Those that have, or come to have, one of these names or aliases.
    Names(Vec<String>),
}

/// What becomes of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change<T> {
    /// It is new, or different.
    Updated(Arc<str>, T),
    /// It is gone.
    Removed(Arc<str>),
}

/// One response of the control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update<T> {
    /// Type of the resources.
    pub type_url: &'static str,
    /// What changed, in order.
    pub changes: Vec<Change<T>>,
    /// Resources that were refused: what was known of them before stays.
    pub rejections: Vec<Rejection>,
    /// Size of the resources, in bytes.
    pub bytes: usize,
    /// Whether, with this response, every type has been answered.
    pub synced: bool,
}

/// Why a resource is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Name of the resource.
    pub name: Arc<str>,
    /// What is wrong with it.
    pub reason: String,
}

/// What happens to a consumer's view.
#[derive(Debug)]
pub enum Event<T> {
    /// The control plane takes requests.
    Connected,
    /// It has changed.
    Update(Update<T>),
    /// The stream ended; another one will be tried.
    Disconnected(StreamEnd),
}

/// How a stream ended.
#[derive(Debug, thiserror::Error)]
pub enum StreamEnd {
    /// It never began.
    #[error(transparent)]
    NotConnected(#[from] ConnectError),
    /// The control plane refused or broke it.
    #[error("the control plane answered {:?}: {}", .0.code(), .0.message())]
    Status(Box<Status>),
    /// The control plane sent what was not asked for.
    #[error(transparent)]
    UnknownType(#[from] UnknownType),
    /// The control plane ended it in order, as when it shuts down.
    #[error("the control plane ended the stream")]
    Complete,
}

// === impl Rejection ===

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, reason } = self;
        write!(f, "{name}: {reason}")
    }
}

// === impl StreamEnd ===

impl From<Status> for StreamEnd {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}
