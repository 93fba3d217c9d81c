//! The authority with its files in Secrets.

use std::{future::poll_fn, pin::pin, sync::Arc, task::Poll, time::Duration};

use fairlead_component::clock::Clock;
use futures_util::{Stream, StreamExt as _};
use tokio::time::sleep;
use tracing::{error, info, warn};

use super::{Authority, AuthorityOptions, Opened, Storage};
use crate::{
    ca::{
        contents::{CERTIFICATE, Contents},
        error::CaError,
        rotation::until_next_look,
        secret::{CaSecrets, Snapshot},
        sign::new_root,
    },
    telemetry::metrics::Metrics,
};

/// Pause after the API server could not be asked.
const RETRY_PAUSE: Duration = Duration::from_secs(2);

/// Attempts to write before other work goes on; each fails only if another replica has written.
const MAX_ATTEMPTS: u32 = 8;

// === impl Authority ===

impl Authority {
    /// Opens the authority in a cluster's Secrets, with a new root if there is none. Waits for an
    /// API server that does not answer.
    pub async fn open_secrets(
        secrets: CaSecrets,
        options: AuthorityOptions,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>, CaError> {
        let snapshot = loop {
            match read_or_create(&secrets, &options, &clock).await {
                Ok(Some(snapshot)) => break snapshot,
                // Another replica was quicker, and what it has made is found next.
                Ok(None) => {}
                Err(error) if error.is_of_api() => {
                    warn!(%error, "cannot read the authority's Secret; trying again");
                    sleep(RETRY_PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        };
        let longest = clock.now() + options.max_ttl;
        let issued_until = snapshot.issued_until.unwrap_or(longest);
        let opened = Opened { contents: snapshot.contents, issued_until };
        Self::with(Storage::Secrets(Box::new(secrets)), opened, options, clock, metrics)
    }

    /// Takes up changed Secrets and, if this replica leads, every step of a rotation that is due.
    pub(in crate::ca) async fn refresh_secrets(&self, secrets: &CaSecrets) -> Result<(), CaError> {
        for _ in 0..MAX_ATTEMPTS {
            let missing = || CaError::unusable(CERTIFICATE, "its Secret is gone");
            let snapshot = secrets.read().await?.ok_or_else(missing)?;
            let step = self.take_snapshot(&snapshot)?;
            let Some((step, files)) = step.filter(|_| secrets.leads()) else {
                return secrets.record(&snapshot).await;
            };
            if secrets.write(snapshot, files).await? {
                info!(?step, "rotation of the root");
            }
        }
        Ok(())
    }

    /// Takes up changes of the Secrets as they come. Never returns.
    pub(super) async fn follow_secrets(&self, secrets: &CaSecrets) {
        let mut signs = pin!(secrets.signs());
        loop {
            // Steps become due by time.
            let next_look = until_next_look(self.bundle.load().rotation(), self.clock.now());
            tokio::select! {
                () = sleep(next_look) => {}
                _ = signs.next() => {}
            }
            // Whatever happened up to here is part of what is read next.
            drain(&mut signs).await;
            while let Err(error) = self.refresh_secrets(secrets).await {
                if !error.is_of_api() {
                    error!(%error, "the authority's Secret is not used as it is; it goes on as before");
                    break;
                }
                warn!(%error, "cannot read or write the authority's Secret; trying again");
                sleep(RETRY_PAUSE).await;
            }
        }
    }
}

/// Takes the items that are there already.
async fn drain(signs: &mut (impl Stream<Item = ()> + Unpin)) {
    poll_fn(|context| {
        while let Poll::Ready(Some(())) = signs.poll_next_unpin(context) {}
        Poll::Ready(())
    })
    .await;
}

/// Returns the Secret that is in use; none if it was made just now.
async fn read_or_create(
    secrets: &CaSecrets,
    options: &AuthorityOptions,
    clock: &Clock,
) -> Result<Option<Snapshot>, CaError> {
    if let Some(snapshot) = secrets.read().await? {
        return Ok(Some(snapshot));
    }
    let now = clock.now();
    let root = new_root(&options.trust_domain, now)?;
    secrets.create(Contents::of_root(&root), now).await?;
    Ok(None)
}
