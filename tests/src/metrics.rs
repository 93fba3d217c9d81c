//! Metrics in Prometheus' text format.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};

/// One time series and its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// Name, with suffixes such as `_total`.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Value.
    pub value: f64,
}

/// A page of metrics.
#[derive(Clone, Debug, PartialEq)]
pub struct Metrics(Vec<Metric>);

// === impl Metrics ===

impl Metrics {
    pub(crate) fn parse(page: &str) -> Result<Self> {
        page.lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(|line| Metric::parse(line).with_context(|| format!("malformed metric: {line}")))
            .collect::<Result<_>>()
            .map(Self)
    }

    /// Returns the metrics called `name` that have all of `labels`.
    pub fn matching<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = &'a Metric> {
        self.0.iter().filter(move |metric| metric.name == name && metric.has(labels))
    }

    /// Returns the sum of the metrics called `name` that have all of `labels`.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).map(|metric| metric.value).sum()
    }

    /// Returns all metrics, in the order of the page.
    pub fn all(&self) -> &[Metric] {
        &self.0
    }
}

// === impl Metric ===

impl Metric {
    fn parse(line: &str) -> Option<Self> {
        let name_end = line.find(['{', ' '])?;
        let (name, rest) = line.split_at(name_end);
        let (labels, rest) = match rest.strip_prefix('{') {
            Some(rest) => parse_labels(rest)?,
            None => (BTreeMap::new(), rest),
        };
        let value = rest.split_whitespace().next()?.parse().ok()?;
        Some(Self { name: name.to_owned(), labels, value })
    }

    fn has(&self, labels: &[(&str, &str)]) -> bool {
        labels.iter().all(|(key, value)| self.labels.get(*key).is_some_and(|own| own == value))
    }
}

/// Parses `key="value",...}` and returns what follows it.
fn parse_labels(mut text: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        text = text.trim_start_matches(',');
        if let Some(rest) = text.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (key, rest) = text.split_once("=\"")?;
        let (value, rest) = parse_value(rest)?;
        labels.insert(key.to_owned(), value);
        text = rest;
    }
}

/// Parses a label's value, with its escapes, up to the closing quote.
fn parse_value(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((position, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[position + 1..])),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                escaped => escaped,
            }),
            plain => value.push(plain),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_summed_over_matching_labels() {
        let page = "# HELP a_total x\n# TYPE a_total counter\n\
            a_total{reporter=\"source\",who=\"x\"} 2\n\
            a_total{reporter=\"source\",who=\"y,}\\\"\\n\"} 3.5 1700000000\n\
            a_total{reporter=\"destination\"} 7\nup 1\nempty{} 4\n# EOF\n";
        let metrics = Metrics::parse(page).unwrap();
        assert!((metrics.sum("a_total", &[("reporter", "source")]) - 5.5).abs() < 1e-9);
        assert!((metrics.sum("a_total", &[("who", "y,}\"\n")]) - 3.5).abs() < 1e-9);
        assert!((metrics.sum("empty", &[]) - 4.0).abs() < 1e-9);
        assert!(metrics.sum("absent", &[]).abs() < 1e-9);
        assert_eq!(metrics.all().len(), 5);
    }

    #[test]
    fn malformed_lines_are_errors() {
        for bad in ["a", "a{", "a{b}", "a{b=\"c} 1", "a{b=\"c\"}", "a x"] {
            assert!(Metrics::parse(bad).is_err(), "{bad}");
        }
    }
}
