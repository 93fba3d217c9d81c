//! The results of a run: every sample for programs, tables for people.

mod text;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    baseline::{Reference, Verdict, reference},
    cli::Effort,
    facts::Facts,
    sample::{Figure, Sample},
    scenarios::Span,
    statistics::Series,
    systems::{DIRECT, FAIRLEAD, System},
};

/// All results of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    facts: Facts,
    effort: Effort,
    /// The systems that were compared, with the adapters of the peers.
    systems: Vec<Compared>,
    rows: Vec<Row>,
    processes: Vec<ProcessRow>,
    /// What could not be measured, and why.
    failures: Vec<Failure>,
}

/// What a sample was taken from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key<'a> {
    pub(crate) scenario: &'static str,
    pub(crate) span: Span,
    pub(crate) system: &'a str,
}

#[derive(Debug, Serialize)]
struct Compared {
    name: String,
    adapter: Option<String>,
}

/// One figure of one scenario.
#[derive(Debug, Serialize)]
struct Row {
    scenario: &'static str,
    span: Span,
    figure: Figure,
    /// Samples by system.
    samples: BTreeMap<String, Series>,
    /// ztunnel's ratio to the direct path, or its figure where there is no direct one.
    ztunnel: Option<f64>,
    aim: Option<Verdict>,
}

/// One figure of one kind of process.
#[derive(Debug, Serialize)]
struct ProcessRow {
    scenario: &'static str,
    span: Span,
    system: String,
    process: String,
    figure: Figure,
    samples: Series,
}

/// A system that did not take part in a scenario to its end.
#[derive(Debug, Serialize)]
struct Failure {
    scenario: &'static str,
    span: Span,
    system: String,
    reason: String,
}

// === impl Report ===

impl Report {
    pub(crate) fn new(facts: Facts, effort: Effort, systems: &[System]) -> Self {
        let systems = systems.iter().map(Compared::of).collect();
        let (rows, processes, failures) = (Vec::new(), Vec::new(), Vec::new());
        Self { facts, effort, systems, rows, processes, failures }
    }

    /// Adds what one measurement found.
    pub(crate) fn add(&mut self, key: Key<'_>, sample: Sample) {
        for (figure, value) in sample.figures {
            let row = self.row(key, figure);
            row.samples.entry(key.system.to_owned()).or_default().push(value);
            row.compare();
        }
        for (process, figure, value) in sample.processes {
            self.process_row(key, process, figure).samples.push(value);
        }
    }

    /// Adds what could not be measured.
    pub(crate) fn add_failure(&mut self, key: Key<'_>, reason: String) {
        let Key { scenario, span, system } = key;
        self.failures.push(Failure { scenario, span, system: system.to_owned(), reason });
    }

    /// Names what could not be measured.
    pub(crate) fn failures(&self) -> Vec<String> {
        let name = |f: &Failure| format!("{} {} {}", f.scenario, f.span, f.system);
        self.failures.iter().map(name).collect()
    }

    fn row(&mut self, Key { scenario, span, .. }: Key<'_>, figure: Figure) -> &mut Row {
        let is_it = |r: &Row| r.scenario == scenario && r.span == span && r.figure == figure;
        let index = self.rows.iter().position(is_it).unwrap_or_else(|| {
            let (samples, ztunnel, aim) = (BTreeMap::new(), None, None);
            self.rows.push(Row { scenario, span, figure, samples, ztunnel, aim });
            self.rows.len() - 1
        });
        &mut self.rows[index]
    }

    fn process_row(&mut self, key: Key<'_>, process: String, figure: Figure) -> &mut ProcessRow {
        let Key { scenario, span, system } = key;
        let is_it = |r: &ProcessRow| {
            let same_case = r.scenario == scenario && r.span == span && r.system == system;
            same_case && r.process == process && r.figure == figure
        };
        let index = self.processes.iter().position(is_it).unwrap_or_else(|| {
            let (system, samples) = (system.to_owned(), Series::default());
            self.processes.push(ProcessRow { scenario, span, system, process, figure, samples });
            self.processes.len() - 1
        });
        &mut self.processes[index]
    }
}

// === impl Key ===

impl Key<'_> {
    /// Names one repetition, counted from 0.
    pub(crate) fn numbered(&self, repetition: u32) -> String {
        format!("{} {} {} {}", self.scenario, self.span, self.system, repetition + 1)
    }
}

// === impl Compared ===

impl Compared {
    fn of(system: &System) -> Self {
        let adapter = match system {
            System::Direct | System::Fairlead => None,
            System::Peer(peer) => Some(peer.command.clone()),
        };
        Self { name: system.to_string(), adapter }
    }
}

// === impl Row ===

impl Row {
    fn median(&self, system: &str) -> Option<f64> {
        self.samples.get(system).and_then(Series::median)
    }

    /// Returns the ratio of two systems' medians.
    fn ratio(&self, system: &str, to: &str) -> Option<f64> {
        let (value, base) = (self.median(system)?, self.median(to)?);
        (base != 0.0).then(|| value / base)
    }

    fn compare(&mut self) {
        let reference = reference(self.scenario, self.span, self.figure.name);
        self.ztunnel = reference.map(Reference::ztunnel);
        self.aim = reference
            .zip(self.median(FAIRLEAD))
            .and_then(|(reference, fairlead)| reference.verdict(self.median(DIRECT), fairlead));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A run with a peer: two samples of each system.
    pub(super) fn example() -> Report {
        let systems = crate::systems::all(&["before=adapter.sh old".parse().unwrap()]).unwrap();
        let effort = Effort { repetitions: 2, seconds: 4 };
        let mut report = Report::new(Facts::default(), effort, &systems);
        for (system, samples) in
            [("direct", [50.0, 60.0]), ("fairlead", [22.0, 22.0]), ("before", [10.0, 12.0])]
        {
            for value in samples {
                let mut sample = Sample::default();
                sample.add("throughput", "Gbit/s", value);
                if system != "direct" {
                    sample.add_of("n1 proxy".to_owned(), "CPU of the proxies", "s/GiB", 0.5);
                    sample.add_of("n1 idle".to_owned(), "CPU of the proxies", "s/GiB", 0.0);
                }
                report.add(Key { scenario: "throughput-1", span: Span::Cross, system }, sample);
            }
        }
        report
    }

    #[test]
    fn programs_find_samples_and_aims_under_fixed_names() {
        let mut report = example();
        let key = Key { scenario: "memory", span: Span::Same, system: "before" };
        report.add_failure(key, "no descriptors".to_owned());
        assert_eq!(report.failures(), ["memory same before"]);
        let json = serde_json::to_value(report).unwrap();
        let at = |path: &str| json.pointer(path).cloned().unwrap_or(Value::Null);
        assert_eq!(at("/effort"), json!({ "repetitions": 2, "seconds": 4 }));
        assert_eq!(
            at("/systems"),
            json!([
                { "name": "direct", "adapter": null },
                { "name": "fairlead", "adapter": null },
                { "name": "before", "adapter": "adapter.sh old" },
            ])
        );
        assert_eq!(at("/rows/0/scenario"), "throughput-1");
        assert_eq!(at("/rows/0/span"), "cross");
        assert_eq!(at("/rows/0/figure"), json!({ "name": "throughput", "unit": "Gbit/s" }));
        assert_eq!(at("/rows/0/samples/before/samples"), json!([10.0, 12.0]));
        assert_eq!(at("/rows/0/samples/before/median"), 11.0);
        assert_eq!(at("/rows/0/aim/quantity"), "ratio");
        assert_eq!(at("/rows/0/aim/measured"), 0.4);
        assert_eq!(at("/rows/0/aim/reached"), true);
        assert_eq!(at("/processes/0/system"), "fairlead");
        assert_eq!(at("/processes/0/process"), "n1 proxy");
        assert_eq!(at("/processes/0/samples/median"), 0.5);
        assert_eq!(at("/failures/0/system"), "before");
        assert_eq!(at("/failures/0/reason"), "no descriptors");
    }

    #[test]
    fn there_is_no_ratio_without_both_systems() {
        let report = example();
        let row = &report.rows[0];
        assert_eq!(row.ratio("fairlead", "before"), Some(2.0));
        assert_eq!(row.ratio("fairlead", "absent"), None);
    }
}
