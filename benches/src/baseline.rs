//! What ztunnel showed on a machine of two shared cores with the same method: build 62d82653 with
//! its default settings, Linux 6.18. Absolute figures drift between machines; compare ratios.

use crate::scenarios::Span::{self, Cross, Same};

/// A figure of ztunnel, with the direct path's of the same run where there is one.
struct Reference {
    scenario: &'static str,
    span: Span,
    figure: &'static str,
    direct: Option<f64>,
    ztunnel: f64,
}

const PROXY_CPU: &str = "CPU of the proxies";

const REFERENCES: [Reference; 30] = [
    compared("throughput-1", Cross, "throughput", 56.9, 11.0),
    compared("throughput-1", Same, "throughput", 63.3, 10.6),
    compared("throughput-4", Cross, "throughput", 46.5, 9.66),
    compared("throughput-4", Same, "throughput", 57.2, 10.7),
    compared("throughput-1", Cross, "CPU of the machine", 0.27, 1.31),
    alone("throughput-1", Cross, PROXY_CPU, 1.03),
    alone("throughput-1", Same, PROXY_CPU, 0.97),
    compared("connections-1", Cross, "connections", 11_106.0, 1_987.0),
    compared("connections-1", Cross, "p50", 73.0, 446.0),
    compared("connections-1", Cross, "p99", 173.0, 750.0),
    compared("connections-32", Cross, "connections", 26_082.0, 6_404.0),
    compared("connections-32", Same, "connections", 31_929.0, 6_676.0),
    alone("connections-32", Cross, PROXY_CPU, 204.0),
    alone("connections-32", Same, PROXY_CPU, 177.0),
    compared("keep-alive-64", Cross, "requests", 200_225.0, 45_114.0),
    compared("keep-alive-64", Same, "requests", 249_592.0, 39_072.0),
    compared("keep-alive-64", Cross, "p50", 276.0, 1_360.0),
    compared("keep-alive-64", Cross, "p99", 599.0, 3_070.0),
    alone("keep-alive-64", Cross, PROXY_CPU, 31.0),
    compared("rate-1000", Cross, "p50", 111.0, 296.0),
    compared("rate-1000", Cross, "p90", 137.0, 367.0),
    compared("rate-1000", Cross, "p99", 275.0, 719.0),
    compared("rate-1000", Same, "p50", 109.0, 159.0),
    compared("rate-1000", Same, "p90", 126.0, 246.0),
    compared("rate-1000", Same, "p99", 249.0, 488.0),
    alone("memory", Cross, "idle, resident, client's node", 16.7),
    alone("memory", Cross, "idle, proportional, client's node", 9.5),
    alone("memory", Cross, "per connection, client's node", 6.9),
    alone("memory", Cross, "per connection, server's node", 6.9),
    alone("memory", Same, "per connection, client's node", 13.4),
];

/// Returns ztunnel's figure: as a ratio to the direct path where that was measured too.
pub(crate) fn ztunnel(scenario: &str, span: Span, figure: &str) -> Option<f64> {
    let matches = |r: &&Reference| r.scenario == scenario && r.span == span && r.figure == figure;
    let found = REFERENCES.iter().find(matches)?;
    Some(found.direct.map_or(found.ztunnel, |direct| found.ztunnel / direct))
}

const fn compared(
    scenario: &'static str,
    span: Span,
    figure: &'static str,
    direct: f64,
    ztunnel: f64,
) -> Reference {
    Reference { scenario, span, figure, direct: Some(direct), ztunnel }
}

const fn alone(
    scenario: &'static str,
    span: Span,
    figure: &'static str,
    ztunnel: f64,
) -> Reference {
    Reference { scenario, span, figure, direct: None, ztunnel }
}
