//! Gateways, as far as their waypoints depend on them: pure.

use std::collections::BTreeMap;

use kube::api::DynamicObject;
use serde::Deserialize;
use serde_json::Value;

use crate::{mesh::WAYPOINT_CLASS, object::ObjectName};

/// Protocol of the one listener that a waypoint has.
pub(super) const PROTOCOL: &str = "HBONE";

/// Port of that listener.
pub(super) const PORT: u16 = 15008;

/// Annotations by which what is made would have other names, by which nobody would know it.
const NAMES: [&str; 2] = ["gateway.istio.io/name-override", "gateway.istio.io/service-account"];

/// Labels or annotations.
pub(super) type Labels = BTreeMap<String, String>;

/// A gateway of the waypoints' class.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Gateway {
    pub(super) name: ObjectName,
    pub(super) uid: String,
    pub(super) version: Box<str>,
    pub(super) generation: Option<i64>,
    pub(super) is_deleting: bool,
    pub(super) annotations: Labels,
    pub(super) spec: Spec,
    pub(super) status: Value,
}

/// What is wanted of a gateway.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Spec {
    gateway_class_name: String,
    pub(super) listeners: Vec<Listener>,
    addresses: Vec<Value>,
    pub(super) infrastructure: Infrastructure,
}

/// A port that a gateway is to have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Listener {
    pub(super) name: String,
    pub(super) port: u16,
    pub(super) protocol: String,
}

/// What everything that is made for a gateway has.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Infrastructure {
    pub(super) labels: Labels,
    pub(super) annotations: Labels,
    parameters_ref: Option<Value>,
}

/// Why a gateway, or a listener of it, is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// Reason of the condition.
    pub(super) reason: &'static str,
    /// What is wrong, beginning with the field.
    pub(super) message: String,
}

// === impl Gateway ===

impl Gateway {
    /// Reads a gateway; none if it is of another class, or has a form that this API does not have.
    pub(super) fn read(object: DynamicObject) -> Option<Self> {
        let DynamicObject { metadata, mut data, types: _ } = object;
        let spec: Spec = serde_json::from_value(data["spec"].take()).ok()?;
        if spec.gateway_class_name != WAYPOINT_CLASS {
            return None;
        }
        let name = ObjectName::new(metadata.namespace?, metadata.name?);
        Some(Self {
            name,
            uid: metadata.uid?,
            version: metadata.resource_version?.into(),
            generation: metadata.generation,
            is_deleting: metadata.deletion_timestamp.is_some(),
            annotations: metadata.annotations.unwrap_or_default(),
            spec,
            status: data["status"].take(),
        })
    }

    /// Returns why no waypoint can be made as it says, if none can.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        if !self.spec.addresses.is_empty() {
            let message = "spec.addresses: leave it out, as a waypoint has the address of the service \
                           that is made for it";
            return Some(Refusal::new("UnsupportedAddress", message));
        }
        if self.spec.infrastructure.parameters_ref.is_some() {
            let message = "spec.infrastructure.parametersRef: leave it out, as nothing is read from \
                           there";
            return Some(Refusal::new("InvalidParameters", message));
        }
        if let Some(name) = NAMES.into_iter().find(|name| self.annotations.contains_key(*name)) {
            let message = format!(
                "metadata.annotations[{name}]: leave it out, as the waypoint is known by the \
                 gateway's name"
            );
            return Some(Refusal::new("InvalidParameters", message));
        }
        let mut listeners = self.spec.listeners.iter().enumerate();
        if listeners.any(|(i, listener)| listener.refusal(i).is_none()) {
            return None;
        }
        let message =
            format!("spec.listeners: none of them has protocol {PROTOCOL} and port {PORT}");
        Some(Refusal::new("ListenersNotValid", message))
    }
}

// === impl Listener ===

impl Listener {
    /// Returns why a waypoint does not have this listener, the one at `index`, if it does not.
    pub(super) fn refusal(&self, index: usize) -> Option<Refusal> {
        let Self { port, protocol, name: _ } = self;
        if protocol != PROTOCOL {
            let message = format!(
                "spec.listeners[{index}].protocol: a waypoint has {PROTOCOL} in place of {protocol}"
            );
            return Some(Refusal::new("UnsupportedProtocol", message));
        }
        if *port != PORT {
            let message =
                format!("spec.listeners[{index}].port: a waypoint has {PORT} in place of {port}");
            return Some(Refusal::new("PortUnavailable", message));
        }
        None
    }
}

// === impl Refusal ===

impl Refusal {
    fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}
