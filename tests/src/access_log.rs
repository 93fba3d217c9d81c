//! Access-log lines of the proxy, found among its other log lines.

use serde_json::{Map, Value};

/// Log target of the lines about connections.
const ACCESS: &str = "access";

/// One line about one connection.
#[derive(Clone, Debug, PartialEq)]
pub struct AccessLine(Map<String, Value>);

// === impl AccessLine ===

impl AccessLine {
    /// Returns the access-log lines in `log`, one JSON object per line.
    pub(crate) fn all_in(log: &str) -> Vec<Self> {
        log.lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .filter_map(Self::of)
            .collect()
    }

    fn of(value: Value) -> Option<Self> {
        let Value::Object(line) = value else {
            return None;
        };
        let is_access = |key| line.get(key).is_some_and(|name| name == ACCESS);
        (is_access("target") || is_access("scope")).then_some(Self(line))
    }

    /// Returns the value of `key`, such as `src.identity`, as text.
    pub fn get(&self, key: &str) -> Option<String> {
        let nested = || self.0.get("fields").and_then(|fields| fields.get(key));
        let value = self.0.get(key).or_else(nested)?;
        Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    }

    /// Returns whether `key` has the value `text`.
    pub fn is(&self, key: &str, text: &str) -> bool {
        self.get(key).is_some_and(|value| value == text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_lines_are_told_from_others() {
        let log = r#"starting
{"level":"info","scope":"proxy","message":"ready"}
{"level":"info","scope":"access","src.addr":"10.1.0.2:1","bytes_sent":5}
{"level":"INFO","target":"access","fields":{"direction":"inbound"}}
["access"]
{"scope":"access""#;
        let lines = AccessLine::all_in(log);
        assert_eq!(lines.len(), 2);
        assert!(lines[0].is("src.addr", "10.1.0.2:1"));
        assert!(lines[0].is("bytes_sent", "5"));
        assert!(lines[1].is("direction", "inbound"));
        assert_eq!(lines[1].get("bytes_sent"), None);
    }
}
