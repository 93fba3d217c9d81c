//! The results: every sample for programs, medians and ratios for people.

use std::fmt;

use serde::Serialize;

use crate::{
    Effort,
    baseline::ztunnel,
    facts::Facts,
    scenarios::{Figure, Route, Sample, Span},
    table::{self, number},
};

/// All results of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    facts: Facts,
    effort: Effort,
    rows: Vec<Row>,
}

/// One figure of one scenario.
#[derive(Debug, Serialize)]
struct Row {
    scenario: &'static str,
    span: Span,
    figure: Figure,
    direct: Vec<f64>,
    meshed: Vec<f64>,
}

// === impl Report ===

impl Report {
    pub(crate) fn new(facts: Facts, effort: Effort) -> Self {
        Self { facts, effort, rows: Vec::new() }
    }

    /// Adds what one measurement found.
    pub(crate) fn add(&mut self, scenario: &'static str, span: Span, route: Route, sample: Sample) {
        for (figure, value) in sample.0 {
            let row = self.row(scenario, span, figure);
            match route {
                Route::Direct => row.direct.push(value),
                Route::Meshed => row.meshed.push(value),
            }
        }
    }

    fn row(&mut self, scenario: &'static str, span: Span, figure: Figure) -> &mut Row {
        let is_it =
            |row: &Row| row.scenario == scenario && row.span == span && row.figure == figure;
        let index = self.rows.iter().position(is_it).unwrap_or_else(|| {
            let (direct, meshed) = (Vec::new(), Vec::new());
            self.rows.push(Row { scenario, span, figure, direct, meshed });
            self.rows.len() - 1
        });
        &mut self.rows[index]
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Facts { kernel, processor, processors, memory, load_before, .. } = &self.facts;
        let Effort { repetitions, seconds } = self.effort;
        writeln!(f, "\n{processors} x {processor}, {memory}, Linux {kernel}")?;
        writeln!(f, "{repetitions} x {seconds} s each, median (smallest - largest)")?;
        writeln!(f, "load average before the run: {load_before}\n")?;
        let heads = ["scenario", "span", "figure", "direct", "meshed", "ratio", "ztunnel"];
        let lines = self.rows.iter().map(Row::cells).collect::<Vec<_>>();
        f.write_str(&table::render(&heads.map(str::to_owned), &lines))?;
        writeln!(
            f,
            "\nratio: meshed / direct. ztunnel: its ratio, or its figure where there is no"
        )?;
        f.write_str("direct one, on another machine of two cores (benches/README.md).")
    }
}

// === impl Row ===

impl Row {
    fn cells(&self) -> [String; 7] {
        let Figure { name, unit } = self.figure;
        let ratio = median(&self.meshed).zip(median(&self.direct)).map(|(m, d)| m / d);
        let reference = ztunnel(self.scenario, self.span, name);
        let optional = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), number);
        [
            self.scenario.to_owned(),
            self.span.to_string(),
            format!("{name}, {unit}"),
            spread(&self.direct),
            spread(&self.meshed),
            optional(ratio),
            optional(reference),
        ]
    }
}

fn spread(samples: &[f64]) -> String {
    let smallest = samples.iter().copied().reduce(f64::min);
    let largest = samples.iter().copied().reduce(f64::max);
    match (median(samples), smallest.zip(largest)) {
        (Some(median), Some((smallest, largest))) if samples.len() > 1 => {
            format!("{} ({} - {})", number(median), number(smallest), number(largest))
        }
        (Some(median), _) => number(median),
        (None, _) => "-".to_owned(),
    }
}

fn median(samples: &[f64]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    if sorted.len() % 2 == 1 { Some(upper) } else { Some(f64::midpoint(sorted[middle - 1], upper)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0]), Some(2.5));
    }

    #[test]
    fn a_spread_shows_what_one_sample_cannot() {
        assert_eq!(spread(&[]), "-");
        assert_eq!(spread(&[12.34]), "12.3");
        assert_eq!(spread(&[1_000.0, 3_000.0, 2_000.0]), "2,000 (1,000 - 3,000)");
    }
}
