//! The form of a log line. Values come from peers and configuration, so control characters are
//! escaped: no value can start a second line.

use std::{
    fmt::{self, Write},
    io,
};

use serde::Serialize;
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::Writer,
        time::{FormatTime, SystemTime},
    },
    registry::LookupSpan,
};

use super::{LogFormat, VERBATIM};

/// Formats events as lines; spans are not shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lines(pub(super) LogFormat);

/// Bytes that an access-log line has beside its time and scope: most lines need no more.
const USUAL_LINE_BYTES: usize = 768;

/// The values of one event.
struct Values {
    format: LogFormat,
    message: String,
    /// Everything else, formatted, with a separator before each.
    rest: Text,
}

/// Text that JSON is written to.
struct Text(String);

/// Writes control characters as escape sequences.
struct Escaped<'a, W>(&'a mut W);

// === impl Lines ===

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut line: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let is_verbatim = event.metadata().target() == VERBATIM;
        let long = String::with_capacity(USUAL_LINE_BYTES);
        // What a verbatim line says is in its message.
        let (message, rest) =
            if is_verbatim { (long, String::new()) } else { (String::new(), long) };
        let mut values = Values { format: self.0, message, rest: Text(rest) };
        event.record(&mut values);
        let Values { message, rest: Text(rest), .. } = values;
        if is_verbatim {
            Escaped(&mut line).write_str(&message)?;
            return writeln!(line);
        }
        let level = level_name(*event.metadata().level());
        let scope = event.metadata().target();
        match self.0 {
            LogFormat::Plain => {
                SystemTime.format_time(&mut line)?;
                write!(line, "\t{level}\t{scope}\t")?;
                Escaped(&mut line).write_str(&message)?;
                if !rest.is_empty() {
                    write!(line, "\t{}", rest.trim_start())?;
                }
                writeln!(line)
            }
            LogFormat::Json => {
                write!(line, "{{\"level\":\"{level}\",\"time\":\"")?;
                SystemTime.format_time(&mut line)?;
                let mut head = Text(String::new());
                head.json(scope);
                head.0.push_str(",\"message\":");
                head.json(&message);
                writeln!(line, "\",\"scope\":{}{rest}}}", head.0)
            }
        }
    }
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

// === impl Values ===

impl Values {
    /// Adds a value that JSON has a form for, such as a number.
    fn add(&mut self, field: &Field, value: impl Serialize) {
        self.add_key(field);
        self.rest.json(value);
    }

    fn add_key(&mut self, field: &Field) {
        match self.format {
            LogFormat::Plain => self.rest.0.extend([" ", field.name(), "="]),
            LogFormat::Json => {
                self.rest.0.push(',');
                self.rest.json(field.name());
                self.rest.0.push(':');
            }
        }
    }

    /// Adds a value that is shown without quotes in a plain line.
    fn add_shown(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            // Writing to a string cannot fail.
            let _ = write!(self.message, "{value:?}");
            return;
        }
        self.add_key(field);
        let value = format_args!("{value:?}");
        match self.format {
            // Writing to a string cannot fail.
            LogFormat::Plain => drop(write!(Escaped(&mut self.rest.0), "{value}")),
            LogFormat::Json => self.rest.json(value),
        }
    }
}

impl Visit for Values {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.add(field, value);
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add_shown(field, value);
    }
}

// === impl Text ===

impl Text {
    /// Strings, numbers and booleans always have a JSON form.
    fn json(&mut self, value: impl Serialize) {
        // Writing to a string cannot fail.
        let _ = serde_json::to_writer(self, &value);
    }
}

impl io::Write for &mut Text {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.push_str(str::from_utf8(bytes).map_err(io::Error::other)?);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

// === impl Escaped ===

impl<W: Write> Write for Escaped<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut plain = 0;
        for (at, control) in text.match_indices(char::is_control) {
            self.0.write_str(&text[plain..at])?;
            for c in control.chars() {
                write!(self.0, "{}", c.escape_default())?;
            }
            plain = at + control.len();
        }
        self.0.write_str(&text[plain..])
    }
}
