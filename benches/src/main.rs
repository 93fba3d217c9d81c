//! Measures meshed paths against direct ones: same lab, same programs, taking turns in one run.
#![forbid(unsafe_code)]

mod baseline;
mod facts;
mod load;
mod report;
mod rig;
mod scenarios;
mod table;

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;

use crate::{
    facts::Facts,
    report::Report,
    rig::Rig,
    scenarios::{SCENARIOS, Scenario},
};

/// Runs the whole-system benchmarks; `cargo xtask bench` builds what they need and calls this.
#[derive(Debug, Parser)]
struct Cli {
    /// Takes each figure once and briefly: for trying, not for comparing.
    #[arg(long)]
    quick: bool,
    /// Runs only scenarios with this in their name; may be given several times.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Where the results go, as JSON.
    #[arg(long, value_name = "FILE")]
    results: PathBuf,
}

/// How often and how long each figure is taken.
#[derive(Clone, Copy, Debug, serde::Serialize)]
struct Effort {
    repetitions: usize,
    seconds: u64,
}

/// Enough for a median and a spread, within ten minutes.
const FULL: Effort = Effort { repetitions: 3, seconds: 4 };

/// Enough to see that everything works, within two minutes.
const QUICK: Effort = Effort { repetitions: 1, seconds: 1 };

fn main() -> Result<()> {
    let cli = Cli::parse();
    ensure!(!cfg!(debug_assertions), "only figures of an optimised build mean something");
    let selected: Vec<&Scenario> = SCENARIOS.iter().filter(|s| cli.selects(s)).collect();
    if selected.is_empty() {
        let names: Vec<_> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        bail!("no scenario has such a name; there are {}", names.join(", "));
    }
    let effort = if cli.quick { QUICK } else { FULL };
    let mut report = Report::new(Facts::collect()?, effort);
    let mut rig = Rig::new(&selected)?;
    let mut failures = Vec::new();
    for scenario in selected {
        if let Err(error) = measure(scenario, &mut rig, effort, &mut report) {
            failures.push(format!("{}: {error:#}", scenario.name));
        }
    }
    if let Some(folder) = cli.results.parent() {
        fs::create_dir_all(folder)?;
    }
    let json = serde_json::to_string_pretty(&report)?;
    fs::write(&cli.results, json).with_context(|| cli.results.display().to_string())?;
    println!("{report}\nresults with every sample: {}", cli.results.display());
    ensure!(failures.is_empty(), "failed:\n{}", failures.join("\n"));
    Ok(())
}

/// Takes the figures of one scenario; the routes take turns, so that drift hits both.
fn measure(scenario: &Scenario, rig: &mut Rig, effort: Effort, report: &mut Report) -> Result<()> {
    let repetitions = if scenario.once { 1 } else { effort.repetitions };
    for span in scenario.spans {
        for repetition in 1..=repetitions {
            for route in scenario.routes {
                let case =
                    rig.case(scenario, *span, *route, Duration::from_secs(effort.seconds))?;
                let sample = (scenario.measure)(rig, &case)?;
                let name = format!("{} {span} {route} {repetition}/{repetitions}", scenario.name);
                eprintln!("bench: {name:38} {}", sample.summary());
                report.add(scenario.name, *span, *route, sample);
            }
        }
    }
    Ok(())
}

// === impl Cli ===

impl Cli {
    fn selects(&self, scenario: &Scenario) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| scenario.name.contains(part.as_str()))
    }
}
