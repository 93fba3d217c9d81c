//! New connections at a steady rate.

use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};

use super::{Cue, Failure, Target, close, exchange, message};

/// Pause between two groups of connections.
const TICK: Duration = Duration::from_millis(10);

/// Ticks in a second.
const TICKS_PER_SECOND: usize = 100;

/// Connections that may be open at once: what is made in seconds while nobody answers.
const MOST_OPEN: usize = 4000;

/// Time for a connection from start to end; one that waits for a proxy has it in a fraction of it.
const TIMEOUT: Duration = Duration::from_secs(15);

/// What a client saw that opened connections.
#[derive(Clone, Debug)]
pub(crate) struct Opened {
    /// Start and end of each connection that was opened, used and closed as it should.
    pub(crate) answered: Vec<[Instant; 2]>,
    /// The others.
    pub(crate) failures: Vec<Failure>,
    /// Time from the first connection to the last.
    pub(crate) elapsed: Duration,
}

// === impl Opened ===

impl Opened {
    /// Describes what was seen.
    pub(crate) fn summary(&self) -> String {
        let mut times: Vec<_> = self.answered.iter().map(|[from, to]| *to - *from).collect();
        times.sort_unstable();
        let at = |part: usize| times.get(times.len() * part / 1000).copied().unwrap_or_default();
        format!(
            "{} connections in {:.1?}, {:.0} a second, {} failed; they took {:.1?} (median), {:.1?} \
             (99.9 %), {:.1?} (longest)",
            times.len(),
            self.elapsed,
            f64::from(u32::try_from(times.len()).unwrap_or(u32::MAX)) / self.elapsed.as_secs_f64(),
            self.failures.len(),
            at(500),
            at(999),
            times.last().copied().unwrap_or_default(),
        )
    }
}

/// Opens `per_second` connections a second to `targets` in turn, as far as the machine allows;
/// each carries one message there and back.
pub(crate) async fn open_connections(
    from: String,
    targets: Vec<Target>,
    per_second: usize,
    cue: Cue,
) -> Result<Opened> {
    let started = Instant::now();
    let (mut answered, mut failures) = (Vec::new(), Vec::new());
    let mut open = JoinSet::new();
    let mut ticks = interval(TICK);
    // A busy machine gets fewer connections, not all the missed ones at once.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut note = |ended: Result<[Instant; 2], Failure>| match ended {
        Ok(times) => {
            cue.count();
            answered.push(times);
        }
        Err(failure) => failures.push(failure),
    };
    let mut numbered = targets.iter().cycle().zip(0..);
    loop {
        tokio::select! {
            () = cue.over() => break,
            Some(ended) = open.join_next() => note(ended?),
            _ = ticks.tick() => {
                let room = MOST_OPEN.saturating_sub(open.len());
                let group = per_second.div_ceil(TICKS_PER_SECOND).min(room);
                for (target, number) in numbered.by_ref().take(group) {
                    open.spawn(ask(from.clone(), target.clone(), number, TIMEOUT));
                }
            }
        }
    }
    let elapsed = started.elapsed();
    while let Some(ended) = open.join_next().await {
        note(ended?);
    }
    Ok(Opened { answered, failures, elapsed })
}

/// Opens a connection to `target` that carries one message there and back, and closes it; returns
/// when it started and ended.
pub(crate) async fn ask(
    from: String,
    target: Target,
    number: usize,
    limit: Duration,
) -> Result<[Instant; 2], Failure> {
    let started = Instant::now();
    let text = message(&from, &target.name, number);
    let mut step = "connect";
    let whole = timeout(limit, async {
        let mut stream = TcpStream::connect(target.address).await?;
        step = "exchange";
        exchange(&mut stream, &text).await?;
        step = "close";
        close(&mut stream).await
    });
    let ended = whole.await.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
    let now = Instant::now();
    match ended {
        Ok(()) => Ok([started, now]),
        Err(error) => {
            let what = format!("{} at {}: {step}: {error}", target.name, target.address);
            Err(Failure { started, ended: now, what })
        }
    }
}
