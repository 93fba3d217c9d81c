use std::{
    io::{self, Write},
    sync::mpsc,
};

use super::{LogError, LogFormat, capture, subscriber};

/// A writer that waits until the sender is gone.
struct Stalled(mpsc::Receiver<()>);

impl Write for Stalled {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.recv().unwrap_err();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_plain_line_has_tabs_between_columns_and_spaces_between_keys() {
    let lines = capture(LogFormat::Plain, "info", || {
        tracing::info!(target: "policy", pods = 3, name = "a b", addr = %"::1", "policy applied");
        tracing::warn!("no fields");
        tracing::debug!("not shown");
    });
    let rest: Vec<_> = lines.lines().map(|line| line.split_once('\t').unwrap().1).collect();
    assert_eq!(
        rest,
        [
            "info\tpolicy\tpolicy applied\tpods=3 name=\"a b\" addr=::1",
            concat!("warn\t", module_path!(), "\tno fields")
        ]
    );
    assert!(lines.starts_with("20") && lines.split('\t').next().unwrap().ends_with('Z'));
}

#[test]
fn a_json_line_is_one_flat_object() {
    let lines = capture(LogFormat::Json, "info", || {
        tracing::info!(pods = 3_u64, open = true, share = 0.5, name = "a\"b", kind = ?Some(1), "x");
    });
    let mut line: serde_json::Value = serde_json::from_str(&lines).unwrap();
    assert!(line["time"].as_str().unwrap().ends_with('Z'));
    line.as_object_mut().unwrap().remove("time");
    assert_eq!(
        line,
        serde_json::json!({
            "level": "info", "scope": module_path!(), "message": "x", "pods": 3, "open": true,
            "share": 0.5, "name": "a\"b", "kind": "Some(1)"
        })
    );
}

#[test]
fn no_value_can_start_a_second_line() {
    for format in [LogFormat::Plain, LogFormat::Json] {
        let lines = capture(format, "info", || {
            let hostile = "x\n2026-01-01T00:00:00Z\tinfo\tforged\r\u{1b}[2J";
            tracing::info!(text = hostile, shown = %hostile, "{hostile}");
        });
        assert_eq!(lines.matches(|c: char| c.is_control() && c != '\t').count(), 1, "{lines}");
        assert!(lines.ends_with('\n'));
        assert_eq!(lines.matches('\t').count(), if format == LogFormat::Plain { 4 } else { 0 });
    }
}

#[test]
fn a_stalled_reader_loses_lines_and_stalls_nobody() {
    const QUEUE: usize = 10;
    const LINES: u64 = 1_000;
    let (release, stalled) = mpsc::channel();
    let (subscriber, guard) =
        subscriber(LogFormat::Plain, "info", QUEUE, Stalled(stalled)).unwrap();
    tracing::subscriber::with_default(subscriber, || {
        for n in 0..LINES {
            tracing::info!(n, "line");
        }
    });
    let lost = guard.dropped_lines().count();
    drop(release);
    // One line may be with the writer, besides those in the queue.
    assert!((LINES - QUEUE as u64 - 1..=LINES - QUEUE as u64).contains(&lost), "{lost}");
}

#[test]
fn a_broken_filter_is_an_error_that_quotes_it() {
    let error = subscriber(LogFormat::Plain, "access=loud", 1, io::sink()).err().unwrap();
    assert!(matches!(error, LogError::Filter { .. }));
    assert!(error.to_string().contains("access=loud"), "{error}");
}
