//! When a proxy serves pods at least as well as the predecessor that it takes them over from.

use std::time::Duration;

use fairlead_tunnel::identity::IdentityStore;
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

/// Longest wait for certificates once the mesh is known. The CA is mostly the same process as what
/// told of the mesh, and answers within milliseconds; without one the pods' plaintext waits as
/// well, so they are served in the end.
const CERTIFICATES_TIME: Duration = Duration::from_secs(5);

/// Returns what becomes true once the mesh is known and the pods at hand have their certificates,
/// or the CA has answered why not, or has not answered in time.
pub(super) fn prepare(
    mut configured: watch::Receiver<bool>,
    identities: IdentityStore,
) -> watch::Receiver<bool> {
    let (prepared, is_prepared) = watch::channel(false);
    tokio::spawn(async move {
        if configured.wait_for(|configured| *configured).await.is_err() {
            // It is never going to be; this process is about to end.
            return;
        }
        let deadline = Instant::now() + CERTIFICATES_TIME;
        if timeout_at(deadline, identities.wait_settled()).await.is_err() {
            tracing::warn!(
                "serving pods of which some have no certificate: the CA does not answer"
            );
        }
        prepared.send_replace(true);
    });
    is_prepared
}
