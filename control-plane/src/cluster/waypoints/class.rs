//! The class of gateways that are waypoints: pure.

use kube::api::DynamicObject;
use serde_json::{Value, json};

use crate::{
    cluster::status::amended, mesh::Judgement, mesh::WAYPOINT_CLASS, source::kubernetes::Stamp,
};

/// Who serves the class, by the name that Istio gives itself.
const CONTROLLER: &str = "istio.io/mesh-controller";

/// Condition that somebody serves the class.
const ACCEPTED: &str = "Accepted";

/// The class of the waypoints.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Class {
    /// Whether it is this controller that serves it.
    pub(super) is_ours: bool,
    version: Box<str>,
    generation: Option<i64>,
    pub(super) conditions: Value,
}

// === impl Class ===

impl Class {
    /// Reads the class.
    pub(super) fn read(object: &DynamicObject) -> Self {
        let DynamicObject { metadata, data, types: _ } = object;
        Self {
            is_ours: data["spec"]["controllerName"] == CONTROLLER,
            version: metadata.resource_version.clone().unwrap_or_default().into(),
            generation: metadata.generation,
            conditions: data["status"]["conditions"].clone(),
        }
    }

    /// Returns the class as it is made.
    pub(super) fn wanted() -> Value {
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "GatewayClass",
            "metadata": { "name": WAYPOINT_CLASS },
            "spec": {
                "controllerName": CONTROLLER,
                "description": "Waypoints of the mesh: made for each gateway of this class.",
            },
        })
    }

    /// Returns the patch by which the status says that the class is served; none if it does.
    pub(super) fn accepted(&self, now: &str) -> Option<Value> {
        let stamp = Stamp {
            version: self.version.clone(),
            generation: self.generation,
            conditions: self.conditions.as_array().cloned().unwrap_or_default(),
            parents: Vec::new(),
        };
        let message = "waypoints are made for its gateways".to_owned();
        let judgement = Judgement { holds: true, reason: ACCEPTED, message };
        let conditions = amended(ACCEPTED, &stamp, Some(&judgement), now)?;
        Some(json!({
            "metadata": { "resourceVersion": self.version },
            "status": { "conditions": conditions },
        }))
    }
}
