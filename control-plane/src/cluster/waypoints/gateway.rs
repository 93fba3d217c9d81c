//! Gateways, as far as their waypoints depend on them: pure.

use std::collections::BTreeMap;

use kube::api::DynamicObject;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    mesh::{WAYPOINT_CLASS, waypoint_names},
    object::{ObjectName, is_name},
};

/// Protocol of the one listener that a waypoint has.
pub(super) const PROTOCOL: &str = "HBONE";

/// Port of that listener.
pub(super) const PORT: u16 = 15008;

/// Longest name of a service, in bytes (RFC 1035).
const MAX_LABEL_BYTES: usize = 63;

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
    parameters_ref: Option<ParametersRef>,
}

/// What says how things are made otherwise than usual.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct ParametersRef {
    group: String,
    kind: String,
    name: String,
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

    /// Returns the name of the deployment and of the service.
    pub(super) fn service_name(&self) -> &str {
        waypoint_names::service_name(&self.name.name, |name| self.annotation(name))
    }

    /// Returns the name of the service account.
    pub(super) fn account_name(&self) -> &str {
        waypoint_names::account_name(&self.name.name, |name| self.annotation(name))
    }

    /// Returns the config map that says how its waypoint is made, if one does.
    pub(super) fn parameters(&self) -> Option<ObjectName> {
        let reference = self.spec.infrastructure.parameters_ref.as_ref()?;
        Some(ObjectName::new(self.name.namespace.clone(), reference.name.as_str()))
    }

    fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.get(name).map(String::as_str)
    }

    /// Returns why nothing can have the name that an annotation gives it.
    fn refused_name(&self) -> Option<Refusal> {
        let refused = |annotation: &str, wanted: &str| {
            let message = format!("metadata.annotations[{annotation}]: write {wanted}");
            Some(Refusal::new(Refusal::INVALID_PARAMETERS, message))
        };
        let own = &*self.name.name;
        let (service, account) = (self.service_name(), self.account_name());
        if service != own && !is_service_name(service) {
            let wanted = "at most 63 lower-case letters, digits and '-', a letter first";
            return refused(waypoint_names::NAME_OVERRIDE, wanted);
        }
        if account != own && !is_name(account) {
            let wanted =
                "the name of a service account, of lower-case letters, digits, '-' and '.'";
            return refused(waypoint_names::SERVICE_ACCOUNT, wanted);
        }
        None
    }

    /// Returns why no waypoint can be made as it says, if none can.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        if !self.spec.addresses.is_empty() {
            let message = "spec.addresses: leave it out, as a waypoint has the address of the service \
                           that is made for it";
            return Some(Refusal::new("UnsupportedAddress", message));
        }
        if let Some(ParametersRef { group, kind, .. }) = &self.spec.infrastructure.parameters_ref
            && !(group.is_empty() && kind == "ConfigMap")
        {
            let message = "spec.infrastructure.parametersRef: refer to a ConfigMap, with kind \
                           ConfigMap and group \"\"";
            return Some(Refusal::new(Refusal::INVALID_PARAMETERS, message));
        }
        if let Some(refusal) = self.refused_name() {
            return Some(refusal);
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
    /// Reason that what says how something is made does not make sense.
    pub(super) const INVALID_PARAMETERS: &'static str = "InvalidParameters";

    pub(super) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// Returns whether a service may be called so.
fn is_service_name(name: &str) -> bool {
    is_name(name)
        && name.len() <= MAX_LABEL_BYTES
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && !name.contains('.')
}
