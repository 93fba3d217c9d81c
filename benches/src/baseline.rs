//! What ztunnel showed on a machine of two shared cores with the same method (build 62d82653 with
//! its default settings, Linux 6.18), and how much better Fairlead aims to be.
//!
//! Absolute figures drift between machines; where there is a direct path, ratios to it are compared.

use serde::Serialize;

use crate::{
    load::FIRST_CONNECTION,
    sample::PROXY_CPU,
    scenarios::{
        PROPORTIONAL, RESIDENT,
        Span::{self, Cross, Same},
    },
};

/// A figure of ztunnel, with the direct path's of the same run where there is one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reference {
    scenario: &'static str,
    span: Span,
    figure: &'static str,
    direct: Option<f64>,
    ztunnel: f64,
    aim: Option<Aim>,
}

/// What Fairlead is to reach, as a multiple of what ztunnel showed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Aim {
    /// A ratio to the direct path that is at least this many times ztunnel's.
    Ratio(f64),
    /// A figure of at most this part of ztunnel's.
    Figure(f64),
    /// A difference to the direct path of at most this part of ztunnel's.
    Added(f64),
}

/// How a figure compares with its aim.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Verdict {
    /// What is compared.
    pub(crate) quantity: Quantity,
    /// The limit: a lower one of ratios, an upper one of others.
    pub(crate) limit: f64,
    /// What was measured.
    pub(crate) measured: f64,
    /// Whether it keeps the limit.
    pub(crate) reached: bool,
}

/// What an aim is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Quantity {
    /// Fairlead's figure, divided by the direct path's.
    Ratio,
    /// Fairlead's figure.
    Figure,
    /// Fairlead's figure, less the direct path's.
    Added,
}

const TWICE: Option<Aim> = Some(Aim::Ratio(2.0));
const FOUR_TIMES: Option<Aim> = Some(Aim::Ratio(4.0));
const TWO_AND_A_HALF: Option<Aim> = Some(Aim::Ratio(2.5));
const HALF: Option<Aim> = Some(Aim::Figure(0.5));
const A_THIRD: Option<Aim> = Some(Aim::Figure(1.0 / 3.0));
const HALF_ADDED: Option<Aim> = Some(Aim::Added(0.5));

const REFERENCES: [Reference; 33] = [
    compared("throughput-1", Cross, "throughput", (56.9, 11.0), TWICE),
    compared("throughput-1", Same, "throughput", (63.3, 10.6), FOUR_TIMES),
    compared("throughput-4", Cross, "throughput", (46.5, 9.66), TWICE),
    compared("throughput-4", Same, "throughput", (57.2, 10.7), FOUR_TIMES),
    compared("throughput-1", Cross, "CPU of the machine", (0.27, 1.31), None),
    alone("throughput-1", Cross, PROXY_CPU, 1.03, HALF),
    alone("throughput-1", Same, PROXY_CPU, 0.97, HALF),
    compared("connections-1", Cross, "connections", (11_106.0, 1_987.0), TWO_AND_A_HALF),
    compared("connections-1", Cross, "p50", (73.0, 446.0), None),
    compared("connections-1", Cross, "p99", (173.0, 750.0), None),
    alone("connections-1", Cross, FIRST_CONNECTION, 3.2, None),
    compared("connections-32", Cross, "connections", (26_082.0, 6_404.0), TWO_AND_A_HALF),
    compared("connections-32", Same, "connections", (31_929.0, 6_676.0), TWO_AND_A_HALF),
    alone("connections-32", Cross, PROXY_CPU, 204.0, None),
    alone("connections-32", Same, PROXY_CPU, 177.0, None),
    compared("keep-alive-64", Cross, "requests", (200_225.0, 45_114.0), TWICE),
    compared("keep-alive-64", Same, "requests", (249_592.0, 39_072.0), TWICE),
    compared("keep-alive-64", Cross, "p50", (276.0, 1_360.0), None),
    compared("keep-alive-64", Cross, "p99", (599.0, 3_070.0), None),
    alone("keep-alive-64", Cross, PROXY_CPU, 31.0, None),
    compared("rate-1000", Cross, "p50", (111.0, 296.0), HALF_ADDED),
    compared("rate-1000", Cross, "p90", (137.0, 367.0), None),
    compared("rate-1000", Cross, "p99", (275.0, 719.0), None),
    compared("rate-1000", Same, "p50", (109.0, 159.0), HALF_ADDED),
    compared("rate-1000", Same, "p90", (126.0, 246.0), None),
    compared("rate-1000", Same, "p99", (249.0, 488.0), None),
    alone("memory", Cross, RESIDENT, 16.7, HALF),
    alone("memory", Cross, PROPORTIONAL, 9.5, HALF),
    alone("memory", Cross, "per connection, client's node", 6.9, A_THIRD),
    alone("memory", Cross, "per connection, server's node", 6.9, A_THIRD),
    alone("memory", Same, "per connection, client's node", 13.4, A_THIRD),
    alone("workloads-10000", Cross, "load time", 0.22, None),
    alone("workloads-10000", Cross, "resident", 42.0, None),
];

/// Finds what ztunnel showed.
pub(crate) fn reference(scenario: &str, span: Span, figure: &str) -> Option<&'static Reference> {
    let matches = |r: &&Reference| r.scenario == scenario && r.span == span && r.figure == figure;
    REFERENCES.iter().find(matches)
}

// === impl Reference ===

impl Reference {
    /// Returns ztunnel's figure: as a ratio to the direct path where that was measured too.
    pub(crate) fn ztunnel(&self) -> f64 {
        self.direct.map_or(self.ztunnel, |direct| self.ztunnel / direct)
    }

    /// Compares what this run measured with the aim, if there is one.
    pub(crate) fn verdict(&self, direct: Option<f64>, fairlead: f64) -> Option<Verdict> {
        let (quantity, limit, measured) = match self.aim? {
            Aim::Ratio(factor) => (Quantity::Ratio, factor * self.ztunnel(), fairlead / direct?),
            Aim::Figure(part) => (Quantity::Figure, part * self.ztunnel, fairlead),
            Aim::Added(part) => {
                (Quantity::Added, part * (self.ztunnel - self.direct?), fairlead - direct?)
            }
        };
        let reached = match quantity {
            Quantity::Ratio => measured >= limit,
            Quantity::Figure | Quantity::Added => measured <= limit,
        };
        Some(Verdict { quantity, limit, measured, reached })
    }
}

const fn compared(
    scenario: &'static str,
    span: Span,
    figure: &'static str,
    (direct, ztunnel): (f64, f64),
    aim: Option<Aim>,
) -> Reference {
    Reference { scenario, span, figure, direct: Some(direct), ztunnel, aim }
}

const fn alone(
    scenario: &'static str,
    span: Span,
    figure: &'static str,
    ztunnel: f64,
    aim: Option<Aim>,
) -> Reference {
    Reference { scenario, span, figure, direct: None, ztunnel, aim }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THROUGHPUT: Reference = compared("t", Cross, "f", (50.0, 10.0), TWICE);
    const CPU: Reference = alone("t", Cross, "f", 1.0, HALF);
    const LATENCY: Reference = compared("t", Cross, "f", (100.0, 300.0), HALF_ADDED);

    #[test]
    fn aims_are_multiples_of_what_ztunnel_showed() {
        for (reference, direct, fairlead, expected) in [
            (THROUGHPUT, Some(40.0), 16.0, Some((Quantity::Ratio, 0.4, 0.4, true))),
            (THROUGHPUT, Some(40.0), 10.0, Some((Quantity::Ratio, 0.4, 0.25, false))),
            (THROUGHPUT, None, 10.0, None),
            (CPU, None, 0.5, Some((Quantity::Figure, 0.5, 0.5, true))),
            (CPU, Some(9.0), 0.6, Some((Quantity::Figure, 0.5, 0.6, false))),
            (LATENCY, Some(50.0), 150.0, Some((Quantity::Added, 100.0, 100.0, true))),
            (LATENCY, Some(50.0), 151.0, Some((Quantity::Added, 100.0, 101.0, false))),
        ] {
            let expected = expected.map(|(quantity, limit, measured, reached)| Verdict {
                quantity,
                limit,
                measured,
                reached,
            });
            assert_eq!(reference.verdict(direct, fairlead), expected, "{direct:?} {fairlead}");
        }
    }

    #[test]
    fn every_reference_belongs_to_a_scenario() {
        for Reference { scenario, span, .. } in REFERENCES {
            let found = crate::scenarios::SCENARIOS.iter().find(|known| known.name == scenario);
            assert!(found.is_some_and(|found| found.spans.contains(&span)), "{scenario} {span}");
        }
    }
}
