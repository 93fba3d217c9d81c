//! The unix socket API that enrols and releases pods at run time.
//!
//! HTTP/1.1 with JSON bodies on `<run-dir>/node.sock`:
//!
//! | Request | Answer |
//! |---|---|
//! | `POST /v1/pods` with a [`PodSpec`] | 201 and a [`PodStatus`] |
//! | `DELETE /v1/pods/{namespace}/{name}` | 200 |
//! | `GET /v1/pods` | 200 and a list of [`PodStatus`] |
//!
//! A failure is answered with `{"error": ..., "remedy": ...}`.

pub mod client;
mod server;
mod socket;
mod types;

use std::{
    future::Future,
    path::{Path, PathBuf},
};

pub use self::{
    server::serve,
    socket::{ApiSocket, SocketError},
    types::{
        ApiError, ApiErrorKind, InvalidPodName, PodKey, PodName, PodSpec, PodState, PodStatus,
    },
};

/// Name of the socket in the run directory.
const SOCKET_NAME: &str = "node.sock";

/// Path of the pods collection.
const PODS_PATH: &str = "/v1/pods";

/// What the API controls.
///
/// A call is dropped when the client goes away or the time is over: an implementation that must not
/// stop half-way hands the work to a task of its own and awaits the result here.
pub trait PodControl {
    /// Enrols a pod; returns when its connections are captured.
    fn add(&self, spec: PodSpec) -> impl Future<Output = Result<PodStatus, ApiError>>;

    /// Releases a pod; returns when its new connections are no longer captured. Open ones go on.
    fn remove(&self, pod: &PodKey) -> impl Future<Output = Result<(), ApiError>>;

    /// Returns all pods, sorted by namespace and name.
    fn list(&self) -> impl Future<Output = Vec<PodStatus>>;
}

/// Returns the path of the socket.
pub fn socket_path(run_dir: &Path) -> PathBuf {
    run_dir.join(SOCKET_NAME)
}

#[cfg(test)]
mod tests;
