//! What the kernel counts for each pod, as capture tells it.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use fairlead_ebpf::Fate;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
};

use crate::link::message::CountedPod;

/// `fairlead_pod_connections_total`: the captured pods of this node. Capture bounds their number.
#[derive(Clone, Debug, Default)]
pub struct PodConnections(Arc<Mutex<Told>>);

#[derive(Debug, Default)]
struct Told {
    pods: Vec<CountedPod>,
    /// The parts of the next report that have come.
    next: Vec<CountedPod>,
}

// === impl PodConnections ===

impl PodConnections {
    /// Takes a part of a report; the last one replaces the report before.
    pub fn take(&self, pods: Vec<CountedPod>, last: bool) {
        let mut told = self.lock();
        told.next.extend(pods);
        if last {
            told.pods = std::mem::take(&mut told.next);
        }
    }

    /// Forgets the parts of a report that will have no end: whoever told them is gone.
    pub fn begin(&self) {
        self.lock().next.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        // Half a report is replaced by the next one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for PodConnections {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut metric = encoder.encode_descriptor(
            "fairlead_pod_connections",
            "TCP connections out of and into pods, by what the kernel did with them",
            None,
            MetricType::Counter,
        )?;
        for pod in &self.lock().pods {
            let (namespace, name) = (pod.namespace.as_str(), pod.name.as_str());
            for (fate, &count) in Fate::ALL.iter().zip(&pod.counts).filter(|(_, count)| **count > 0)
            {
                let (direction, outcome) = labels(*fate);
                let labels = [
                    ("namespace", namespace),
                    ("pod", name),
                    ("direction", direction),
                    ("outcome", outcome),
                ];
                metric
                    .encode_family(&labels)?
                    .encode_counter::<NoLabelSet, u64, u64>(&count, None)?;
            }
        }
        Ok(())
    }
}

/// Returns the values of the labels `direction` and `outcome`.
fn labels(fate: Fate) -> (&'static str, &'static str) {
    match fate {
        Fate::OutboundCaptured => ("outbound", "captured"),
        Fate::OutboundBypassed => ("outbound", "bypassed"),
        Fate::OutboundRefused => ("outbound", "refused"),
        Fate::InboundTunnel => ("inbound", "tunnel"),
        Fate::InboundPlaintext => ("inbound", "plaintext"),
        Fate::InboundProbe => ("inbound", "probe"),
        Fate::InboundRefused => ("inbound", "refused"),
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::{encoding::text, registry::Registry};

    use super::*;

    fn pod(name: &str, counts: &[u64]) -> CountedPod {
        let (namespace, name) = ("shop".parse().unwrap(), name.parse().unwrap());
        CountedPod { namespace, name, counts: counts.to_vec() }
    }

    fn page(connections: &PodConnections) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(connections.clone()));
        let mut page = String::new();
        text::encode(&mut page, &registry).unwrap();
        page
    }

    #[test]
    fn a_report_replaces_the_one_before_once_it_is_whole() {
        let connections = PodConnections::default();
        connections.take(vec![pod("cut", &[1])], false);
        // Capture was restarted.
        connections.begin();
        connections.take(vec![pod("a", &[3, 0, 1, 0, 0, 2, 0, 77])], false);
        assert!(!page(&connections).contains("pod="), "half a report");
        connections.take(vec![pod("b", &[0, 4])], true);
        let first = page(&connections);
        let mut series: Vec<_> = first.lines().filter(|line| !line.starts_with('#')).collect();
        series.sort_unstable();
        let of = |pod, direction, outcome, count| {
            format!(
                "fairlead_pod_connections_total{{namespace=\"shop\",pod=\"{pod}\",\
                 direction=\"{direction}\",outcome=\"{outcome}\"}} {count}"
            )
        };
        assert_eq!(
            series,
            [
                of("a", "inbound", "probe", 2),
                of("a", "outbound", "captured", 3),
                of("a", "outbound", "refused", 1),
                of("b", "outbound", "bypassed", 4),
            ]
        );
        connections.take(Vec::new(), true);
        assert!(!page(&connections).contains("pod="), "both pods are gone");
    }
}
