//! The pods that this process serves, also under the names of Istio's node proxy.

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

/// Pods in the mesh on this node.
#[derive(Clone, Debug, Default)]
pub struct ServedPods {
    served: Gauge,
    started: Counter,
    stopped: Counter,
}

// === impl ServedPods ===

impl ServedPods {
    /// Registers the metrics; `waiting` counts the pods that are to be served.
    pub(super) fn register(registry: &mut Registry, waiting: &Gauge) -> Self {
        let pods = Self::default();
        let gauges = [
            ("fairlead_pods_enrolled", "Pods of this node that are in the mesh", &pods.served),
            (
                "fairlead_pods_waiting",
                "Pods of this node that are to be in the mesh and are not captured",
                waiting,
            ),
            ("workload_manager_active_proxy_count", "Pods that are served", &pods.served),
            ("workload_manager_pending_proxy_count", "Pods that are to be served", waiting),
        ];
        for (name, help, gauge) in gauges {
            registry.register(name, help, gauge.clone());
        }
        let counters = [
            ("workload_manager_proxies_started", "Pods that came to be served", &pods.started),
            ("workload_manager_proxies_stopped", "Pods that are served no more", &pods.stopped),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        pods
    }

    /// Counts a pod that is served from here on.
    pub fn start(&self) {
        self.served.inc();
        self.started.inc();
    }

    /// Counts a pod that is served no more.
    pub fn stop(&self) {
        self.served.dec();
        self.stopped.inc();
    }
}
