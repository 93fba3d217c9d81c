//! Measures meshed paths against direct ones: same programs, same kind of lab, taking turns.
#![forbid(unsafe_code)]

mod baseline;
mod cli;
mod facts;
mod load;
mod report;
mod rig;
mod sample;
mod scenarios;
mod statistics;
mod systems;
mod table;
mod usage;

use std::{fs, process::ExitCode};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser as _;

use crate::{
    cli::{Cli, Effort},
    facts::Facts,
    report::{Key, Report},
    rig::Rig,
    scenarios::{SCENARIOS, Scenario, Span},
    systems::System,
};

/// A run that goes on when a case fails.
struct Run<'a> {
    cli: &'a Cli,
    systems: &'a [System],
    report: Report,
}

/// What is measured, where, and with which proxies.
type Case<'a> = (&'a Scenario, Span, &'a System);

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without the backtrace that returning it would print: what failed is another program.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    ensure!(!cfg!(debug_assertions), "only figures of an optimised build mean something");
    let selected: Vec<&Scenario> = SCENARIOS.iter().filter(|s| cli.selects(s.name)).collect();
    if selected.is_empty() {
        let names: Vec<_> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        bail!("no scenario has such a name; there are {}", names.join(", "));
    }
    let systems = systems::all(&cli.peer).map_err(anyhow::Error::msg)?;
    let report = Report::new(Facts::collect()?, cli.effort(), &systems);
    let mut run = Run { cli, systems: &systems, report };
    for scenario in selected {
        for span in scenario.spans.iter().filter(|span| cli.span.is_none_or(|only| only == **span))
        {
            run.measure(scenario, *span);
        }
    }
    run.finish()
}

// === impl Run ===

impl Run<'_> {
    /// Takes the figures of one scenario. The systems take turns, so that drift of the machine hits
    /// all of them, and each repetition begins with another one.
    fn measure(&mut self, scenario: &Scenario, span: Span) {
        let mut rigs = Vec::new();
        for system in self.systems {
            if scenario.direct || *system != System::Direct {
                let rig = Rig::new(system, span, &self.cli.fairlead);
                rigs.extend(self.keep((scenario, span, system), rig).map(|rig| (system, rig)));
            }
        }
        for repetition in 1..=self.cli.effort().repetitions {
            // A system that failed is out of the game; the others go on.
            let take_turn = |(system, mut rig): (_, Rig)| {
                let sample = self.sample((scenario, span, system), &mut rig, repetition);
                self.keep((scenario, span, system), sample).map(|()| (system, rig))
            };
            rigs = rigs.into_iter().filter_map(take_turn).collect();
            if !rigs.is_empty() {
                rigs.rotate_left(1);
            }
        }
        for (system, mut rig) in rigs {
            self.keep((scenario, span, system), rig.stop_proxies());
        }
    }

    /// Writes the results, and fails if anything failed.
    fn finish(self) -> Result<()> {
        let Self { cli: Cli { results, .. }, report, .. } = self;
        if let Some(folder) = results.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(results, serde_json::to_string_pretty(&report)?)
            .with_context(|| results.display().to_string())?;
        println!("{report}\nresults with every sample: {}", results.display());
        let failures = report.failures();
        ensure!(failures.is_empty(), "not measured:\n{}", failures.join("\n"));
        Ok(())
    }

    fn sample(&mut self, case: Case<'_>, rig: &mut Rig, repetition: u32) -> Result<()> {
        let (scenario, span, system) = case;
        let Effort { repetitions, .. } = self.cli.effort();
        let sample = (scenario.measure)(rig, self.cli.effort().duration())?;
        let name = format!("{} {span} {system} {repetition}/{repetitions}", scenario.name);
        eprintln!("bench: {name:44} {}", sample.summary());
        self.report.add(Key { scenario: scenario.name, span, system: system.name() }, sample);
        Ok(())
    }

    /// Returns what succeeded, and notes what failed.
    fn keep<T>(&mut self, (scenario, span, system): Case<'_>, result: Result<T>) -> Option<T> {
        let note = |error| {
            let failure = format!("{} {span} {system}: {error:#}", scenario.name);
            eprintln!("bench: {failure}");
            self.report.add_failure(failure);
        };
        result.map_err(note).ok()
    }
}
