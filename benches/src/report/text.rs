//! The results as text.

use std::fmt;

use super::{ProcessRow, Report, Row};
use crate::{
    baseline::{Quantity, Verdict},
    cli::Effort,
    facts::Facts,
    statistics::Series,
    systems::FAIRLEAD,
    table::{self, number},
};

const LEGEND: &str = "
x/y: ratio of medians. ztunnel: its ratio to the direct path, or its figure where there is no
direct one, on another machine of two cores. aim: what is asked of fairlead, as a ratio to the
direct path, a figure, or what is added to the direct path's (benches/README.md).
";

/// What is in a cell for which there is nothing.
const NOTHING: &str = "-";

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Facts { kernel, processor, processors, memory, load_before, .. } = &self.facts;
        let Effort { repetitions, seconds } = self.effort;
        writeln!(f, "\n{processors} x {processor}, {memory}, Linux {kernel}")?;
        writeln!(f, "{repetitions} x {seconds} s each, median (smallest - largest)")?;
        writeln!(f, "load average before the run: {load_before}\n")?;
        let systems: Vec<&str> = self.systems.iter().map(|system| system.name.as_str()).collect();
        f.write_str(&rows(&systems, &self.rows))?;
        f.write_str(LEGEND)?;
        f.write_str(&processes(&self.processes))
    }
}

fn rows(systems: &[&str], rows: &[Row]) -> String {
    let bases: Vec<&str> = systems.iter().copied().filter(|system| *system != FAIRLEAD).collect();
    let fixed = ["scenario", "span", "figure"].map(str::to_owned);
    let mut heads = fixed.to_vec();
    heads.extend(systems.iter().map(ToString::to_string));
    heads.extend(bases.iter().map(|base| format!("{FAIRLEAD}/{base}")));
    heads.extend(["ztunnel", "aim", "reached"].map(str::to_owned));
    let cells = |row: &Row| {
        let mut cells = vec![row.scenario.to_owned(), row.span.to_string(), row.figure.to_string()];
        let samples = |system: &&str| {
            row.samples.get(*system).map_or_else(|| NOTHING.to_owned(), Series::to_string)
        };
        cells.extend(systems.iter().map(samples));
        cells.extend(bases.iter().map(|base| optional(row.ratio(FAIRLEAD, base))));
        cells.push(optional(row.ztunnel));
        cells.extend(row.aim.map_or_else(|| [NOTHING; 2].map(str::to_owned), verdict));
        cells
    };
    table::render(&heads, &rows.iter().map(cells).collect::<Vec<_>>(), fixed.len())
}

/// Shows the processes that did something.
fn processes(rows: &[ProcessRow]) -> String {
    let worked = |row: &&ProcessRow| row.samples.largest().is_some_and(|largest| largest > 0.0);
    let cells = |row: &ProcessRow| {
        let samples = row.samples.to_string();
        let (figure, system) = (row.figure.to_string(), row.system.clone());
        let process = row.process.clone();
        vec![row.scenario.to_owned(), row.span.to_string(), figure, system, process, samples]
    };
    let cells: Vec<_> = rows.iter().filter(worked).map(cells).collect();
    if cells.is_empty() {
        return String::new();
    }
    let heads = ["scenario", "span", "figure", "system", "process", "each process"];
    format!("\n{}", table::render(&heads.map(str::to_owned), &cells, heads.len() - 1))
}

/// Returns the limit, and whether it is kept.
fn verdict(verdict: Verdict) -> [String; 2] {
    let Verdict { quantity, limit, measured, reached } = verdict;
    let limit = number(limit);
    let limit = match quantity {
        Quantity::Ratio => format!("x{limit} or more"),
        Quantity::Figure => format!("{limit} or less"),
        Quantity::Added => format!("+{limit} or less"),
    };
    [limit, format!("{} ({})", if reached { "yes" } else { "no" }, number(measured))]
}

fn optional(value: Option<f64>) -> String {
    value.map_or_else(|| NOTHING.to_owned(), number)
}

#[cfg(test)]
mod tests {
    use super::super::tests::example;

    #[test]
    fn people_see_medians_ratios_aims_and_the_processes_that_worked() {
        let text = example().to_string();
        let lines: Vec<Vec<&str>> =
            text.lines().map(|line| line.split("  ").map(str::trim).collect()).collect();
        let find = |first: &str, column: &str| {
            let cells = |line: &Vec<&str>| -> Vec<String> {
                line.iter().filter(|cell| !cell.is_empty()).map(ToString::to_string).collect()
            };
            let all = lines.iter().map(cells);
            all.into_iter()
                .find(|l| l.first().is_some_and(|c| c == first) && l.contains(&column.to_owned()))
        };
        assert_eq!(
            find("scenario", "aim").unwrap()[3..],
            [
                "direct",
                "fairlead",
                "before",
                "fairlead/direct",
                "fairlead/before",
                "ztunnel",
                "aim",
                "reached"
            ]
        );
        assert_eq!(
            find("throughput-1", "throughput, Gbit/s").unwrap()[3..],
            [
                "55.0 (50.0 - 60.0)",
                "22.0 (22.0 - 22.0)",
                "11.0 (10.0 - 12.0)",
                "0.40",
                "2.00",
                "0.19",
                "x0.39 or more",
                "yes (0.40)"
            ]
        );
        assert_eq!(
            find("throughput-1", "before").unwrap()[3..],
            ["before", "n1 proxy", "0.50 (0.50 - 0.50)"]
        );
        assert!(!text.contains("n1 idle"), "{text}");
    }
}
