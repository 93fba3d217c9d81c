//! Measures meshed paths against direct ones: same programs, same kind of lab, taking turns.
#![forbid(unsafe_code)]

mod baseline;
mod calls;
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
mod waypoint;

use std::{fs, process::ExitCode};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser as _;

use crate::{
    calls::CallCounter,
    cli::Cli,
    facts::Facts,
    report::{Key, Report},
    rig::Rig,
    sample::Sample,
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
    if cli.only.iter().any(|name| name == waypoint::NAME) {
        waypoint::run(cli)?;
        if cli.only.len() == 1 {
            return Ok(());
        }
    }
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
        let takes_part = |system: &&System| match (scenario.direct, self.cli.calls) {
            (true, false) => true,
            (true, true) | (false, false) => **system != System::Direct,
            // Calls are counted for traffic, not for the ends and starts of processes.
            (false, true) => false,
        };
        let mut systems: Vec<&System> = self.systems.iter().filter(takes_part).collect();
        for repetition in 0..self.cli.effort().repetitions {
            for system in in_turn(&systems, repetition) {
                let key = Key { scenario: scenario.name, span, system: system.name() };
                match self.sample(scenario, span, system) {
                    Ok(sample) => {
                        eprintln!("bench: {:44} {}", key.numbered(repetition), sample.summary());
                        self.report.add(key, sample);
                    }
                    Err(error) => {
                        let reason = format!("{error:#}");
                        eprintln!("bench: {} failed: {reason}", key.numbered(repetition));
                        self.report.add_failure(key, reason);
                        // It is out: the time limits of a second failure would be spent in vain.
                        systems.retain(|other| *other != system);
                    }
                }
            }
        }
    }

    fn sample(&self, scenario: &Scenario, span: Span, system: &System) -> Result<Sample> {
        let mut rig = Rig::new(system, span, &self.cli.fairlead)?;
        // What the measurement before left to write, such as access logs, is not this one's load.
        nix::unistd::sync();
        let calls = (self.cli.calls && rig.is_meshed()).then(|| CallCounter::start(&rig));
        let calls = calls.transpose()?;
        let sample = (scenario.measure)(&mut rig, self.cli.effort().duration())?;
        if let Some(calls) = calls {
            println!("{} {span} {system}:\n{}", scenario.name, calls.finish()?);
        }
        rig.stop_proxies()?;
        Ok(sample)
    }

    /// Writes the results, and fails if anything failed.
    fn finish(self) -> Result<()> {
        let Self { cli: Cli { results, calls, .. }, report, .. } = self;
        // Figures of traced processes are none.
        if !calls {
            if let Some(folder) = results.parent() {
                fs::create_dir_all(folder)?;
            }
            fs::write(results, serde_json::to_string_pretty(&report)?)
                .with_context(|| results.display().to_string())?;
            println!("{report}\nresults with every sample: {}", results.display());
        }
        let failures = report.failures();
        ensure!(failures.is_empty(), "not measured, see above: {}", failures.join(", "));
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
