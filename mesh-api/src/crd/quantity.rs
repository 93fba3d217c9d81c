//! Times and numbers as they are written.

use std::{fmt, time::Duration};

use serde::{Deserialize, Deserializer, de};

/// A time, written as `1h30m`, `0.5s` or `300ms`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub Duration);

/// A number with a fraction, of which equal ones are the same.
#[derive(Clone, Copy, Debug, Default)]
pub struct Decimal(pub f64);

/// Units of times, with how many nanoseconds they have; those that end like others come first.
const UNITS: [(&str, f64); 7] =
    [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9), ("h", 3600e9)];

/// Longest time that is read, in seconds: what a protobuf duration holds.
const MAX_SECONDS: f64 = 315_576_000_000.0;

// === impl Time ===

impl Time {
    /// Reads a time.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "0" {
            return Some(Self::default());
        }
        let mut rest = text;
        let mut nanoseconds = 0.0;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
            let (number, after) = rest.split_at(digits);
            let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
            let (unit, after) = after.split_at(end);
            let (_, scale) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
            nanoseconds += number.parse::<f64>().ok()? * scale;
            rest = after;
        }
        let seconds = nanoseconds / 1e9;
        let valid = !text.is_empty() && seconds <= MAX_SECONDS;
        // Rounded, as a sum of fractions is not exact.
        let rounded = || Duration::try_from_secs_f64((seconds * 1e6).round() / 1e6).ok();
        valid.then(rounded)?.map(Self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            let text = text.escape_debug();
            de::Error::custom(format!(
                "\"{text}\" is not a time: use one such as 1h, 2m, 0.5s or 300ms"
            ))
        })
    }
}

// === impl Decimal ===

impl PartialEq for Decimal {
    fn eq(&self, other: &Self) -> bool {
        self.0.total_cmp(&other.0).is_eq()
    }
}

impl Eq for Decimal {}

impl<'de> Deserialize<'de> for Decimal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        f64::deserialize(deserializer).map(Self)
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_go_writes_them() {
        let cases = [
            ("0.5s", Some(500)),
            ("300ms", Some(300)),
            ("1h2m3.5s", Some(3_723_500)),
            (".5m", Some(30_000)),
            ("0", Some(0)),
            ("0s", Some(0)),
            ("1500us", None),
            ("", None),
            ("5", None),
            ("s", None),
            ("-1s", None),
            ("1d", None),
            ("1 s", None),
            ("1.2.3s", None),
            ("99999999999999999h", None),
        ];
        for (text, milliseconds) in cases {
            let read = Time::parse(text).filter(|Time(time)| time.subsec_micros() % 1000 == 0);
            assert_eq!(read, milliseconds.map(|ms| Time(Duration::from_millis(ms))), "{text}");
        }
        assert_eq!(Time::parse("1500us"), Some(Time(Duration::from_micros(1500))));
    }
}
