//! The form of a log line. Values come from peers and configuration, so control characters are
//! escaped: no value can start a second line.

use std::fmt;

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

use super::LogFormat;

/// Formats events as lines; spans are not shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lines(pub(super) LogFormat);

/// The values of one event.
struct Values {
    format: LogFormat,
    message: String,
    /// Everything else, formatted, with a separator before each.
    rest: String,
}

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
        let mut values = Values { format: self.0, message: String::new(), rest: String::new() };
        event.record(&mut values);
        let Values { message, rest, .. } = values;
        let level = level_name(*event.metadata().level());
        let scope = event.metadata().target();
        match self.0 {
            LogFormat::Plain => {
                SystemTime.format_time(&mut line)?;
                write!(line, "\t{level}\t{scope}\t{}", escaped(&message))?;
                if !rest.is_empty() {
                    write!(line, "\t{}", rest.trim_start())?;
                }
                writeln!(line)
            }
            LogFormat::Json => {
                write!(line, "{{\"level\":\"{level}\",\"time\":\"")?;
                SystemTime.format_time(&mut line)?;
                let (scope, message) = (json(scope), json(&message));
                writeln!(line, "\",\"scope\":{scope},\"message\":{message}{rest}}}")
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
        let (key, value) = (field.name(), json(value));
        match self.format {
            LogFormat::Plain => self.rest.extend([" ", key, "=", &value]),
            LogFormat::Json => self.rest.extend([",", &json(key), ":", &value]),
        }
    }

    /// Adds a value that is shown without quotes in a plain line.
    fn add_shown(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let value = format!("{value:?}");
        match self.format {
            LogFormat::Plain if field.name() != "message" => {
                self.rest.extend([" ", field.name(), "=", &escaped(&value)]);
            }
            LogFormat::Json if field.name() != "message" => self.add(field, value),
            LogFormat::Plain | LogFormat::Json => self.message = value,
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

/// Strings, numbers and booleans always have a JSON form.
fn json(value: impl Serialize) -> String {
    serde_json::to_string(&value).unwrap_or_default()
}

/// Writes control characters as escape sequences.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}
