//! What identifies a series of connections, and how it is written as Prometheus labels.

use std::{
    fmt::{self, Display, Write},
    hash::{Hash, Hasher},
    sync::Arc,
};

use mesh_api::{
    identity::{Identity, Namespace},
    workload::{Service, Workload},
};
use prometheus_client::encoding::{
    EncodeLabel, EncodeLabelSet, EncodeLabelValue, LabelSetEncoder, LabelValueEncoder,
};

use crate::telemetry::reason::ResponseFlags;

/// Value of a label whose fact is not known.
pub(super) const UNKNOWN: &str = "unknown";

/// Value of every label of the series that takes what exceeds the bound.
pub(super) const OVERFLOW: &str = "overflow";

/// Side of the connection that this proxy acts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reporter {
    /// The client's: outbound.
    Source,
    /// The server's: inbound.
    Destination,
}

/// One end of a connection, as far as known.
#[derive(Clone, Debug, Default)]
pub struct End {
    /// The workload at this end.
    pub workload: Option<Arc<Workload>>,
    /// Identity proved by mutual TLS (or by the enrolment of both pods with this proxy); `None` on
    /// a plaintext connection.
    pub identity: Option<Identity>,
}

/// What became of a connection to an address that the mesh does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outside {
    /// It passed.
    Passed,
    /// It was refused.
    Refused,
}

/// What the metrics and the access log say about a connection.
///
/// Equal where the labels are equal: pods of one Deployment share a series.
#[derive(Clone, Debug)]
pub struct ConnectionLabels {
    /// Side that this proxy acts for.
    pub reporter: Reporter,
    /// The client.
    pub source: End,
    /// The server.
    pub destination: End,
    /// Service that the client addressed.
    pub service: Option<Arc<Service>>,
    /// What became of it if the mesh does not know where it goes.
    pub outside: Option<Outside>,
}

/// Labels of one sample; `labels` is `None` for the overflow series.
#[derive(Debug)]
pub(super) struct SampleLabels<'a> {
    pub(super) labels: Option<&'a ConnectionLabels>,
    pub(super) flags: ResponseFlags,
}

struct Value<'a>(&'a dyn Display);

type Label = (&'static str, for<'a> fn(&'a ConnectionLabels) -> Option<&'a dyn Display>);

const LABELS: [Label; 25] = [
    ("reporter", |l| Some(l.reporter.name())),
    ("source_workload", |l| l.source.text(|w| &w.workload_name)),
    ("source_canonical_service", |l| l.source.text(|w| &w.canonical_name)),
    ("source_canonical_revision", |l| l.source.text(|w| &w.canonical_revision)),
    ("source_workload_namespace", |l| l.source.namespace()),
    ("source_principal", |l| l.source.principal()),
    ("source_app", |l| l.source.text(|w| &w.canonical_name)),
    ("source_version", |l| l.source.text(|w| &w.canonical_revision)),
    ("source_cluster", |l| l.source.text(|w| &w.cluster_id)),
    ("destination_service", |l| l.service.as_ref().map(|s| &s.key.hostname as _)),
    ("destination_service_namespace", |l| l.service.as_ref().map(|s| &s.key.namespace as _)),
    ("destination_service_name", |l| l.service_name()),
    ("destination_workload", |l| l.destination.text(|w| &w.workload_name)),
    ("destination_canonical_service", |l| l.destination.text(|w| &w.canonical_name)),
    ("destination_canonical_revision", |l| l.destination.text(|w| &w.canonical_revision)),
    ("destination_workload_namespace", |l| l.destination.namespace()),
    ("destination_principal", |l| l.destination.principal()),
    ("destination_app", |l| l.destination.text(|w| &w.canonical_name)),
    ("destination_version", |l| l.destination.text(|w| &w.canonical_revision)),
    ("destination_cluster", |l| l.destination.text(|w| &w.cluster_id)),
    ("connection_security_policy", |l| l.is_mutual_tls().then_some(&"mutual_tls")),
    ("source_region", |l| l.source.text(|w| &w.locality.region)),
    ("source_zone", |l| l.source.text(|w| &w.locality.zone)),
    ("destination_region", |l| l.destination.text(|w| &w.locality.region)),
    ("destination_zone", |l| l.destination.text(|w| &w.locality.zone)),
];

// === impl Reporter ===

impl Reporter {
    /// Returns the value of the `reporter` label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
        }
    }

    /// Returns the direction of the connection as this proxy sees it.
    pub fn direction(self) -> &'static str {
        match self {
            Self::Source => "outbound",
            Self::Destination => "inbound",
        }
    }

    fn name(self) -> &'static dyn Display {
        match self {
            Self::Source => &"source",
            Self::Destination => &"destination",
        }
    }
}

// === impl End ===

impl End {
    /// Returns the namespace of the workload, or else of the identity.
    pub fn workload_namespace(&self) -> Option<&Namespace> {
        match (&self.workload, &self.identity) {
            (Some(workload), _) => Some(workload.namespace()),
            (None, Some(identity)) => Some(&identity.namespace),
            (None, None) => None,
        }
    }

    fn text(&self, field: impl FnOnce(&Workload) -> &Arc<str>) -> Option<&dyn Display> {
        let text = field(self.workload.as_ref()?);
        if text.is_empty() { None } else { Some(text) }
    }

    fn namespace(&self) -> Option<&dyn Display> {
        self.workload_namespace().map(|namespace| namespace as _)
    }

    fn principal(&self) -> Option<&dyn Display> {
        self.identity.as_ref().map(|identity| identity as _)
    }

    /// Returns everything that a label shows.
    fn content(&self) -> impl Hash + Eq {
        let workload = self.workload.as_ref().map(|w| {
            (
                &w.workload_name,
                w.namespace(),
                &w.canonical_name,
                &w.canonical_revision,
                &w.cluster_id,
                &w.locality.region,
                &w.locality.zone,
            )
        });
        (workload, &self.identity)
    }
}

// === impl Outside ===

impl Outside {
    /// Returns what stands for the name of a service, as Istio's proxies call it.
    fn name(self) -> &'static dyn Display {
        match self {
            Self::Passed => &"PassthroughCluster",
            Self::Refused => &"BlackHoleCluster",
        }
    }
}

// === impl ConnectionLabels ===

impl ConnectionLabels {
    /// Returns whether both ends proved who they are.
    pub fn is_mutual_tls(&self) -> bool {
        self.source.identity.is_some() && self.destination.identity.is_some()
    }

    fn service_name(&self) -> Option<&dyn Display> {
        match &self.service {
            Some(service) => Some(&service.name),
            None => self.outside.map(|outside| outside.name() as _),
        }
    }

    fn content(&self) -> impl Hash + Eq {
        let service = self.service.as_ref().map(|s| (&s.key, &s.name));
        (self.reporter, self.source.content(), self.destination.content(), service, self.outside)
    }
}

impl PartialEq for ConnectionLabels {
    fn eq(&self, other: &Self) -> bool {
        self.content() == other.content()
    }
}

impl Eq for ConnectionLabels {}

impl Hash for ConnectionLabels {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.content().hash(state);
    }
}

// === impl SampleLabels ===

impl EncodeLabelSet for SampleLabels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        for (key, value) in LABELS {
            let value = match self.labels {
                Some(labels) => value(labels).unwrap_or(&UNKNOWN),
                None => &OVERFLOW,
            };
            (key, Value(value)).encode(encoder.encode_label())?;
        }
        ("request_protocol", "tcp").encode(encoder.encode_label())?;
        ("response_flags", self.flags.as_str()).encode(encoder.encode_label())
    }
}

// === impl Value ===

impl EncodeLabelValue for Value<'_> {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        write!(encoder, "{}", self.0)
    }
}
