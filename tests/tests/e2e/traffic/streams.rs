//! Long-lived connections that talk all the time.

use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{Cue, Failure, Target, close, exchange, message};

/// Time for a message to come back.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Connections that are opened at once.
const GROUP: usize = 20;

/// Pause between two groups.
const GROUP_PAUSE: Duration = Duration::from_millis(10);

/// What became of a long-lived connection.
#[derive(Clone, Debug)]
pub(crate) struct StreamReport {
    /// Name of its server.
    pub(crate) target: String,
    /// Messages that came back.
    pub(crate) rounds: usize,
    /// What ended it before its time.
    pub(crate) failure: Option<Failure>,
}

/// Holds `count` connections to `targets` in turn; over each a message goes there and back, again
/// and again with a `pause` between.
pub(crate) async fn talk_over_streams(
    from: String,
    targets: Vec<Target>,
    count: usize,
    pause: Duration,
    cue: Cue,
) -> Result<Vec<StreamReport>> {
    let mut streams = JoinSet::new();
    for (number, target) in (0..count).zip(targets.iter().cycle()) {
        if number % GROUP == GROUP - 1 {
            sleep(GROUP_PAUSE).await;
        }
        streams.spawn(talk(from.clone(), target.clone(), number, pause, cue.clone()));
    }
    Ok(streams.join_all().await)
}

async fn talk(
    from: String,
    target: Target,
    number: usize,
    pause: Duration,
    cue: Cue,
) -> StreamReport {
    let mut rounds = 0;
    let mut started = Instant::now();
    let talked = async {
        let mut stream = TcpStream::connect(target.address).await?;
        loop {
            started = Instant::now();
            // Unlike any other message, so that what is meant for another connection shows.
            let text = message(&from, &target.name, number * 1_000_000 + rounds);
            timeout(TIMEOUT, exchange(&mut stream, &text)).await??;
            rounds += 1;
            cue.count();
            tokio::select! {
                () = sleep(pause) => {}
                () = cue.over() => break,
            }
        }
        timeout(TIMEOUT, close(&mut stream)).await?
    };
    let ended = talked.await;
    let failure = ended.err().map(|error| {
        let what = format!("{} at {}: round {rounds}: {error}", target.name, target.address);
        Failure { started, ended: Instant::now(), what }
    });
    StreamReport { target: target.name, rounds, failure }
}
