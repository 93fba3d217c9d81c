//! Prometheus metrics: per-core counters for connections, shared ones for what is rare.

mod discovery;
mod dns;
mod labels;
mod paths;
mod pods;
mod process;
mod runtimes;
mod served;
mod traffic;
mod worker;

use std::{fmt, sync::Arc};

use fairlead_component::logging::DroppedLines;
use prometheus_client::{
    encoding::text,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Metric, Registry},
};

use self::traffic::Traffic;
pub use self::{
    discovery::{DiscoveryMetrics, Termination},
    dns::{DnsMetrics, QueryLabels, QueryProtocol},
    labels::{ConnectionLabels, End, Outside, Reporter},
    pods::PodConnections,
    process::Process,
    runtimes::Runtimes,
    served::ServedPods,
    worker::{ConnectionCounters, OpenSocket, WorkerMetrics},
};
use crate::limits::MAX_SERIES;

/// Component name in `istio_build`.
const COMPONENT: &str = "fairlead-node";

/// Labels of the metrics with one label or with fixed ones: key and value.
type Labels<const N: usize> = [(&'static str, &'static str); N];

/// Every metric of this process.
#[derive(Debug)]
pub struct NodeMetrics {
    /// Configuration reloads by result.
    pub config_reloads: ConfigReloads,
    /// The conversation with the control plane.
    pub discovery: DiscoveryMetrics,
    /// DNS queries.
    pub dns: DnsMetrics,
    /// Pods in the mesh on this node.
    pub pods: ServedPods,
    /// Pods of this node that are to be in the mesh and are not captured.
    pub pods_waiting: Gauge,
    /// Connections that were made while no proxy ran, and waited for this one.
    pub connections_waited: Counter,
    /// What the kernel did with the connections of pods.
    pub pod_connections: PodConnections,
    /// Times that an endpoint was set aside because it kept failing.
    pub endpoints_set_aside: Counter,
    /// The threads that run tasks.
    pub runtimes: Runtimes,
    /// HBONE connections open.
    pub tunnels_open: Tunnels,
    limits: Family<Labels<1>, Counter>,
    traffic: Arc<Traffic>,
    registry: Registry,
}

/// `fairlead_config_reloads_total`, one handle for each result.
#[derive(Clone, Debug)]
pub struct ConfigReloads {
    /// The new configuration is in force.
    pub applied: Counter,
    /// The new configuration is broken; the last good one stays in force.
    pub rejected: Counter,
}

/// `fairlead_tunnels_open`, one handle for each direction.
#[derive(Clone, Debug)]
pub struct Tunnels {
    /// Accepted from peers.
    pub inbound: Gauge,
    /// Opened to peers.
    pub outbound: Gauge,
}

// === impl NodeMetrics ===

impl NodeMetrics {
    /// Creates the metrics of a process whose logger counts lost lines in `dropped_lines`.
    pub fn new(dropped_lines: DroppedLines) -> Self {
        let mut registry = Registry::default();
        let traffic = Arc::new(Traffic::new(MAX_SERIES));
        registry.register_collector(Box::new(Arc::clone(&traffic)));
        registry.register_collector(Box::new(Arc::clone(traffic.paths())));
        registry.register_collector(Box::new(dropped_lines));
        let (pod_connections, runtimes) = (PodConnections::default(), Runtimes::default());
        registry.register_collector(Box::new(pod_connections.clone()));
        registry.register_collector(Box::new(runtimes.clone()));
        let registry = &mut registry;
        let build: Family<Labels<2>, Gauge> =
            family(registry, "istio_build", "Component and version of this process");
        build.get_or_create(&[("component", COMPONENT), ("tag", env!("CARGO_PKG_VERSION"))]).set(1);
        let limits = family(
            registry,
            "fairlead_limit_reached",
            "How often a limit of the proxy was reached",
        );
        let pods_waiting = Gauge::default();
        let pods = ServedPods::register(registry, &pods_waiting);
        let connections_waited = Counter::default();
        registry.register(
            "fairlead_connections_waited",
            "Connections that were made while no proxy ran, and waited for this one",
            connections_waited.clone(),
        );
        let endpoints_set_aside = Counter::default();
        registry.register(
            "fairlead_endpoints_set_aside",
            "Times that an endpoint was set aside because connections to it kept failing",
            endpoints_set_aside.clone(),
        );
        Self {
            config_reloads: ConfigReloads::register(registry),
            discovery: DiscoveryMetrics::register(registry),
            dns: DnsMetrics::register(registry),
            pods,
            pods_waiting,
            connections_waited,
            pod_connections,
            endpoints_set_aside,
            runtimes,
            tunnels_open: Tunnels::register(registry),
            limits,
            traffic,
            registry: std::mem::take(registry),
        }
    }

    /// Shows this process, too.
    pub fn show_process(&mut self, process: Process) {
        self.registry.register_collector(Box::new(process));
    }

    /// Returns the counters of one worker thread.
    pub fn worker(&self) -> WorkerMetrics {
        WorkerMetrics::new(Arc::clone(&self.traffic))
    }

    /// Returns the counter of a limit, to be kept by the code that guards the limit.
    pub fn limit(&self, limit: &'static str) -> Counter {
        self.limits.get_or_create_owned(&[("limit", limit)])
    }

    /// Returns all metrics in the `OpenMetrics` text format.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut body = String::new();
        text::encode(&mut body, &self.registry)?;
        Ok(body)
    }
}

/// Registers a family and returns it.
fn family<const N: usize, M>(
    registry: &mut Registry,
    name: &'static str,
    help: &'static str,
) -> Family<Labels<N>, M>
where
    M: Default,
    Family<Labels<N>, M>: Metric,
{
    let family = Family::default();
    registry.register(name, help, family.clone());
    family
}

// === impl ConfigReloads ===

impl ConfigReloads {
    fn register(registry: &mut Registry) -> Self {
        let by_result: Family<Labels<1>, Counter> = family(
            registry,
            "fairlead_config_reloads",
            "Changes of the configuration, by what became of them",
        );
        Self {
            applied: by_result.get_or_create_owned(&[("result", "applied")]),
            rejected: by_result.get_or_create_owned(&[("result", "rejected")]),
        }
    }
}

// === impl Tunnels ===

impl Tunnels {
    fn register(registry: &mut Registry) -> Self {
        let by_direction: Family<Labels<1>, Gauge> =
            family(registry, "fairlead_tunnels_open", "HBONE connections that are open");
        Self {
            inbound: by_direction.get_or_create_owned(&[("direction", "inbound")]),
            outbound: by_direction.get_or_create_owned(&[("direction", "outbound")]),
        }
    }
}

#[cfg(test)]
mod tests;
