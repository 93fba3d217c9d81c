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
    cli::Cli,
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
    /// all of them.
    fn measure(&mut self, scenario: &Scenario, span: Span) {
        let takes_part = |system: &&System| scenario.direct || **system != System::Direct;
        let mut systems: Vec<&System> = self.systems.iter().filter(takes_part).collect();
        for repetition in 0..self.cli.effort().repetitions {
            for system in in_turn(&systems, repetition) {
                let Err(error) = self.sample(scenario, span, system, repetition) else { continue };
                let failure = format!("{} {span} {system}: {error:#}", scenario.name);
                eprintln!("bench: {failure}");
                self.report.add_failure(failure);
                // It is out: what it will not do for a minute now, it would not do next time either.
                systems.retain(|other| *other != system);
            }
        }
    }

    fn sample(
        &mut self,
        scenario: &Scenario,
        span: Span,
        system: &System,
        repetition: u32,
    ) -> Result<()> {
        let effort = self.cli.effort();
        let mut rig = Rig::new(system, span, &self.cli.fairlead)?;
        // What the measurement before left to write, such as access logs, is not this one's load.
        nix::unistd::sync();
        let sample = (scenario.measure)(&mut rig, effort.duration())?;
        rig.stop_proxies()?;
        let name =
            format!("{} {span} {system} {}/{}", scenario.name, repetition + 1, effort.repetitions);
        eprintln!("bench: {name:44} {}", sample.summary());
        self.report.add(Key { scenario: scenario.name, span, system: system.name() }, sample);
        Ok(())
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
}

/// Returns who measures when: everyone is first at times, and follows every other at times, for what
/// one leaves on the machine is then not always the same one's loss.
fn in_turn<'a>(systems: &[&'a System], repetition: u32) -> Vec<&'a System> {
    let mut order = systems.to_vec();
    let step = repetition as usize / 2 % order.len().max(1);
    order.rotate_left(step);
    if !repetition.is_multiple_of(2) {
        order.reverse();
    }
    order
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn everyone_is_first_at_times_and_follows_every_other() {
        let peers = ["a=x".parse().unwrap()];
        let all = systems::all(&peers).unwrap();
        for count in 1..=all.len() {
            let systems: Vec<&System> = all.iter().take(count).collect();
            let orders: Vec<_> = (0..6).map(|repetition| in_turn(&systems, repetition)).collect();
            let first: HashSet<_> = orders.iter().map(|order| order[0].name()).collect();
            assert_eq!(first.len(), count);
            let pairs = orders.iter().flat_map(|order| order.windows(2));
            let pairs: HashSet<_> = pairs.map(|pair| (pair[0].name(), pair[1].name())).collect();
            assert_eq!(pairs.len(), count * (count - 1));
        }
        assert!(in_turn(&[], 3).is_empty());
    }
}
