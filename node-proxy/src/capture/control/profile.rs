//! Profiles of the proxy, one at a time.

use fairlead_ebpf::ProxyProcess;
use tokio::{sync::oneshot, task::spawn_blocking, time::sleep};

use super::Shared;
use crate::{
    api::{ApiError, ApiErrorKind},
    capture::profiler::{MemoryError, ProfileError, Session},
    profile::{Kind, Window},
};

/// What the kernel has to offer.
const KERNEL: &str = "`fairlead-node check` says which profiles the kernel offers; capture needs \
                      CAP_SYS_ADMIN, or CAP_BPF and CAP_PERFMON";

/// What capture has to see.
const SIGHT: &str = "capture needs CAP_SYS_PTRACE, CAP_SYS_ADMIN and the node's PID namespace \
                     (hostPID), and the proxy the C library that capture has";

/// What is the matter during an upgrade.
const RENEWAL: &str = "if the node proxy is being renewed, try again when that is done; otherwise \
                       capture needs the node's PID namespace (hostPID)";

// === impl Shared ===

impl Shared {
    /// Takes a profile of the proxy that accepts connections. Ends early, without one, if this is
    /// dropped.
    pub(super) async fn profile(&self, kind: Kind, window: Window) -> Result<Vec<u8>, ApiError> {
        let busy = |_| {
            ApiError::new(
                ApiErrorKind::Conflict,
                "another profile is being taken",
                "one at a time: try again when it is done",
            )
        };
        let turn = self.profiling.clone().try_lock_owned().map_err(busy)?;
        let ProxyProcess { tgid, .. } = self.proxies.accepting().ok_or_else(|| {
            let remedy = "wait for it: see the log of fairlead-node";
            ApiError::new(ApiErrorKind::NotFound, "no proxy is running", remedy)
        })?;
        let (mut answer, taken) = oneshot::channel();
        // Attaching and detaching take their time in the kernel. What has begun is undone there,
        // too, before it is another's turn.
        tokio::spawn(async move {
            let _turn = turn;
            if let Some(result) = take(kind, tgid, window, &mut answer).await.transpose() {
                // Who waited may have gone meanwhile.
                let _ = answer.send(result);
            }
        });
        taken.await.unwrap_or_else(|error| Err(failed(&error)))
    }
}

/// Returns none if nobody waits for the profile any more.
async fn take(
    kind: Kind,
    process: u32,
    window: Window,
    answer: &mut oneshot::Sender<Result<Vec<u8>, ApiError>>,
) -> Result<Option<Vec<u8>>, ApiError> {
    let begun = spawn_blocking(move || Session::begin(kind, process)).await;
    let session = begun.map_err(|error| failed(&error))?.map_err(|error| refused(&error))?;
    tracing::info!(%kind, pid = process, seconds = %window, "taking a profile of the proxy");
    let is_wanted = tokio::select! {
        () = sleep(window.duration()) => true,
        () = answer.closed() => false,
    };
    let finish = move || if is_wanted { session.finish().map(Some) } else { Ok(None) };
    let finished = spawn_blocking(finish).await;
    finished.map_err(|error| failed(&error))?.map_err(|error| refused(&error))
}

fn refused(error: &ProfileError) -> ApiError {
    let remedy = match error {
        ProfileError::Programs(_) => KERNEL,
        ProfileError::Memory(MemoryError::OtherProgram(_)) => RENEWAL,
        ProfileError::Memory(
            MemoryError::Hidden { .. }
            | MemoryError::File { .. }
            | MemoryError::Form { .. }
            | MemoryError::NoAllocator,
        ) => SIGHT,
        ProfileError::Compression(_) => "see the log of fairlead-node",
    };
    ApiError::new(ApiErrorKind::Internal, error.to_string(), remedy)
}

fn failed(error: &dyn std::fmt::Display) -> ApiError {
    ApiError::new(ApiErrorKind::Internal, error.to_string(), "see the log of fairlead-node")
}
