//! Logs to standard output through a bounded queue: a slow reader loses lines and never stalls a
//! connection.

mod format;
mod levels;

use std::{
    io::{self, Write},
    thread,
    time::Duration,
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::counter::ConstCounter,
};
use tracing::{Subscriber, subscriber::SetGlobalDefaultError};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{filter::ParseError, fmt, layer::SubscriberExt};

use self::format::Lines;
pub use self::levels::{LevelChange, Levels};

/// Lines that wait for the reader of standard output; 10,000 access-log lines are about 10 MB.
pub const MAX_QUEUED_LINES: usize = 10_000;

/// Target of lines that are written as their message is, without time and level before it: those of
/// an access log in a form of its own. `access=off` leaves them out.
pub const VERBATIM: &str = "access.verbatim";

/// Pause of the log's thread after each batch: lines that come meanwhile wait in the queue and wake
/// nobody, which would cost a busy proxy two system calls a line.
const BATCH_TIME: Duration = Duration::from_millis(5);

/// Most bytes of whole lines in one write: what a pipe takes without mixing it with what another
/// process writes (`PIPE_BUF` of POSIX). The two halves share standard output.
const WRITE_BYTES: usize = 4096;

/// How a line is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// `time level scope message key=value ...`, separated by tabs.
    #[default]
    Plain,
    /// One JSON object for each line.
    Json,
}

/// Keeps the log running; dropping it writes what is queued.
#[derive(Debug)]
pub struct Guard {
    dropped_lines: DroppedLines,
    levels: Levels,
    _writer: WorkerGuard,
}

/// Count of log lines that were lost; zero without a logger.
#[derive(Clone, Debug, Default)]
pub struct DroppedLines(Option<ErrorCounter>);

/// Rests after each batch of lines.
struct Batches<W>(W);

/// Why the log could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter has another form than `level` or `target=level,...`.
    #[error("invalid log filter \"{filter}\": {source}; use a level or target=level, with commas")]
    Filter {
        /// The filter as given.
        filter: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// More targets have a level of their own than a program has modules.
    #[error("too many targets have a level of their own; reset the log levels first")]
    TooManyTargets,
    /// The process has a logger already.
    #[error("the log was started twice")]
    AlreadyStarted(#[from] SetGlobalDefaultError),
}

/// Starts logging to standard output. `filter` has the form `info,access=off`.
pub fn init(format: LogFormat, filter: &str) -> Result<Guard, LogError> {
    let stdout = Batches(io::BufWriter::with_capacity(WRITE_BYTES, io::stdout()));
    let (subscriber, guard) = subscriber(format, filter, MAX_QUEUED_LINES, stdout)?;
    tracing::subscriber::set_global_default(subscriber)?;
    Ok(guard)
}

fn subscriber(
    format: LogFormat,
    filter: &str,
    max_queued_lines: usize,
    output: impl Write + Send + 'static,
) -> Result<(impl Subscriber + Send + Sync, Guard), LogError> {
    let levels = Levels::new(filter)?;
    let (writer, worker) = NonBlockingBuilder::default()
        .buffered_lines_limit(max_queued_lines)
        .lossy(true)
        .thread_name("log")
        .finish(output);
    let dropped_lines = DroppedLines(Some(writer.error_counter()));
    let layer = fmt::layer().event_format(Lines(format)).with_writer(writer);
    let subscriber = tracing_subscriber::registry().with(levels.clone()).with(layer);
    Ok((subscriber, Guard { dropped_lines, levels, _writer: worker }))
}

// === impl Batches ===

impl<W: Write> Write for Batches<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    /// The writer's thread flushes when its queue is empty.
    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()?;
        thread::sleep(BATCH_TIME);
        Ok(())
    }
}

// === impl Guard ===

impl Guard {
    /// Returns the count of lost lines, for the metrics.
    pub fn dropped_lines(&self) -> DroppedLines {
        self.dropped_lines.clone()
    }

    /// Returns what changes which lines are written.
    pub fn levels(&self) -> Levels {
        self.levels.clone()
    }
}

// === impl DroppedLines ===

impl DroppedLines {
    /// Returns how many lines were lost until now.
    pub fn count(&self) -> u64 {
        self.0.as_ref().map_or(0, |counter| counter.dropped_lines() as u64)
    }
}

impl Collector for DroppedLines {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let lines = ConstCounter::new(self.count());
        lines.encode(encoder.encode_descriptor(
            "fairlead_log_lines_dropped",
            "Log lines lost because the reader of the log was too slow",
            None,
            lines.metric_type(),
        )?)
    }
}

#[cfg(any(test, feature = "testing"))]
mod capture;

#[cfg(any(test, feature = "testing"))]
pub use capture::capture;

#[cfg(test)]
mod tests;
