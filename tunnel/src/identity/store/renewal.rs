//! The task that keeps one identity's certificate fresh.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use fairlead_component::clock::Clock;
use mesh_api::identity::Identity;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tracing::{debug, error, warn};

use super::slot::{Certificate, Failure, Slot, State};
use crate::{
    identity::{
        ca::{CaError, CertificateAuthority},
        schedule,
        svid::Svid,
    },
    tls::{Revocations, TlsConfigError, TlsConfigs},
};

/// Longest wait for one answer of the CA; a CA that hangs must not keep us from asking again.
const ISSUE_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest sleep between two looks at the wall clock: timers do not notice that the clock was
/// stepped or that the machine was suspended.
const CLOCK_CHECK_INTERVAL: Duration = Duration::from_mins(1);

/// Why a request brought no usable certificate.
#[derive(Debug, thiserror::Error)]
enum RenewalError {
    #[error(transparent)]
    Ca(#[from] CaError),
    #[error(transparent)]
    Tls(#[from] TlsConfigError),
    #[error("the CA issued a certificate for {0}")]
    WrongIdentity(Identity),
    #[error("the CA issued a certificate that has already expired")]
    Expired,
    #[error("the CA did not answer within {} s", ISSUE_TIMEOUT.as_secs())]
    Timeout,
}

// === impl RenewalError ===

impl RenewalError {
    fn is_answer(&self) -> bool {
        match self {
            Self::Ca(error) => error.is_answer(),
            Self::Timeout => false,
            Self::Tls(_) | Self::WrongIdentity(_) | Self::Expired => true,
        }
    }
}

/// Requests certificates for `slot` for ever. A request that failed is made again at once where
/// `retry` changes.
pub(super) async fn keep_renewed(
    slot: Arc<Slot>,
    authority: Arc<dyn CertificateAuthority>,
    revocations: Revocations,
    mut retry: watch::Receiver<()>,
) {
    let mut failures = 0;
    loop {
        let validity = slot.state().certificate.as_ref().map(|current| current.svid.validity());
        let now = slot.clock().now();
        let due = schedule::next_request(now, validity, failures, rand::random());
        tokio::select! {
            () = sleep_until(slot.clock(), due) => {}
            Ok(()) = retry.changed(), if failures > 0 => {}
        }
        // A change from here on may come too late for this request: if it fails, the next one is due.
        retry.mark_unchanged();
        match request(&slot, authority.as_ref(), &revocations).await {
            Ok(certificate) => {
                failures = 0;
                debug!(identity = %slot.identity(), serial = certificate.svid.leaf().serial, "certificate issued");
                slot.set(State { certificate: Some(certificate), failure: None });
            }
            Err(error) => {
                failures = failures.saturating_add(1);
                report(&slot, failures, &error);
                let State { certificate, .. } = slot.state().as_ref().clone();
                let failure = Failure { message: error.to_string(), is_answer: error.is_answer() };
                slot.set(State { certificate, failure: Some(failure) });
            }
        }
    }
}

async fn sleep_until(clock: &Clock, due: SystemTime) {
    while let Ok(left) = due.duration_since(clock.now())
        && !left.is_zero()
    {
        sleep(left.min(CLOCK_CHECK_INTERVAL)).await;
    }
}

async fn request(
    slot: &Slot,
    authority: &dyn CertificateAuthority,
    revocations: &Revocations,
) -> Result<Certificate, RenewalError> {
    let issue = timeout(ISSUE_TIMEOUT, authority.issue(slot.identity()));
    let svid = issue.await.map_err(|_| RenewalError::Timeout)??;
    check(&svid, slot.identity(), slot.clock().now())?;
    let tls = Arc::new(TlsConfigs::new(&svid, slot.clock(), revocations)?);
    Ok(Certificate { svid, tls })
}

fn check(svid: &Svid, requested: &Identity, now: SystemTime) -> Result<(), RenewalError> {
    if svid.identity() != requested {
        return Err(RenewalError::WrongIdentity(svid.identity().clone()));
    }
    if now >= svid.validity().not_after {
        return Err(RenewalError::Expired);
    }
    Ok(())
}

fn report(slot: &Slot, failures: u32, error: &RenewalError) {
    let identity = slot.identity();
    let validity = slot.state().certificate.as_ref().map(|current| current.svid.validity());
    if schedule::is_urgent(slot.clock().now(), validity) {
        error!(%identity, failures, %error, "no certificate, new connections fail or soon will");
    } else {
        warn!(%identity, failures, %error, "certificate not renewed, the current one still serves");
    }
}
