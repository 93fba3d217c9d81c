//! Arguments of the benchmarks.

use std::{path::PathBuf, time::Duration};

use clap::Parser;
use serde::Serialize;

use crate::{scenarios::Span, systems::Peer};

/// Runs the whole-system benchmarks; `cargo xtask bench` builds what they need and calls this.
#[derive(Debug, Parser)]
pub(crate) struct Cli {
    /// Takes each figure once and briefly: for trying, not for comparing.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Runs only scenarios with this in their name; may be given several times.
    #[arg(long, value_name = "NAME")]
    pub(crate) only: Vec<String>,
    /// Runs only cases with client and server on different nodes, or on the same.
    #[arg(long, value_enum)]
    pub(crate) span: Option<Span>,
    /// How often each figure is taken.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) repetitions: Option<u32>,
    /// How long load lasts each time, in seconds.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) seconds: Option<u32>,
    /// Measures another proxy too, which COMMAND starts on each node; may be given several times.
    #[arg(long, value_name = "NAME=COMMAND")]
    pub(crate) peer: Vec<Peer>,
    /// Counts the system calls of the proxies, which spoils all other figures.
    #[arg(long)]
    pub(crate) calls: bool,
    /// The fairlead-node to measure.
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) fairlead: PathBuf,
    /// Where the results go, as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) results: PathBuf,
}

/// How often and how long each figure is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Effort {
    pub(crate) repetitions: u32,
    pub(crate) seconds: u32,
}

/// Enough for a median that does not hang on the luck of one start, such as which thread has which
/// tunnel; within a quarter of an hour without a peer.
const FULL: Effort = Effort { repetitions: 5, seconds: 3 };

/// Enough to see that everything works, within two minutes.
const QUICK: Effort = Effort { repetitions: 1, seconds: 1 };

// === impl Cli ===

impl Cli {
    pub(crate) fn selects(&self, scenario: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| scenario.contains(part.as_str()))
    }

    pub(crate) fn effort(&self) -> Effort {
        let base = if self.quick { QUICK } else { FULL };
        Effort {
            repetitions: self.repetitions.unwrap_or(base.repetitions),
            seconds: self.seconds.unwrap_or(base.seconds),
        }
    }
}

// === impl Effort ===

impl Effort {
    pub(crate) fn duration(self) -> Duration {
        Duration::from_secs(self.seconds.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Cli, clap::Error> {
        let fixed = ["benches", "--fairlead", "fairlead-node", "--results", "r.json"];
        Cli::try_parse_from(fixed.iter().chain(args))
    }

    #[test]
    fn scenarios_are_chosen_by_parts_of_their_names() {
        let all = parse(&[]).unwrap();
        assert!(all.selects("memory"));
        let some = parse(&["--only", "connections", "--only", "rate"]).unwrap();
        let selected = ["memory", "connections-32", "rate-1000"].map(|name| some.selects(name));
        assert_eq!(selected, [false, true, true]);
    }

    #[test]
    fn effort_is_a_choice_of_two_with_corrections() {
        for (args, repetitions, seconds) in [
            (&[][..], 5, 3),
            (&["--quick"], 1, 1),
            (&["--quick", "--repetitions", "7"], 7, 1),
            (&["--seconds", "10"], 5, 10),
        ] {
            assert_eq!(parse(args).unwrap().effort(), Effort { repetitions, seconds }, "{args:?}");
        }
    }

    #[test]
    fn peers_and_spans_are_checked() {
        let cli = parse(&["--peer", "before=x y", "--peer", "z=w", "--span", "same"]).unwrap();
        assert_eq!(cli.peer.len(), 2);
        assert_eq!(cli.span, Some(Span::Same));
        for bad in [
            ["--peer", "before"],
            ["--peer", "direct=x"],
            ["--span", "both"],
            ["--repetitions", "0"],
            ["--seconds", "0"],
        ] {
            assert!(parse(&bad).is_err(), "{bad:?}");
        }
    }
}
