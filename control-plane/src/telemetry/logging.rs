//! Logs to standard output.

use tracing::subscriber::SetGlobalDefaultError;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    EnvFilter, Layer as _, filter::ParseError, fmt, layer::SubscriberExt as _,
};

/// Lines that wait for the reader of standard output; further ones are lost rather than waited for.
const MAX_QUEUED_LINES: usize = 10_000;

/// How a line is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Plain,
    /// One JSON object for each line.
    Json,
}

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
    /// The process has a logger already.
    #[error("the log was started twice")]
    AlreadyStarted(#[from] SetGlobalDefaultError),
}

/// Starts logging; dropping the guard writes what is queued.
pub fn init(format: LogFormat, filter: &str) -> Result<WorkerGuard, LogError> {
    let env_filter = EnvFilter::builder()
        .parse(filter)
        .map_err(|source| LogError::Filter { filter: filter.to_owned(), source })?;
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(MAX_QUEUED_LINES)
        .lossy(true)
        .thread_name("log")
        .finish(std::io::stdout());
    let layer = fmt::layer().with_writer(writer).with_ansi(false);
    let layer = match format {
        LogFormat::Plain => layer.boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    };
    let subscriber = tracing_subscriber::registry().with(env_filter).with(layer);
    tracing::subscriber::set_global_default(subscriber)?;
    Ok(guard)
}
