//! Connections of which the bytes are not looked at, and on which nothing moves any more.

use std::{future::pending, rc::Rc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite, copy_bidirectional},
    time::{Instant, sleep},
};

use super::watched::{Intake, Watched};

/// Looks at a connection in the time after which it is idle: it ends a quarter of it late at most.
const LOOKS: u32 = 4;

/// Shortest pause between two looks.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

/// How a connection ended of which the bytes were passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passed {
    /// Both directions have ended.
    Whole,
    /// One of its ends has failed.
    Broken,
    /// Nothing moved for too long.
    Idle,
}

/// How one end of a connection was last seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    /// Whether something waits for it.
    is_behind: bool,
    /// For how long nothing has moved towards it.
    still: Duration,
}

/// Passes bytes both ways, unless nothing moves for as long as `idle` says.
pub(super) async fn pass<C, E>(
    client: &mut Watched<C>,
    endpoint: &mut Watched<E>,
    idle: Option<Duration>,
) -> Passed
where
    C: AsyncRead + AsyncWrite + Unpin,
    E: AsyncRead + AsyncWrite + Unpin,
{
    let ends = [client.intake(), endpoint.intake()];
    let idle = async {
        match idle {
            Some(limit) => until_idle(ends, limit).await,
            None => pending().await,
        }
    };
    tokio::select! {
        passed = copy_bidirectional(client, endpoint) => {
            if passed.is_ok() { Passed::Whole } else { Passed::Broken }
        }
        () = idle => Passed::Idle,
    }
}

/// Waits until a connection has been idle for `limit`, whose ends are these.
async fn until_idle(ends: [Rc<Intake>; 2], limit: Duration) {
    let mut moved = [Instant::now(); 2];
    loop {
        sleep((limit / LOOKS).max(SHORTEST_PAUSE)).await;
        let now = Instant::now();
        let mut seen = [Seen { is_behind: false, still: Duration::ZERO }; 2];
        for ((end, moved), seen) in ends.iter().zip(&mut moved).zip(&mut seen) {
            if end.has_moved() {
                *moved = now;
            }
            *seen = Seen { is_behind: end.is_behind(), still: now - *moved };
        }
        if is_idle(seen, limit) {
            return;
        }
    }
}

/// Returns whether nothing has moved for `limit`: in neither direction, or in one in which something
/// waits. The other direction may go on for as long as it likes then, and is no sign of life.
fn is_idle(ends: [Seen; 2], limit: Duration) -> bool {
    let is_still = |end: &Seen| end.still >= limit;
    ends.iter().all(is_still) || ends.iter().any(|end| end.is_behind && is_still(end))
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(8);

    #[test]
    fn a_connection_is_idle_if_nothing_moves_or_what_waits_is_not_taken() {
        let end = |is_behind, seconds| Seen { is_behind, still: Duration::from_secs(seconds) };
        for (client, endpoint, expected) in [
            (end(false, 0), end(false, 0), false),
            (end(false, 7), end(false, 9), false),
            (end(false, 8), end(false, 8), true),
            (end(false, 100), end(false, 0), false),
            (end(true, 7), end(false, 0), false),
            (end(true, 8), end(false, 0), true),
            (end(false, 0), end(true, 8), true),
            (end(true, 0), end(true, 0), false),
        ] {
            assert_eq!(is_idle([client, endpoint], LIMIT), expected, "{client:?} {endpoint:?}");
        }
    }

    /// Returns whether the connection is idle before `seconds` have passed, in each of which `each`
    /// happens.
    async fn is_idle_within(ends: [&Rc<Intake>; 2], seconds: u64, each: impl Fn()) -> bool {
        let time = async {
            for _ in 0..seconds {
                sleep(Duration::from_secs(1)).await;
                each();
            }
        };
        tokio::select! {
            () = until_idle(ends.map(Rc::clone), LIMIT) => true,
            () = time => false,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_has_its_time_from_when_it_first_leaves_something_waiting() {
        let [client, endpoint] = <[Rc<Intake>; 2]>::default();
        let ends = [&client, &endpoint];
        assert!(!is_idle_within(ends, 100, || endpoint.offered(false)).await);
        client.offered(true);
        assert!(!is_idle_within(ends, 7, || endpoint.offered(false)).await);
        // It takes some.
        client.offered(false);
        client.offered(true);
        assert!(!is_idle_within(ends, 7, || endpoint.offered(false)).await);
        // That there is still something to take is no news.
        let each = || {
            client.offered(true);
            endpoint.offered(false);
        };
        assert!(is_idle_within(ends, 11, each).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_on_which_nothing_is_said_is_idle_after_the_limit() {
        let ends = <[Rc<Intake>; 2]>::default();
        let watch = |limit| timeout(limit, until_idle(ends.clone(), LIMIT));
        assert!(watch(LIMIT * 7 / 8).await.is_err());
        assert!(watch(LIMIT + LIMIT / LOOKS).await.is_ok());
    }
}
