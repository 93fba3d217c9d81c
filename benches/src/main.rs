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

use std::fs;

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

fn main() -> Result<()> {
    let cli = Cli::parse();
    ensure!(!cfg!(debug_assertions), "only figures of an optimised build mean something");
    let selected: Vec<&Scenario> = SCENARIOS.iter().filter(|s| cli.selects(s.name)).collect();
    if selected.is_empty() {
        let names: Vec<_> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        bail!("no scenario has such a name; there are {}", names.join(", "));
    }
    let systems = systems::all(&cli.peer).map_err(anyhow::Error::msg)?;
    let mut report = Report::new(Facts::collect()?, cli.effort(), &systems);
    let mut failures = Vec::new();
    for scenario in selected {
        for span in scenario.spans.iter().filter(|span| cli.span.is_none_or(|only| only == **span))
        {
            if let Err(error) = measure(&cli, &systems, scenario, *span, &mut report) {
                failures.push(format!("{} {span}: {error:#}", scenario.name));
            }
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

/// Takes the figures of one scenario. The systems take turns, so that drift of the machine hits
/// all of them, and each repetition begins with another one.
fn measure(
    cli: &Cli,
    systems: &[System],
    scenario: &Scenario,
    span: Span,
    report: &mut Report,
) -> Result<()> {
    let effort = cli.effort();
    let repetitions = effort.repetitions;
    let mut rigs = Vec::new();
    for system in systems.iter().filter(|system| scenario.direct || **system != System::Direct) {
        let rig = Rig::new(system, span, &cli.fairlead).with_context(|| system.to_string())?;
        rigs.push((system, rig));
    }
    for repetition in 1..=repetitions {
        for (system, rig) in &mut rigs {
            let sample =
                (scenario.measure)(rig, effort.duration()).with_context(|| system.to_string())?;
            let name = format!("{} {span} {system} {repetition}/{repetitions}", scenario.name);
            eprintln!("bench: {name:40} {}", sample.summary());
            let key = Key { scenario: scenario.name, span, system: system.name() };
            report.add(key, sample);
        }
        rigs.rotate_left(1);
    }
    rigs.into_iter().try_for_each(|(_, mut rig)| rig.stop_proxies())
}
