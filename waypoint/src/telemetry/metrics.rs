//! Metrics of requests and connections, under Istio's names.

use std::{fmt, sync::Arc, time::Duration};

use fairlead_component::logging::DroppedLines;
use mesh_api::workload::{ServiceKey, Workload};
use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::http1::Violation;

/// Upper ends of the buckets of times, in milliseconds, and of sizes, in bytes: Istio has the same for
/// both (l7 14.1).
const BUCKETS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1_000.0,
    2_500.0,
    5_000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// Counters that a label tells apart.
type ByName = Family<[(&'static str, &'static str); 1], Counter>;

/// How something is distributed over requests with the same labels.
type Distribution = Family<Labels, Histogram, fn() -> Histogram>;

/// Protocol of calls that are made of messages.
pub const GRPC: &str = "grpc";

/// What a label says where nothing is known.
const UNKNOWN: &str = "unknown";

/// Everything that is counted.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<Labels, Counter>,
    distributions: Distributions,
    request_messages: Family<Labels, Counter>,
    response_messages: Family<Labels, Counter>,
    connections_opened: Family<Labels, Counter>,
    connections_closed: Family<Labels, Counter>,
    sent: Family<Labels, Counter>,
    received: Family<Labels, Counter>,
    connected: Gauge,
    rejected: Counter,
    limits: ByName,
    malformed: ByName,
    /// Connections to operators' pages that had to wait.
    pub full: Counter,
}

/// How what is counted of requests is distributed.
#[derive(Debug)]
struct Distributions {
    durations: Distribution,
    request_bytes: Distribution,
    response_bytes: Distribution,
}

/// One end of a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Side<'a> {
    /// The workload, if it is known.
    pub workload: Option<&'a Workload>,
    /// Its identity as proven, or as expected.
    pub principal: Option<&'a mesh_api::identity::Identity>,
}

/// What a request or a connection is counted under.
#[derive(Clone, Debug)]
pub struct RequestLabels<'a> {
    /// The client.
    pub source: Side<'a>,
    /// The endpoint.
    pub destination: Side<'a>,
    /// The service that was addressed.
    pub service: Option<(&'a ServiceKey, &'a str)>,
    /// `http`, `grpc` or `tcp`.
    pub protocol: &'static str,
    /// Status; 0 without one; none for connections.
    pub status: Option<u16>,
    /// Status of gRPC, if there is one.
    pub grpc_status: Option<u16>,
    /// What went wrong.
    pub flags: crate::route::Flags,
}

/// Where requests with the same labels are counted: to find it takes longer than to count.
#[derive(Clone, Debug)]
pub struct RequestCounts {
    number: Counter,
    durations: Histogram,
    request_bytes: Histogram,
    response_bytes: Histogram,
    /// Of requests and of answers, for calls of gRPC.
    messages: Option<[Counter; 2]>,
}

/// What is counted of a request.
#[derive(Clone, Copy, Debug)]
pub struct RequestTotals {
    /// From its first byte to the last one of the answer.
    pub duration: Duration,
    /// Bytes of its body.
    pub received: u64,
    /// Bytes of the answer's body.
    pub sent: u64,
    /// Messages of gRPC in its body, and in that of the answer.
    pub messages: [u64; 2],
}

/// Bytes of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    /// From the server to the client.
    pub sent: u64,
    /// From the client to the server.
    pub received: u64,
}

/// Labels as they are shown.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    reporter: &'static str,
    source_workload: Arc<str>,
    source_workload_namespace: Arc<str>,
    source_principal: Arc<str>,
    source_app: Arc<str>,
    source_version: Arc<str>,
    source_cluster: Arc<str>,
    source_canonical_service: Arc<str>,
    source_canonical_revision: Arc<str>,
    destination_workload: Arc<str>,
    destination_workload_namespace: Arc<str>,
    destination_principal: Arc<str>,
    destination_app: Arc<str>,
    destination_version: Arc<str>,
    destination_cluster: Arc<str>,
    destination_canonical_service: Arc<str>,
    destination_canonical_revision: Arc<str>,
    destination_service: Arc<str>,
    destination_service_name: Arc<str>,
    destination_service_namespace: Arc<str>,
    request_protocol: &'static str,
    response_code: Option<u16>,
    grpc_response_status: Arc<str>,
    response_flags: Arc<str>,
    connection_security_policy: &'static str,
}

// === impl Metrics ===

impl Metrics {
    /// Registers everything.
    pub fn new(dropped_lines: DroppedLines) -> Self {
        let mut registry = Registry::default();
        let mut counters = |name: &str, help: &str| {
            let family = Family::<Labels, Counter>::default();
            registry.register(name, help, family.clone());
            family
        };
        let requests = counters("istio_requests", "Requests that have ended");
        let request_messages = counters("istio_request_messages", "Messages of calls of gRPC");
        let response_messages = counters("istio_response_messages", "Messages of their answers");
        let connections_opened = counters("istio_tcp_connections_opened", "Connections begun");
        let connections_closed = counters("istio_tcp_connections_closed", "Connections ended");
        let sent = counters("istio_tcp_sent_bytes", "Bytes from servers to clients");
        let received = counters("istio_tcp_received_bytes", "Bytes from clients to servers");
        let distributions = Distributions::register(&mut registry);
        let (connected, rejected, full) =
            (Gauge::default(), Counter::default(), Counter::default());
        registry.register(
            "fairlead_control_plane_connected",
            "Whether the control plane is connected",
            connected.clone(),
        );
        registry.register(
            "fairlead_xds_rejected_resources",
            "Resources of the control plane that cannot be used",
            rejected.clone(),
        );
        registry.register(
            "fairlead_operator_connections_full",
            "Times that the pages of this process had too many connections",
            full.clone(),
        );
        let limits = by_name(
            &mut registry,
            "fairlead_limit_reached",
            "How often a limit of this waypoint was reached",
        );
        let malformed = by_name(
            &mut registry,
            "fairlead_malformed_requests",
            "Requests over HTTP/1 that could be read in two ways, and were not read on",
        );
        registry.register_collector(Box::new(dropped_lines));
        Self {
            registry,
            requests,
            distributions,
            request_messages,
            response_messages,
            connections_opened,
            connections_closed,
            sent,
            received,
            connected,
            rejected,
            limits,
            malformed,
            full,
        }
    }

    /// Returns where requests with these labels are counted once they have been answered.
    pub fn requests(&self, labels: &RequestLabels<'_>) -> RequestCounts {
        let is_grpc = labels.protocol == GRPC;
        let labels = Labels::from(labels);
        let of = |family: &Distribution| family.get_or_create(&labels).clone();
        let Distributions { durations, request_bytes, response_bytes } = &self.distributions;
        RequestCounts {
            number: self.requests.get_or_create(&labels).clone(),
            durations: of(durations),
            request_bytes: of(request_bytes),
            response_bytes: of(response_bytes),
            messages: is_grpc.then(|| {
                [&self.request_messages, &self.response_messages]
                    .map(|family| family.get_or_create(&labels).clone())
            }),
        }
    }

    /// Counts a connection that begins.
    pub fn opened(&self, labels: &RequestLabels<'_>) {
        self.connections_opened.get_or_create(&labels.into()).inc();
    }

    /// Counts bytes of a connection.
    pub fn passed(&self, labels: &RequestLabels<'_>, bytes: Bytes) {
        let labels = Labels::from(labels);
        self.sent.get_or_create(&labels).inc_by(bytes.sent);
        self.received.get_or_create(&labels).inc_by(bytes.received);
    }

    /// Counts a connection that has ended, with those of its bytes that have not been counted.
    pub fn closed(&self, labels: &RequestLabels<'_>, rest: Bytes) {
        self.connections_closed.get_or_create(&labels.into()).inc();
        self.passed(labels, rest);
    }

    /// Notes whether the control plane is connected.
    pub fn connected(&self, connected: bool) {
        self.connected.set(connected.into());
    }

    /// Counts resources that cannot be used.
    pub fn rejected(&self, count: u64) {
        self.rejected.inc_by(count);
    }

    /// Returns the counter of a limit, by its name in [`limits`](crate::limits).
    pub fn limit(&self, limit: &'static str) -> Counter {
        self.limits.get_or_create_owned(&[("limit", limit)])
    }

    /// Returns the counter of requests that are malformed in a way.
    pub fn malformed(&self, violation: Violation) -> Counter {
        self.malformed.get_or_create_owned(&[("reason", violation.name())])
    }

    /// Returns all metrics as text, with others.
    pub fn encode(&self, others: &Registry) -> Result<String, fmt::Error> {
        let mut body = String::new();
        text::encode_registry(&mut body, &self.registry)?;
        text::encode(&mut body, others)?;
        Ok(body)
    }
}

/// Registers counters that a label tells apart.
fn by_name(registry: &mut Registry, name: &str, help: &str) -> ByName {
    let family = ByName::default();
    registry.register(name, help, family.clone());
    family
}

// === impl Distributions ===

impl Distributions {
    fn register(registry: &mut Registry) -> Self {
        let mut distribution = |name: &str, help: &str| {
            let family: Distribution = Family::new_with_constructor(|| Histogram::new(BUCKETS));
            registry.register(name, help, family.clone());
            family
        };
        Self {
            durations: distribution(
                "istio_request_duration_milliseconds",
                "Time from the first byte of a request to the last one of its answer",
            ),
            request_bytes: distribution("istio_request_bytes", "Sizes of the bodies of requests"),
            response_bytes: distribution("istio_response_bytes", "Sizes of the bodies of answers"),
        }
    }
}

// === impl RequestCounts ===

impl RequestCounts {
    /// Counts a request that has ended.
    pub fn add(&self, totals: RequestTotals) {
        let RequestTotals { duration, received, sent, messages } = totals;
        self.number.inc();
        self.durations.observe(duration.as_secs_f64() * 1_000.0);
        self.request_bytes.observe(size(received));
        self.response_bytes.observe(size(sent));
        for (counter, count) in self.messages.iter().flatten().zip(messages) {
            counter.inc_by(count);
        }
    }
}

/// Returns a number of bytes as histograms take it, which are not exact beyond some petabytes.
#[expect(clippy::cast_precision_loss, reason = "see above")]
fn size(bytes: u64) -> f64 {
    bytes as f64
}

// === impl Labels ===

impl From<&RequestLabels<'_>> for Labels {
    fn from(labels: &RequestLabels<'_>) -> Self {
        let unknown: Arc<str> = UNKNOWN.into();
        let of = |side: Side<'_>, get: fn(&Workload) -> &Arc<str>| {
            let value = side.workload.map(get).filter(|value| !value.is_empty());
            value.cloned().unwrap_or_else(|| unknown.clone())
        };
        let namespace = |side: Side<'_>| -> Arc<str> {
            side.workload.map_or_else(
                || unknown.clone(),
                |workload| workload.identity.namespace.as_str().into(),
            )
        };
        let principal = |side: Side<'_>| -> Arc<str> {
            side.principal.map_or_else(|| unknown.clone(), |identity| identity.to_string().into())
        };
        let RequestLabels { source, destination, service, .. } = *labels;
        let service_of = |get: &dyn Fn(&ServiceKey, &str) -> Arc<str>| {
            service.map_or_else(|| unknown.clone(), |(key, name)| get(key, name))
        };
        Self {
            reporter: "waypoint",
            source_workload: of(source, |w| &w.workload_name),
            source_workload_namespace: namespace(source),
            source_principal: principal(source),
            source_app: of(source, |w| &w.canonical_name),
            source_version: of(source, |w| &w.canonical_revision),
            source_cluster: of(source, |w| &w.cluster_id),
            source_canonical_service: of(source, |w| &w.canonical_name),
            source_canonical_revision: of(source, |w| &w.canonical_revision),
            destination_workload: of(destination, |w| &w.workload_name),
            destination_workload_namespace: namespace(destination),
            destination_principal: principal(destination),
            destination_app: of(destination, |w| &w.canonical_name),
            destination_version: of(destination, |w| &w.canonical_revision),
            destination_cluster: of(destination, |w| &w.cluster_id),
            destination_canonical_service: of(destination, |w| &w.canonical_name),
            destination_canonical_revision: of(destination, |w| &w.canonical_revision),
            destination_service: service_of(&|key, _| key.hostname.clone()),
            destination_service_name: service_of(&|_, name| name.into()),
            destination_service_namespace: service_of(&|key, _| key.namespace.as_str().into()),
            request_protocol: labels.protocol,
            response_code: labels.status,
            grpc_response_status: labels
                .grpc_status
                .map_or_else(|| "".into(), |status| status.to_string().into()),
            response_flags: labels.flags.to_string().into(),
            // Nothing comes here but through tunnels.
            connection_security_policy: "mutual_tls",
        }
    }
}
