//! Where the requests of a connection are counted.

use std::{cell::RefCell, sync::Arc};

use mesh_api::workload::Workload;

use crate::{route::Flags, telemetry::RequestCounts};

/// Kinds of requests that a connection knows the counts of; with more it begins anew.
const MAX_KINDS: usize = 16;

/// Counts of a connection's requests. Each is found once: most requests of a connection are of one
/// kind, and there are two dozen labels.
#[derive(Debug, Default)]
pub(super) struct Counted(RefCell<Vec<(Kind, RequestCounts)>>);

/// What a request is counted under beside what it has in common with the others of its connection.
#[derive(Clone, Debug)]
pub(super) struct Kind {
    pub(super) destination: Option<Arc<Workload>>,
    pub(super) is_grpc: bool,
    pub(super) status: u16,
    pub(super) grpc_status: Option<u16>,
    pub(super) flags: Flags,
}

// === impl Counted ===

impl Counted {
    /// Returns the counts of a kind, which `find` knows if they are not known here yet.
    pub(super) fn of(&self, kind: Kind, find: impl FnOnce() -> RequestCounts) -> RequestCounts {
        let mut known = self.0.borrow_mut();
        if let Some((_, counts)) = known.iter().find(|(known, _)| known.is(&kind)) {
            return counts.clone();
        }
        if known.len() == MAX_KINDS {
            known.clear();
        }
        let counts = find();
        known.push((kind, counts.clone()));
        counts
    }
}

// === impl Kind ===

impl Kind {
    /// Returns whether the other one has the same labels: what is told of a workload may change, and
    /// is another object then.
    fn is(&self, other: &Self) -> bool {
        let Self { destination, is_grpc, status, grpc_status, flags } = other;
        let same = match (&self.destination, destination) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        same && (self.is_grpc, self.status, self.grpc_status, self.flags)
            == (*is_grpc, *status, *grpc_status, *flags)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fairlead_component::logging::DroppedLines;
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::telemetry::{Metrics, RequestLabels, RequestTotals, Side};

    fn labels(status: u16) -> RequestLabels<'static> {
        RequestLabels {
            source: Side::default(),
            destination: Side::default(),
            service: None,
            protocol: "http",
            status: Some(status),
            grpc_status: None,
            flags: Flags::default(),
        }
    }

    #[test]
    fn each_kind_is_looked_for_once_and_counted_under_its_own_labels() {
        let metrics = Metrics::new(DroppedLines::default());
        let (counted, mut looked) = (Counted::default(), 0);
        for status in [200, 200, 503, 200] {
            let (destination, grpc_status) = (None, None);
            let flags = Flags::default();
            let kind = Kind { destination, is_grpc: false, status, grpc_status, flags };
            let counts = counted.of(kind, || {
                looked += 1;
                metrics.requests(&labels(status))
            });
            let duration = Duration::from_millis(1);
            counts.add(RequestTotals { duration, received: 3, sent: 5, messages: [0, 0] });
        }
        assert_eq!(looked, 2);
        let page = metrics.encode(&Registry::default()).unwrap();
        for (status, number) in [(200, 3), (503, 1)] {
            let line = page.lines().find(|line| {
                line.starts_with("istio_requests_total")
                    && line.contains(&format!("response_code=\"{status}\""))
            });
            assert!(line.unwrap().ends_with(&format!("}} {number}")), "{page}");
            for (name, sum) in [
                ("istio_request_duration_milliseconds", number),
                ("istio_request_bytes", 3 * number),
                ("istio_response_bytes", 5 * number),
            ] {
                let line = page.lines().find(|line| {
                    line.starts_with(&format!("{name}_sum{{"))
                        && line.contains(&format!("response_code=\"{status}\""))
                });
                assert!(line.unwrap().ends_with(&format!("}} {sum}.0")), "{name}: {page}");
            }
        }
    }

    #[test]
    fn no_more_kinds_are_kept_than_there_may_be() {
        let metrics = Metrics::new(DroppedLines::default());
        let counted = Counted::default();
        for status in 200..500 {
            let kind = Kind {
                destination: None,
                is_grpc: false,
                status,
                grpc_status: None,
                flags: Flags::default(),
            };
            counted.of(kind, || metrics.requests(&labels(status)));
            assert!(counted.0.borrow().len() <= MAX_KINDS);
        }
    }
}
