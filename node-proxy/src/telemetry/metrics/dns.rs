//! What is counted of DNS queries, under Istio's names.

use std::{fmt, sync::Arc, time::Duration};

use mesh_api::workload::Workload;
use prometheus_client::{
    encoding::{EncodeLabel, EncodeLabelSet, LabelSetEncoder},
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};

use super::labels::UNKNOWN;

/// Bounds of the time that name servers take, in seconds (as ztunnel).
const DURATIONS: [f64; 6] = [0.0005, 0.001, 0.01, 0.1, 1.0, 5.0];

/// Counters of DNS queries.
#[derive(Clone, Debug)]
pub struct DnsMetrics {
    requests: Family<QueryLabels, Counter>,
    cache_hits: Family<QueryLabels, Counter>,
    upstream_requests: Family<QueryLabels, Counter>,
    upstream_failures: Family<QueryLabels, Counter>,
    upstream_duration: Family<QueryLabels, Histogram>,
}

/// What identifies a series of queries: their type and how they come, and who asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct QueryLabels {
    /// Type that is asked for, by name.
    pub kind: &'static str,
    /// How the query came.
    pub protocol: QueryProtocol,
    service: Option<Arc<str>>,
    revision: Option<Arc<str>>,
}

/// How a query comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QueryProtocol {
    /// As a datagram.
    Udp,
    /// By a connection.
    Tcp,
}

// === impl DnsMetrics ===

impl DnsMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            cache_hits: Family::default(),
            upstream_requests: Family::default(),
            upstream_failures: Family::default(),
            upstream_duration: Family::new_with_constructor(|| Histogram::new(DURATIONS)),
        };
        registry.register(
            "istio_dns_requests",
            "DNS queries of enrolled pods",
            metrics.requests.clone(),
        );
        registry.register(
            "fairlead_dns_cache_hits",
            "DNS queries that were answered with what a name server said before",
            metrics.cache_hits.clone(),
        );
        registry.register(
            "istio_dns_upstream_requests",
            "DNS queries that were passed on to name servers",
            metrics.upstream_requests.clone(),
        );
        registry.register(
            "istio_dns_upstream_failures",
            "DNS queries that name servers did not answer",
            metrics.upstream_failures.clone(),
        );
        registry.register(
            "istio_dns_upstream_request_duration_seconds",
            "Time that name servers took to answer",
            metrics.upstream_duration.clone(),
        );
        metrics
    }

    /// Counts a query.
    pub fn asked(&self, labels: &QueryLabels) {
        self.requests.get_or_create(labels).inc();
    }

    /// Counts a query whose answer was known from before.
    pub fn found(&self, labels: &QueryLabels) {
        self.cache_hits.get_or_create(labels).inc();
    }

    /// Counts a query that is passed on.
    pub fn passed_on(&self, labels: &QueryLabels) {
        self.upstream_requests.get_or_create(labels).inc();
    }

    /// Counts the end of a query that was passed on; `took` is none if there was no answer.
    pub fn answered(&self, labels: &QueryLabels, took: Option<Duration>) {
        match took {
            Some(took) => self.upstream_duration.get_or_create(labels).observe(took.as_secs_f64()),
            None => drop(self.upstream_failures.get_or_create(labels).inc()),
        }
    }
}

// === impl QueryLabels ===

impl QueryLabels {
    /// Labels a query of `source`, as far as it is known.
    pub fn new(kind: &'static str, protocol: QueryProtocol, source: Option<&Workload>) -> Self {
        let known = |field: fn(&Workload) -> &Arc<str>| {
            source.map(field).filter(|text| !text.is_empty()).cloned()
        };
        let service = known(|workload| &workload.canonical_name);
        let revision = known(|workload| &workload.canonical_revision);
        Self { kind, protocol, service, revision }
    }
}

impl EncodeLabelSet for QueryLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            QueryProtocol::Udp => "udp",
            QueryProtocol::Tcp => "tcp",
        };
        ("request_query_type", self.kind).encode(encoder.encode_label())?;
        ("request_protocol", protocol).encode(encoder.encode_label())?;
        let service = self.service.as_deref().unwrap_or(UNKNOWN);
        ("source_canonical_service", service).encode(encoder.encode_label())?;
        let revision = self.revision.as_deref().unwrap_or(UNKNOWN);
        ("source_canonical_revision", revision).encode(encoder.encode_label())
    }
}
