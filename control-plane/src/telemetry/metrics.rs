//! Prometheus metrics, with the names that Istio's dashboards ask for.
//!
//! Istio's counters lack the suffix `_total` that the text format wants of counters, so they are
//! presented as gauges, which have none; `rate()` works on both.

mod ca;

use std::{
    fmt,
    sync::atomic::AtomicU64,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fairlead_component::logging::DroppedLines;
use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder, text},
    metrics::{MetricType, counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Metric, Registry},
};

pub use self::ca::CaMetrics;
use super::process::ProcessCollector;
use crate::{resource::Kind, xds::resource_type::ResourceType};

/// Upper bounds of the buckets for times, in seconds, as Istio has them and finer below a second.
const TIME_BUCKETS: [f64; 12] =
    [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 3.0, 10.0, 30.0];

/// Upper bounds of the buckets for sizes of responses, in bytes, as Istio has them.
const SIZE_BUCKETS: [f64; 6] = [1.0, 10_000.0, 1e6, 4e6, 10e6, 40e6];

/// Version reported by `pilot_info`.
const VERSION: &str = env!("CARGO_PKG_VERSION");

type Labels<const N: usize> = [(&'static str, &'static str); N];

/// A counter whose name is written without a suffix.
#[derive(Clone, Debug, Default)]
pub struct BareCounter(Counter);

/// Every metric of this process.
#[derive(Debug)]
pub struct Metrics {
    /// Clients connected.
    pub clients: Gauge,
    /// Clients that have owed an acknowledgement for long.
    pub late_clients: Gauge,
    /// From a change to the acknowledgement of the last response that a client needs for it.
    pub convergence_time: Histogram,
    /// From the end of the debounce to the first response to a client.
    pub queue_time: Histogram,
    /// From a response being made to its last byte being handed to the connection.
    pub send_time: Histogram,
    /// From the first change to the end of the debounce.
    pub debounce_time: Histogram,
    /// Acknowledgements of something else than was sent last.
    pub stale_nonces: BareCounter,
    /// Connections that ended before they were of use, by the reason.
    pub refused_connections: Family<Labels<1>, BareCounter>,
    /// Of the certificate authority.
    pub ca: CaMetrics,
    pushes: Family<Labels<1>, BareCounter>,
    push_time: Family<Labels<1>, Histogram, fn() -> Histogram>,
    push_bytes: Family<Labels<1>, Histogram, fn() -> Histogram>,
    rejects: Family<Labels<1>, BareCounter>,
    triggers: Family<Labels<1>, BareCounter>,
    config_events: Family<Labels<2>, BareCounter>,
    validated: [BareCounter; 2],
    cluster_answered: Gauge<f64, AtomicU64>,
    services: Gauge,
    resources: Family<Labels<1>, Gauge>,
    limits: Family<Labels<1>, Counter>,
    registry: Registry,
}

/// What happened to an object of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigEvent {
    /// It is new.
    Add,
    /// It is different.
    Update,
    /// It is gone.
    Delete,
}

/// Registers metrics.
struct Registrar(Registry);

// === impl BareCounter ===

impl BareCounter {
    /// Counts one.
    pub fn inc(&self) {
        self.0.inc();
    }

    /// Counts several more.
    pub fn inc_by(&self, number: u64) {
        self.0.inc_by(number);
    }

    /// Returns the count.
    pub fn get(&self) -> u64 {
        self.0.get()
    }
}

impl EncodeMetric for BareCounter {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        encoder.encode_gauge(&self.0.get())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}

impl prometheus_client::metrics::TypedMetric for BareCounter {
    const TYPE: MetricType = MetricType::Gauge;
}

// === impl Registrar ===

impl Registrar {
    fn of_process(dropped_lines: DroppedLines) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(ProcessCollector::new()));
        registry.register_collector(Box::new(dropped_lines));
        Self(registry)
    }

    fn add<M: Metric + Clone + Default>(&mut self, name: &'static str, help: &'static str) -> M {
        self.put(name, help, M::default())
    }

    fn put<M: Metric + Clone>(&mut self, name: &'static str, help: &'static str, metric: M) -> M {
        self.0.register(name, help, metric.clone());
        metric
    }

    fn times(&mut self, name: &'static str, help: &'static str) -> Histogram {
        self.put(name, help, time_histogram())
    }
}

fn time_histogram() -> Histogram {
    Histogram::new(TIME_BUCKETS)
}

fn size_histogram() -> Histogram {
    Histogram::new(SIZE_BUCKETS)
}

fn by(constructor: fn() -> Histogram) -> Family<Labels<1>, Histogram, fn() -> Histogram> {
    Family::new_with_constructor(constructor)
}

// === impl Metrics ===

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Creates the metrics, all at zero.
    pub fn new() -> Self {
        Self::of_log(DroppedLines::default())
    }

    /// Creates the metrics of a process with a log.
    pub fn of_log(dropped_lines: DroppedLines) -> Self {
        let mut r = Registrar::of_process(dropped_lines);
        let info: Family<Labels<1>, Gauge> = r.add("pilot_info", "Version of this process");
        info.get_or_create(&[("version", VERSION)]).set(1);
        Self {
            clients: r.add("pilot_xds", "Clients connected"),
            late_clients: r.add(
                "fairlead_xds_late_clients",
                "Clients that have owed an acknowledgement for long",
            ),
            convergence_time: r.times(
                "pilot_proxy_convergence_time",
                "Seconds from a change to a client having confirmed all that it needs for it",
            ),
            queue_time: r.times(
                "pilot_proxy_queue_time",
                "Seconds from the end of the debounce to the first response to a client",
            ),
            send_time: r.times(
                "pilot_xds_send_time",
                "Seconds from a response being made to the connection having all of it",
            ),
            debounce_time: r.times(
                "pilot_debounce_time",
                "Seconds from the first change to the end of the debounce",
            ),
            stale_nonces: r.add(
                "pilot_xds_expired_nonce",
                "Acknowledgements of something else than was sent last",
            ),
            refused_connections: r
                .add("fairlead_connections_refused", "Connections refused, by the reason"),
            ca: CaMetrics::register(&mut r),
            pushes: r.add("pilot_xds_pushes", "Responses sent, by type"),
            push_time: r.put(
                "pilot_xds_push_time",
                "Seconds to make a response, by type",
                by(time_histogram),
            ),
            push_bytes: r.put(
                "pilot_xds_config_size_bytes",
                "Sizes of responses, by type",
                by(size_histogram),
            ),
            rejects: r.add("pilot_total_xds_rejects", "Responses refused by clients, by type"),
            triggers: r.add("pilot_push_triggers", "Changes of resources, by what they are about"),
            config_events: r
                .add("pilot_k8s_cfg_events", "Changes of configuration objects, by kind and event"),
            validated: [
                r.add("galley_validation_failed", "Objects that the webhook refused"),
                r.add("galley_validation_passed", "Objects that the webhook let pass"),
            ],
            cluster_answered: r.add(
                "fairlead_cluster_answered_timestamp_seconds",
                "When the API server last answered, in Unix time; what is known may be as old",
            ),
            services: r.add("pilot_services", "Services known"),
            resources: r.add("fairlead_resources", "Resources that clients are told of, by kind"),
            limits: r.add("fairlead_limit_reached", "Times that a limit was reached, by limit"),
            registry: r.0,
        }
    }

    /// Takes note of a response.
    pub fn pushed(&self, resource_type: ResourceType, bytes: usize, time: Duration) {
        let labels = [("type", resource_type.short_name())];
        self.pushes.get_or_create(&labels).inc();
        self.push_time.get_or_create(&labels).observe(time.as_secs_f64());
        // Sizes are far below what a float holds exactly.
        #[expect(clippy::cast_precision_loss, reason = "a response has far less than 2^52 bytes")]
        self.push_bytes.get_or_create(&labels).observe(bytes as f64);
    }

    /// Returns the count of responses that clients refused.
    pub fn rejects(&self, resource_type: ResourceType) -> BareCounter {
        self.rejects.get_or_create_owned(&[("type", resource_type.short_name())])
    }

    /// Returns the count of changes of resources of a kind.
    pub fn push_trigger(&self, kind: Kind) -> BareCounter {
        self.triggers.get_or_create_owned(&[("type", name_of(kind))])
    }

    /// Returns the count of events of configuration objects of a kind, such as `Pod`.
    pub fn config_event(&self, kind: &'static str, event: ConfigEvent) -> BareCounter {
        self.config_events.get_or_create_owned(&[("type", kind), ("event", event.name())])
    }

    /// Returns the count of connections refused for a reason.
    pub fn refused_connection(&self, reason: &'static str) -> BareCounter {
        self.refused_connections.get_or_create_owned(&[("reason", reason)])
    }

    /// Takes note that the cluster's API server has answered.
    pub fn cluster_answered(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.cluster_answered.set(now.as_secs_f64());
    }

    /// Takes note of a review of the webhook.
    pub fn validated(&self, passed: bool) {
        self.validated[usize::from(passed)].inc();
    }

    /// Returns the count of how often a limit was reached.
    pub fn limit(&self, limit: &'static str) -> Counter {
        self.limits.get_or_create_owned(&[("limit", limit)])
    }

    /// Takes note of how many resources of each kind there are.
    pub fn set_resources(&self, count: impl Fn(Kind) -> usize) {
        let gauge = |kind| i64::try_from(count(kind)).unwrap_or(i64::MAX);
        self.services.set(gauge(Kind::Service));
        for kind in Kind::ALL {
            self.resources.get_or_create(&[("kind", name_of(kind))]).set(gauge(kind));
        }
    }

    /// Returns all metrics in the text format.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut body = String::new();
        text::encode(&mut body, &self.registry)?;
        Ok(body)
    }
}

fn name_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Workload => "workload",
        Kind::Service => "service",
        Kind::Authorization => "authorization",
        Kind::L7 => "l7",
        Kind::Credential => "credential",
    }
}

// === impl ConfigEvent ===

impl ConfigEvent {
    fn name(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_dashboards() {
        let metrics = Metrics::new();
        metrics.clients.inc();
        metrics.pushed(ResourceType::Address, 100, Duration::from_millis(1));
        metrics.rejects(ResourceType::Authorization).inc();
        metrics.config_event("Pod", ConfigEvent::Update).inc();
        metrics.ca.csr_count.inc();
        metrics.validated(true);
        metrics.convergence_time.observe(0.05);
        metrics.set_resources(|_| 3);
        let text = metrics.encode().unwrap();
        for line in [
            "pilot_xds 1",
            "galley_validation_passed 1",
            "galley_validation_failed 0",
            "pilot_xds_pushes{type=\"wds\"} 1",
            "pilot_total_xds_rejects{type=\"wads\"} 1",
            "pilot_k8s_cfg_events{type=\"Pod\",event=\"update\"} 1",
            "citadel_server_csr_count 1",
            "pilot_proxy_convergence_time_count 1",
            "pilot_services 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in:\n{text}");
        }
        for name in [
            "pilot_proxy_queue_time_bucket",
            "pilot_xds_send_time_bucket",
            "istiod_uptime_seconds",
            "process_cpu_seconds_total",
        ] {
            assert!(text.contains(name), "{name} is not in:\n{text}");
        }
    }
}
