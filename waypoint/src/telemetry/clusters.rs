//! What limits and outlier detection of destinations count, under the names that it has with Envoy. Those
//! have no suffix for what only grows, so that all are told as gauges.

use std::sync::Arc;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::balance::Statistics;

/// A name, what it means, and its value.
type Told = (&'static str, &'static str, fn(&Statistics) -> u64);

/// What is told of a destination.
const TOLD: [Told; 11] = [
    ("upstream_cx_active", "Connections", |s| s.connections.into()),
    ("upstream_cx_overflow", "Connections too many", |s| s.connection_overflow),
    ("upstream_rq_active", "Requests under way", |s| s.requests.into()),
    ("upstream_rq_pending_active", "Requests that wait", |s| s.pending.into()),
    ("upstream_rq_pending_overflow", "Requests too many", |s| s.request_overflow),
    ("upstream_rq_retry_overflow", "Retries too many", |s| s.retry_overflow),
    ("outlier_detection_ejections_active", "Endpoints set aside", |s| s.ejections_active.into()),
    ("outlier_detection_ejections_overflow", "Ejections too many", |s| s.ejections_overflow),
    ("outlier_detection_ejections_enforced_consecutive_5xx", "Ejections for errors", |s| {
        s.ejections_for_errors
    }),
    (
        "outlier_detection_ejections_enforced_consecutive_gateway_failure",
        "Ejections for answers of gateways",
        |s| s.ejections_for_gateway_errors,
    ),
    (
        "outlier_detection_ejections_enforced_consecutive_local_origin_failure",
        "Ejections for want of answers",
        |s| s.ejections_for_local_failures,
    ),
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    cluster_name: Arc<str>,
}

/// Returns the metrics of destinations, of which the names are those of access logs.
pub fn clusters(statistics: impl Iterator<Item = (Arc<str>, Statistics)>) -> Registry {
    let statistics: Vec<_> = statistics.collect();
    let mut registry = Registry::with_prefix("envoy_cluster");
    for (name, help, value) in TOLD {
        let family = Family::<Labels, Gauge>::default();
        for (cluster, statistics) in &statistics {
            let labels = Labels { cluster_name: cluster.clone() };
            family.get_or_create(&labels).set(value(statistics).try_into().unwrap_or(i64::MAX));
        }
        registry.register(name, help, family);
    }
    registry
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text;

    use super::*;

    #[test]
    fn destinations_are_told_by_name() {
        let statistics = Statistics { request_overflow: 3, ..Default::default() };
        let mut page = String::new();
        let registry = clusters([("inbound-vip|80|http|b".into(), statistics)].into_iter());
        text::encode_registry(&mut page, &registry).unwrap();
        let line =
            "envoy_cluster_upstream_rq_pending_overflow{cluster_name=\"inbound-vip|80|http|b\"} 3";
        assert!(page.lines().any(|found| found == line), "{page}");
        assert_eq!(page.lines().filter(|line| !line.starts_with('#')).count(), TOLD.len());
    }
}
