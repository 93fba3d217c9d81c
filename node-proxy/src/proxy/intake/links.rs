//! The links to capture: one after the other, as capture is started anew.

use std::{os::fd::OwnedFd, time::Duration};

use tokio::{sync::mpsc, time::timeout};

use super::IntakeError;

/// Time in which a capture process that is gone has a successor, several times over: the supervisor
/// starts one after seconds at most. If none comes, capture has given this process up.
const SUCCESSOR_TIME: Duration = Duration::from_secs(30);

/// Waits for capture's successor; none when nobody supervises this process any more.
pub(super) async fn next(
    links: &mut mpsc::Receiver<OwnedFd>,
    draining: bool,
) -> Result<Option<OwnedFd>, IntakeError> {
    if draining {
        // It ends by itself, with a successor that may be linked where it cannot be.
        return Ok(links.recv().await);
    }
    timeout(SUCCESSOR_TIME, links.recv()).await.map_err(|_| IntakeError::GivenUp)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::channel::pair;

    #[tokio::test(start_paused = true)]
    async fn a_proxy_that_capture_has_given_up_ends_unless_it_drains() {
        let (send, mut links) = mpsc::channel(1);
        let given_up = next(&mut links, false).await;
        assert!(matches!(given_up, Err(IntakeError::GivenUp)), "{given_up:?}");
        let patient = timeout(2 * SUCCESSOR_TIME, next(&mut links, true)).await;
        assert!(patient.is_err(), "{patient:?}");
        send.send(pair().unwrap().0).await.unwrap();
        assert!(next(&mut links, false).await.unwrap().is_some());
        drop(send);
        assert!(next(&mut links, false).await.unwrap().is_none());
    }
}
