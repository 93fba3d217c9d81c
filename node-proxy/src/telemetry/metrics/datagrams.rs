//! What the kernel has counted of the datagrams of pods.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use mesh_api::identity::Namespace;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, counter::ConstCounter},
};

use crate::link::message::{PodDatagrams, PodId};

/// Counts of the datagrams of pods; clones are the same.
#[derive(Clone, Debug, Default)]
pub struct DatagramMetrics(Arc<Mutex<BTreeMap<PodId, Counted>>>);

/// A pod and its counts. As many as there are enrolled pods.
#[derive(Debug)]
struct Counted {
    namespace: Namespace,
    name: Arc<str>,
    counts: PodDatagrams,
}

/// A series: its labels `direction` and `result`, and its value.
type Series = (&'static str, &'static str, fn(&PodDatagrams) -> u64);

const SERIES: [Series; 5] = [
    ("outbound", "resolved", |counts| counts.resolved),
    ("outbound", "passed", |counts| counts.sent),
    ("outbound", "refused", |counts| counts.sent_refused),
    ("inbound", "passed", |counts| counts.received),
    ("inbound", "refused", |counts| counts.received_refused),
];

// === impl DatagramMetrics ===

impl DatagramMetrics {
    /// Notes the counts of a pod.
    pub fn set(&self, namespace: &Namespace, name: &Arc<str>, counts: PodDatagrams) {
        let counted = Counted { namespace: namespace.clone(), name: name.clone(), counts };
        self.pods().insert(counts.pod, counted);
    }

    /// Forgets a pod.
    pub fn forget(&self, pod: PodId) {
        self.pods().remove(&pod);
    }

    fn pods(&self) -> MutexGuard<'_, BTreeMap<PodId, Counted>> {
        // Every change of the map is a single insert or remove: it is whole even after a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for DatagramMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Datagrams of enrolled pods by what became of them; of connected sockets only \
                    the connecting";
        let mut family =
            encoder.encode_descriptor("fairlead_datagrams", help, None, MetricType::Counter)?;
        for Counted { namespace, name, counts } in self.pods().values() {
            for (direction, result, value) in SERIES {
                let labels = [
                    ("pod_namespace", namespace.as_str()),
                    ("pod", name),
                    ("direction", direction),
                    ("result", result),
                ];
                let metric = family.encode_family(&labels)?;
                ConstCounter::new(value(counts)).encode(metric)?;
            }
        }
        Ok(())
    }
}
