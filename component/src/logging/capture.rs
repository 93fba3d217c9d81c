//! The log as a test reads it.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
};

use super::{LogFormat, subscriber};

/// Lines that a test may write; more than any does.
const MAX_QUEUED_LINES: usize = 100;

/// A writer whose content a test can read.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs `emit` with a log of its own and returns what it wrote.
#[expect(clippy::unwrap_used, reason = "a test that gives a broken filter fails")]
pub fn capture(format: LogFormat, filter: &str, emit: impl FnOnce()) -> String {
    let output = Shared::default();
    let (subscriber, guard) = subscriber(format, filter, MAX_QUEUED_LINES, output.clone()).unwrap();
    tracing::subscriber::with_default(subscriber, emit);
    drop(guard);
    let bytes = output.0.lock().unwrap_or_else(PoisonError::into_inner);
    String::from_utf8_lossy(&bytes).into_owned()
}
