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

/// `fairlead_pod_connections_total` and `fairlead_pod_datagrams_total`: the captured pods of this node. Capture bounds their number.
#[derive(Clone, Debug, Default)]
pub struct PodConnections(Arc<Mutex<Told>>);

#[derive(Debug, Default)]
struct Told {
    pods: Vec<CountedPod>,
    /// The parts of the next report that have come.
    next: Vec<CountedPod>,
}

/// A metric: its name, its help and what it shows.
type Shown = (&'static str, &'static str, fn(Fate) -> bool);

const METRICS: [Shown; 2] = [
    (
        "fairlead_pod_connections",
        "TCP connections out of and into pods, by what the kernel did with them",
        |fate| !is_of_datagrams(fate),
    ),
    (
        "fairlead_pod_datagrams",
        "Datagrams out of and into pods, by what the kernel did with them; of a connected socket only \
         the connecting",
        is_of_datagrams,
    ),
];

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
        let pods = &self.lock().pods;
        for (name, help, is_shown) in METRICS {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for pod in pods {
                let (namespace, name) = (pod.namespace.as_str(), pod.name.as_str());
                let counts = Fate::ALL.iter().zip(&pod.counts);
                for (fate, &count) in counts.filter(|(fate, count)| is_shown(**fate) && **count > 0)
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
        }
        Ok(())
    }
}

fn is_of_datagrams(fate: Fate) -> bool {
    match fate {
        Fate::OutboundCaptured
        | Fate::OutboundBypassed
        | Fate::OutboundRefused
        | Fate::InboundTunnel
        | Fate::InboundPlaintext
        | Fate::InboundProbe
        | Fate::InboundRefused => false,
        Fate::DatagramResolved
        | Fate::DatagramSent
        | Fate::DatagramSentRefused
        | Fate::DatagramReceived
        | Fate::DatagramReceivedRefused => true,
    }
}

/// Returns the values of the labels `direction` and `outcome`.
fn labels(fate: Fate) -> (&'static str, &'static str) {
    match fate {
        Fate::OutboundCaptured => ("outbound", "captured"),
        Fate::OutboundBypassed => ("outbound", "bypassed"),
        Fate::OutboundRefused | Fate::DatagramSentRefused => ("outbound", "refused"),
        Fate::InboundTunnel => ("inbound", "tunnel"),
        Fate::InboundPlaintext => ("inbound", "plaintext"),
        Fate::InboundProbe => ("inbound", "probe"),
        Fate::InboundRefused | Fate::DatagramReceivedRefused => ("inbound", "refused"),
        Fate::DatagramResolved => ("outbound", "resolved"),
        Fate::DatagramSent => ("outbound", "passed"),
        Fate::DatagramReceived => ("inbound", "passed"),
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
        connections.take(vec![pod("a", &[3, 0, 1, 0, 0, 2, 0, 0, 5, 0, 0, 6, 77])], false);
        assert!(!page(&connections).contains("pod="), "half a report");
        connections.take(vec![pod("b", &[0, 4])], true);
        let first = page(&connections);
        let mut series: Vec<_> = first.lines().filter(|line| !line.starts_with('#')).collect();
        series.sort_unstable();
        let counted = |what, pod, direction, outcome, count| {
            format!(
                "fairlead_pod_{what}_total{{namespace=\"shop\",pod=\"{pod}\",\
                 direction=\"{direction}\",outcome=\"{outcome}\"}} {count}"
            )
        };
        let of =
            |pod, direction, outcome, count| counted("connections", pod, direction, outcome, count);
        assert_eq!(
            series,
            [
                of("a", "inbound", "probe", 2),
                of("a", "outbound", "captured", 3),
                of("a", "outbound", "refused", 1),
                of("b", "outbound", "bypassed", 4),
                counted("datagrams", "a", "inbound", "refused", 6),
                counted("datagrams", "a", "outbound", "passed", 5),
            ]
        );
        connections.take(Vec::new(), true);
        assert!(!page(&connections).contains("pod="), "both pods are gone");
    }
}
