//! The unix socket API that enrols and releases pods at run time.
//!
//! HTTP/1.1 with JSON bodies on `<run-dir>/node.sock`, and between the processes of a node proxy:
//!
//! | Request | Answer |
//! |---|---|
//! | `POST /v1/pods` with a [`PodSpec`] | 201 and a [`PodStatus`] |
//! | `DELETE /v1/pods/{namespace}/{name}` | 200 |
//! | `GET /v1/pods` | 200 and a list of [`PodStatus`] |
//! | `GET /v1/explain/{namespace}/{name}/{address}:{port}` | 200 and an [`Explanation`] |
//! | `GET /v1/logging`, `PUT` with another [`Logging`], `DELETE` for that of the start | 200 and a [`Logging`] |
//! | `POST /v1/profile/{cpu or heap}/{seconds}` | after so long 200 and a profile, as `pprof` reads them |
//! | `GET /v1/inventory`, or `/v1/inventory/{version}` to wait for another one | 200 and an [`Inventory`] |
//! | `PUT /v1/notes` with a list of [`Note`], from the agent | 200 |
//!
//! A failure is answered with `{"error": ..., "remedy": ...}`.

pub mod client;
mod passed;
mod server;
mod socket;
mod types;

use std::{
    future::Future,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use fairlead_component::logging::LevelChange;

pub use self::{
    passed::PassedConnections,
    server::{serve, serve_agent},
    socket::{ApiSocket, SocketError},
    types::{
        ApiError, ApiErrorKind, InvalidPodName, Inventory, Logging, Note, Origin, PodKey, PodName,
        PodSpec, PodState, PodStatus,
    },
};

use crate::{
    explain::Explanation,
    profile::{Kind, Window},
};

/// Name of the socket in the run directory.
const SOCKET_NAME: &str = "node.sock";

/// Path of the pods collection.
const PODS_PATH: &str = "/v1/pods";

/// Path of explanations.
const EXPLAIN_PATH: &str = "/v1/explain";

/// Path of what is logged.
const LOGGING_PATH: &str = "/v1/logging";

/// Path of profiles.
const PROFILE_PATH: &str = "/v1/profile";

/// Type of a profile.
const PROFILE_TYPE: &str = "application/octet-stream";

/// Path of what the agent goes by.
const INVENTORY_PATH: &str = "/v1/inventory";

/// Path of what the agent says of pods.
const NOTES_PATH: &str = "/v1/notes";

/// What the API controls.
///
/// A call is dropped when the client goes away or the time is over: an implementation that must not
/// stop half-way hands the work to a task of its own and awaits the result here.
pub trait PodControl {
    /// Enrols a pod; returns when its connections are captured. Where the agent decides what is
    /// enrolled, an operator's pod is registered with it.
    fn add(
        &self,
        spec: PodSpec,
        origin: Origin,
    ) -> impl Future<Output = Result<PodStatus, ApiError>>;

    /// Releases a pod; returns when its new connections are no longer captured. Open ones go on.
    fn remove(&self, pod: &PodKey, origin: Origin) -> impl Future<Output = Result<(), ApiError>>;

    /// Returns all pods, sorted by namespace and name.
    fn list(&self) -> impl Future<Output = Vec<PodStatus>>;

    /// Returns what becomes of a connection of a pod to an address.
    fn explain(
        &self,
        pod: &PodKey,
        to: SocketAddr,
    ) -> impl Future<Output = Result<Explanation, ApiError>>;

    /// Returns what the agent needs to know; waits a while for another version than `known`.
    fn inventory(&self, known: Option<u64>) -> impl Future<Output = Inventory>;

    /// Takes what the agent says of the pods that are not captured, in place of what it said before.
    fn note(&self, notes: Vec<Note>);

    /// Returns what is logged.
    fn logging(&self) -> Logging;

    /// Changes what all processes log; returns what is logged then.
    fn log(&self, change: LevelChange) -> Result<Logging, ApiError>;

    /// Takes a profile of the proxy, for so long.
    fn profile(
        &self,
        kind: Kind,
        window: Window,
    ) -> impl Future<Output = Result<Vec<u8>, ApiError>>;
}

/// Returns the path of the socket.
pub fn socket_path(run_dir: &Path) -> PathBuf {
    run_dir.join(SOCKET_NAME)
}

#[cfg(test)]
mod tests;
