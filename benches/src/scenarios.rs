//! What is measured.

mod connections;
mod keep_alive;
mod memory;
mod rate;
mod throughput;

use std::{fmt, time::Duration};

use anyhow::Result;
use fairlead_lab::Pod;
use serde::Serialize;

use crate::rig::Rig;

/// A way to make load, and the figures taken from it.
#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) spans: &'static [Span],
    pub(crate) routes: &'static [Route],
    /// Whether a repetition would find memory that the first one left.
    pub(crate) once: bool,
    pub(crate) measure: fn(&mut Rig, &Case) -> Result<Sample>,
}

/// Where client and server are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Span {
    /// On different nodes: two proxies.
    Cross,
    /// On the same node: one proxy.
    Same,
}

/// How client and server are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Route {
    /// Neither pod is enrolled.
    Direct,
    /// Both are.
    Meshed,
}

/// One measurement to take.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) route: Route,
    pub(crate) client: Pod,
    pub(crate) server: Pod,
    pub(crate) duration: Duration,
}

/// What one measurement found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample(pub(crate) Vec<(Figure, f64)>);

/// A quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
}

/// Figures in a line of progress: as many as fit.
const SUMMARY_FIGURES: usize = 2;

/// Memory comes first: later scenarios leave their high-water mark in the allocator.
pub(crate) const SCENARIOS: [Scenario; 7] = [
    Scenario {
        name: "memory",
        spans: &[Span::Cross, Span::Same],
        routes: &[Route::Meshed],
        once: true,
        measure: memory::measure,
    },
    repeated("throughput-1", throughput::one_stream),
    repeated("throughput-4", throughput::four_streams),
    repeated("connections-1", connections::one_at_a_time),
    repeated("connections-32", connections::many_at_a_time),
    repeated("rate-1000", rate::measure),
    repeated("keep-alive-64", keep_alive::measure),
];

const fn repeated(name: &'static str, measure: fn(&mut Rig, &Case) -> Result<Sample>) -> Scenario {
    let spans = &[Span::Cross, Span::Same];
    Scenario { name, spans, routes: Route::BOTH, once: false, measure }
}

// === impl Sample ===

impl Sample {
    pub(crate) fn add(&mut self, name: &'static str, unit: &'static str, value: f64) {
        self.0.push((Figure { name, unit }, value));
    }

    /// Returns the first figures, for a line of progress.
    pub(crate) fn summary(&self) -> String {
        let figure = |(figure, value): &(Figure, f64)| {
            format!("{} {} {}", figure.name, crate::table::number(*value), figure.unit)
        };
        self.0.iter().take(SUMMARY_FIGURES).map(figure).collect::<Vec<_>>().join(", ")
    }
}

// === impl Span ===

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cross => "cross",
            Self::Same => "same",
        })
    }
}

// === impl Route ===

impl Route {
    /// Both, in the order in which they take turns.
    const BOTH: &[Self] = &[Self::Direct, Self::Meshed];
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct => "direct",
            Self::Meshed => "meshed",
        })
    }
}
