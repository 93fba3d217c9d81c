//! What is measured.

mod connections;
mod keep_alive;
mod memory;
mod rate;
mod throughput;
mod workloads;

use std::{fmt, time::Duration};

use anyhow::Result;
use serde::Serialize;

pub(crate) use memory::{PROPORTIONAL, RESIDENT};

use crate::{rig::Rig, sample::Sample};

/// A way to make load, and the figures taken from it.
#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) spans: &'static [Span],
    /// Whether it measures the path without proxies too.
    pub(crate) direct: bool,
    /// Takes one sample, with load for the given time where there is load.
    pub(crate) measure: fn(&mut Rig, Duration) -> Result<Sample>,
}

/// Where client and server are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Span {
    /// On different nodes: two proxies.
    Cross,
    /// On the same node: one proxy.
    Same,
}

pub(crate) const SCENARIOS: [Scenario; 11] = [
    paths("throughput-1", throughput::one_stream_up),
    paths("throughput-4", throughput::four_streams_up),
    paths("throughput-1-reverse", throughput::one_stream_down),
    paths("throughput-4-reverse", throughput::four_streams_down),
    paths("connections-1", connections::one_at_a_time),
    paths("connections-32", connections::many_at_a_time),
    paths("rate-1000", rate::measure),
    paths("keep-alive-64", keep_alive::measure),
    proxies("memory", Span::BOTH, memory::thousand),
    proxies("memory-10000", Span::BOTH, memory::ten_thousand),
    proxies("workloads-10000", &[Span::Cross], workloads::measure),
];

const fn paths(name: &'static str, measure: fn(&mut Rig, Duration) -> Result<Sample>) -> Scenario {
    Scenario { name, spans: Span::BOTH, direct: true, measure }
}

const fn proxies(
    name: &'static str,
    spans: &'static [Span],
    measure: fn(&mut Rig, Duration) -> Result<Sample>,
) -> Scenario {
    Scenario { name, spans, direct: false, measure }
}

// === impl Span ===

impl Span {
    const BOTH: &[Self] = &[Self::Cross, Self::Same];
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cross => "cross",
            Self::Same => "same",
        })
    }
}
