//! What a profile says at a glance, for a terminal.

use std::{
    collections::{HashMap, HashSet},
    fmt,
};

use super::pprof::{Profile, Sample};

/// Functions that are listed.
const LISTED: usize = 20;

/// Stands for a function that is not known.
const UNKNOWN: &str = "?";

/// Separates what encloses from what is enclosed, in folded stacks.
const SEPARATOR: &str = ";";

/// The functions of a profile that count most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    what: String,
    unit: String,
    total: i64,
    rows: Vec<Row>,
    remarks: Vec<String>,
}

/// A function, with what is its own and what is below it, too.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    own: i64,
    all: i64,
    function: String,
}

// === impl Summary ===

impl Summary {
    /// Summarises a profile by the value that it is to be shown by first.
    pub fn of(profile: &Profile) -> Self {
        let shown = shown(profile);
        let mut functions: HashMap<&str, Row> = HashMap::new();
        let mut total = 0_i64;
        for (sample, stack) in stacks(profile) {
            let value = sample.value.get(shown).copied().unwrap_or_default();
            total = total.saturating_add(value);
            let mut seen = HashSet::new();
            for (depth, name) in stack.into_iter().enumerate() {
                let row = functions.entry(name).or_insert_with(|| Row {
                    own: 0,
                    all: 0,
                    function: name.to_owned(),
                });
                if depth == 0 {
                    row.own = row.own.saturating_add(value);
                }
                if seen.insert(name) {
                    row.all = row.all.saturating_add(value);
                }
            }
        }
        let mut rows: Vec<_> = functions.into_values().filter(|row| row.all > 0).collect();
        rows.sort_by(|a, b| (b.own, b.all, &a.function).cmp(&(a.own, a.all, &b.function)));
        rows.truncate(LISTED);
        let value_type = profile.sample_type.get(shown).copied().unwrap_or_default();
        Self {
            what: profile.text(value_type.r#type).to_owned(),
            unit: profile.text(value_type.unit).to_owned(),
            total,
            rows,
            remarks: profile.comment.iter().map(|at| profile.text(*at).to_owned()).collect(),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, unit, total, rows, remarks } = self;
        writeln!(f, "{what}: {}", amount(*total, unit))?;
        for remark in remarks {
            writeln!(f, "{remark}")?;
        }
        if !rows.is_empty() {
            writeln!(f, "{:>10} {:>6}  {:>10} {:>6}  FUNCTION", "OWN", "", "WITH BELOW", "")?;
        }
        for Row { own, all, function } in rows {
            let [own_share, all_share] = [own, all].map(|part| share(*part, *total));
            let [own, all] = [own, all].map(|part| amount(*part, unit));
            writeln!(f, "{own:>10} {own_share:>6}  {all:>10} {all_share:>6}  {function}")?;
        }
        Ok(())
    }
}

/// Returns the stacks as flame graphs want them, one a line: functions from the outermost, and the
/// value that is shown first.
pub fn folded(profile: &Profile) -> String {
    let shown = shown(profile);
    let mut lines: HashMap<String, i64> = HashMap::new();
    for (sample, mut stack) in stacks(profile) {
        stack.reverse();
        let value = sample.value.get(shown).copied().unwrap_or_default();
        if value > 0 {
            let line = lines.entry(stack.join(SEPARATOR)).or_default();
            *line = line.saturating_add(value);
        }
    }
    let mut lines: Vec<_> = lines.into_iter().map(|(stack, n)| format!("{stack} {n}\n")).collect();
    lines.sort_unstable();
    lines.concat()
}

/// Returns the samples with the functions of their stacks, innermost first.
fn stacks(profile: &Profile) -> impl Iterator<Item = (&Sample, Vec<&str>)> {
    let functions: HashMap<_, _> = profile
        .function
        .iter()
        .map(|function| (function.id, profile.text(function.name)))
        .collect();
    let locations: HashMap<_, _> = profile.location.iter().map(|l| (l.id, l)).collect();
    profile.sample.iter().map(move |sample| {
        let name = |id: &u64| {
            let line = locations.get(id).and_then(|location| location.line.first());
            line.and_then(|line| functions.get(&line.function_id).copied()).unwrap_or(UNKNOWN)
        };
        (sample, sample.location_id.iter().map(name).collect())
    })
}

/// Returns which value is to be shown first.
fn shown(profile: &Profile) -> usize {
    let is_default = |t: &super::pprof::ValueType| t.r#type == profile.default_sample_type;
    profile.sample_type.iter().position(is_default).unwrap_or_default()
}

#[expect(clippy::cast_precision_loss, reason = "for the eye, with one decimal")]
fn amount(value: i64, unit: &str) -> String {
    let value = value as f64;
    match unit {
        "nanoseconds" => format!("{:.2} s", value / 1e9),
        "bytes" if value >= 1e6 => format!("{:.1} MB", value / 1e6),
        "bytes" => format!("{:.1} kB", value / 1e3),
        _ => format!("{value}"),
    }
}

#[expect(clippy::cast_precision_loss, reason = "for the eye, with one decimal")]
fn share(part: i64, total: i64) -> String {
    if total == 0 { String::new() } else { format!("{:.1}%", part as f64 * 100.0 / total as f64) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{
        mappings,
        pprof::{Builder, Frame},
    };

    fn profile() -> Profile {
        let maps = mappings::parse("1000-2000 r-xp 00000000 fe:01 7 /usr/bin/proxy");
        let mut builder = Builder::new(&[("samples", "count"), ("cpu", "nanoseconds")]);
        builder.period(("cpu", "nanoseconds"), 10);
        builder.remark("3 samples were lost");
        let frame = |address: u64| Frame {
            address,
            mapping: mappings::find(&maps, address),
            function: match address {
                0x1001 | 0x1002 => Some("outer"),
                0x1003 => Some("inner"),
                _ => None,
            },
        };
        let seconds = |n: i64| n * 1_000_000_000;
        builder.sample([0x1003, 0x1001].map(frame), vec![1, seconds(1)]);
        // Recursion counts once; two addresses of one function are one.
        builder.sample([0x1003, 0x1002, 0x1001].map(frame), vec![2, seconds(2)]);
        builder.sample([0x1001].map(frame), vec![1, seconds(1)]);
        builder.sample([0x9000, 0x1002].map(frame), vec![1, 0]);
        builder.finish()
    }

    #[test]
    fn a_profile_is_read_as_it_was_written() {
        let profile = profile();
        assert_eq!(profile.string_table[0], "");
        assert_eq!(profile.location.len(), 4, "an address is there once");
        assert_eq!((profile.function.len(), profile.mapping.len()), (2, 1));
        assert_eq!(profile.text(profile.mapping[0].filename), "/usr/bin/proxy");
        assert_eq!(profile.text(profile.default_sample_type), "cpu");
        assert_eq!((profile.text(-1), profile.text(i64::MAX)), ("", ""));
        let bytes = profile.compressed().unwrap();
        assert_eq!(bytes[..2], [0x1f, 0x8b]);
        assert_eq!(Profile::read(&bytes).unwrap(), profile);
        for broken in [&bytes[..bytes.len() / 2], b"no profile", b""] {
            assert!(Profile::read(broken).is_err());
        }
    }

    #[test]
    fn functions_are_listed_by_what_is_their_own() {
        let shown = Summary::of(&profile()).to_string();
        let lines: Vec<_> =
            shown.lines().map(|l| l.split_whitespace().collect::<Vec<_>>()).collect();
        assert_eq!(lines[0], ["cpu:", "4.00", "s"]);
        assert_eq!(lines[1].join(" "), "3 samples were lost");
        assert_eq!(lines[3], ["3.00", "s", "75.0%", "3.00", "s", "75.0%", "inner"]);
        assert_eq!(lines[4], ["1.00", "s", "25.0%", "4.00", "s", "100.0%", "outer"]);
        assert_eq!(lines.len(), 5);
        let empty = Summary::of(&Builder::new(&[("cpu", "nanoseconds")]).finish()).to_string();
        assert_eq!(empty, "cpu: 0.00 s\n");
    }

    #[test]
    fn folded_stacks_begin_at_the_outermost_function() {
        let lines = ["outer 1000000000", "outer;inner 1000000000", "outer;outer;inner 2000000000"];
        assert_eq!(folded(&profile()), lines.map(|line| line.to_owned() + "\n").concat());
    }
}
