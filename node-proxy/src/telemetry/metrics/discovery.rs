//! What is counted of the conversation with the control plane, under Istio's names where it has
//! some.

use mesh_api::xds_client::StreamEnd;
use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::{Labels, family};

/// Counters of the conversation with the control plane.
#[derive(Clone, Debug)]
pub struct DiscoveryMetrics {
    /// 1 while a stream is open.
    pub connected: Gauge,
    /// Resources that were refused.
    pub rejected: Counter,
    messages: Family<Labels<1>, Counter>,
    bytes: Family<Labels<1>, Counter>,
    terminations: Family<Labels<1>, Counter>,
}

/// How a stream ended: the `reason` label of `istio_xds_connection_terminations_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Termination {
    /// It never began.
    ConnectionError,
    /// It was refused or broke.
    Error,
    /// The control plane ended it in order.
    Complete,
}

// === impl DiscoveryMetrics ===

impl DiscoveryMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let connected = Gauge::default();
        registry.register(
            "fairlead_xds_connected",
            "Whether a stream to the control plane is open",
            connected.clone(),
        );
        let rejected = Counter::default();
        registry.register(
            "fairlead_xds_rejected_resources",
            "Resources of the control plane that were refused",
            rejected.clone(),
        );
        Self {
            connected,
            rejected,
            messages: family(registry, "istio_xds_message", "Messages of the control plane"),
            bytes: family(registry, "istio_xds_message_bytes", "Bytes of these messages"),
            terminations: family(
                registry,
                "istio_xds_connection_terminations",
                "Streams to the control plane that ended, by how",
            ),
        }
    }

    /// Counts a message.
    pub fn received(&self, type_url: &'static str, bytes: usize) {
        let labels = [("url", type_url)];
        self.messages.get_or_create(&labels).inc();
        self.bytes.get_or_create(&labels).inc_by(bytes as u64);
    }

    /// Counts a stream that ended.
    pub fn terminated(&self, how: Termination) {
        self.terminations.get_or_create(&[("reason", how.as_str())]).inc();
    }
}

// === impl Termination ===

impl Termination {
    fn as_str(self) -> &'static str {
        match self {
            Self::ConnectionError => "ConnectionError",
            Self::Error => "Error",
            Self::Complete => "Complete",
        }
    }
}

impl From<&StreamEnd> for Termination {
    fn from(end: &StreamEnd) -> Self {
        match end {
            StreamEnd::NotConnected(_) => Self::ConnectionError,
            StreamEnd::Status(_) | StreamEnd::UnknownType(_) => Self::Error,
            StreamEnd::Complete => Self::Complete,
        }
    }
}
