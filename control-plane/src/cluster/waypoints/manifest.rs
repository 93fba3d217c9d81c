//! What is made for a gateway: pure.

use serde_json::{Map, Value, json};

use super::gateway::{Gateway, Labels, PORT};
use crate::{
    cluster::publish::{REVOKED, ROOTS},
    mesh::WAYPOINT_CLASS,
    object::ObjectName,
};

/// Label of what is made here, with who made it; its value is that of Istio's.
pub(super) const MANAGED: (&str, &str) = ("gateway.istio.io/managed", "istio.io-mesh-controller");

/// Label with the name of the gateway that something was made for.
const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";

/// Label with the class of that gateway.
const GATEWAY_CLASS: &str = "gateway.networking.k8s.io/gateway-class-name";

/// Annotation of services with the preferred endpoints: those in the zone of the client.
const TRAFFIC_DISTRIBUTION: (&str, &str) =
    ("networking.istio.io/traffic-distribution", "PreferClose");

/// Name of the container, as Istio's and the tools for it have it.
const CONTAINER: &str = "istio-proxy";

/// Where the image has the program.
const PROGRAM: &str = "/usr/local/bin/fairlead-waypoint";

/// Port of the metrics.
const METRICS_PORT: u16 = 15020;

/// Port of the readiness probe.
const STATUS_PORT: u16 = 15021;

/// User and group of the pods, as with Istio.
const USER: u32 = 1337;

/// Where pods have the roots.
const ROOTS_DIR: &str = "/var/run/secrets/istio";

/// Where pods have the lists of revoked certificates.
const REVOKED_DIR: &str = "/var/run/secrets/istio-crl";

/// Where pods have their token.
const TOKEN_DIR: &str = "/var/run/secrets/tokens";

/// Name of the file with the token.
const TOKEN: &str = "istio-token";

/// Lifetime of tokens, in seconds; the kubelet replaces them in time.
const TOKEN_SECONDS: u32 = 43_200;

/// Time for a waypoint to end, in seconds; longer than it waits for open connections by itself.
const GRACE_SECONDS: u32 = 30;

/// What waypoints are told by their options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Container image.
    pub image: String,
    /// Where they find the control plane: host and port.
    pub control_plane: String,
    /// Whom their tokens are meant for.
    pub audience: String,
    /// Trust domain of the mesh.
    pub trust_domain: String,
    /// Name of the cluster.
    pub cluster: String,
    /// Network of their addresses.
    pub network: String,
    /// Domain of the names of services.
    pub domain: String,
    /// Namespace with what is for all gateways of the class.
    pub root_namespace: String,
}

/// Something that is made for a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    ServiceAccount,
    Service,
    Deployment,
    HorizontalPodAutoscaler,
    PodDisruptionBudget,
}

// === impl Part ===

impl Part {
    /// All, in the order in which they are made.
    pub(super) const ALL: [Self; 5] = [
        Self::ServiceAccount,
        Self::Service,
        Self::Deployment,
        Self::HorizontalPodAutoscaler,
        Self::PodDisruptionBudget,
    ];

    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::ServiceAccount => "ServiceAccount",
            Self::Service => "Service",
            Self::Deployment => "Deployment",
            Self::HorizontalPodAutoscaler => "HorizontalPodAutoscaler",
            Self::PodDisruptionBudget => "PodDisruptionBudget",
        }
    }

    /// Returns the key of config maps that says how it is made.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::ServiceAccount => "serviceAccount",
            Self::Service => "service",
            Self::Deployment => "deployment",
            Self::HorizontalPodAutoscaler => "horizontalPodAutoscaler",
            Self::PodDisruptionBudget => "podDisruptionBudget",
        }
    }

    /// Returns whether it is made only if a config map says how.
    pub(super) fn is_optional(self) -> bool {
        match self {
            Self::ServiceAccount | Self::Service | Self::Deployment => false,
            Self::HorizontalPodAutoscaler | Self::PodDisruptionBudget => true,
        }
    }

    /// Returns the fields, as JSON pointers, that say what it is of and by which it is found.
    pub(super) fn fixed(self) -> impl Iterator<Item = &'static str> {
        const ALL: [&str; 7] = [
            "/apiVersion",
            "/kind",
            "/metadata/name",
            "/metadata/namespace",
            "/metadata/ownerReferences",
            "/metadata/labels/gateway.istio.io~1managed",
            "/metadata/labels/gateway.networking.k8s.io~1gateway-name",
        ];
        let own: &[&str] = match self {
            Self::ServiceAccount => &[],
            Self::Service | Self::PodDisruptionBudget => &["/spec/selector"],
            Self::Deployment => &[
                "/spec/selector",
                "/spec/template/metadata/labels/gateway.istio.io~1managed",
                "/spec/template/metadata/labels/gateway.networking.k8s.io~1gateway-name",
                "/spec/template/metadata/labels/istio.io~1dataplane-mode",
                "/spec/template/spec/serviceAccount",
                "/spec/template/spec/serviceAccountName",
            ],
            Self::HorizontalPodAutoscaler => &["/spec/scaleTargetRef"],
        };
        ALL.into_iter().chain(own.iter().copied())
    }

    pub(super) fn group(self) -> &'static str {
        match self {
            Self::ServiceAccount | Self::Service => "",
            Self::Deployment => "apps",
            Self::HorizontalPodAutoscaler => "autoscaling",
            Self::PodDisruptionBudget => "policy",
        }
    }

    pub(super) fn version(self) -> &'static str {
        match self {
            Self::ServiceAccount | Self::Service | Self::Deployment | Self::PodDisruptionBudget => {
                "v1"
            }
            Self::HorizontalPodAutoscaler => "v2",
        }
    }

    /// Returns what this part of the waypoint of a gateway is called.
    pub(super) fn name(self, gateway: &Gateway) -> ObjectName {
        let name = match self {
            Self::ServiceAccount => gateway.account_name(),
            Self::Service
            | Self::Deployment
            | Self::HorizontalPodAutoscaler
            | Self::PodDisruptionBudget => gateway.service_name(),
        };
        ObjectName::new(gateway.name.namespace.clone(), name)
    }

    /// Returns this part of the waypoint of a gateway, as it is where nothing else is said.
    pub(super) fn of(self, gateway: &Gateway, settings: &Settings) -> Value {
        let api_version = match self.group() {
            "" => self.version().to_owned(),
            group => format!("{group}/{}", self.version()),
        };
        let mut object = json!({
            "apiVersion": api_version,
            "kind": self.kind(),
            "metadata": metadata(gateway, &self.name(gateway)),
        });
        match self {
            Self::ServiceAccount => {}
            Self::Service => {
                let (name, value) = TRAFFIC_DISTRIBUTION;
                object["metadata"]["annotations"][name] = value.into();
                object["spec"] = service(gateway);
            }
            Self::Deployment => object["spec"] = deployment(gateway, settings),
            Self::HorizontalPodAutoscaler => object["spec"] = autoscaler(gateway),
            Self::PodDisruptionBudget => {
                object["spec"] = json!({ "selector": { "matchLabels": selector(gateway) } });
            }
        }
        object
    }
}

fn metadata(gateway: &Gateway, name: &ObjectName) -> Value {
    json!({
        "name": &*name.name,
        "namespace": &*name.namespace,
        "labels": labels(gateway),
        "annotations": gateway.spec.infrastructure.annotations,
        "ownerReferences": [{
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "Gateway",
            "name": &*gateway.name.name,
            "uid": gateway.uid,
        }],
    })
}

fn labels(gateway: &Gateway) -> Labels {
    let mut labels = gateway.spec.infrastructure.labels.clone();
    let own = [MANAGED, (GATEWAY_NAME, &gateway.name.name), (GATEWAY_CLASS, WAYPOINT_CLASS)];
    labels.extend(own.map(|(name, value)| (name.to_owned(), value.to_owned())));
    labels
}

fn selector(gateway: &Gateway) -> Value {
    json!({ GATEWAY_NAME: &*gateway.name.name })
}

fn service(gateway: &Gateway) -> Value {
    json!({
        "type": "ClusterIP",
        "selector": selector(gateway),
        "ports": [
            {
                "name": "status-port", "port": STATUS_PORT, "targetPort": STATUS_PORT,
                "protocol": "TCP", "appProtocol": "tcp",
            },
            {
                "name": "mesh", "port": PORT, "targetPort": PORT, "protocol": "TCP",
                "appProtocol": "hbone",
            },
        ],
    })
}

fn deployment(gateway: &Gateway, settings: &Settings) -> Value {
    let mut pod_labels = labels(gateway);
    let mut annotations = gateway.spec.infrastructure.annotations.clone();
    let scraped = METRICS_PORT.to_string();
    let own_labels = [
        ("istio.io/dataplane-mode", "none"),
        ("sidecar.istio.io/inject", "false"),
        ("service.istio.io/canonical-name", gateway.service_name()),
        ("service.istio.io/canonical-revision", "latest"),
    ];
    let own_annotations = [
        ("prometheus.io/scrape", "true"),
        ("prometheus.io/port", &scraped),
        ("prometheus.io/path", "/stats/prometheus"),
    ];
    pod_labels.extend(own_labels.map(|(name, value)| (name.to_owned(), value.to_owned())));
    annotations.extend(own_annotations.map(|(name, value)| (name.to_owned(), value.to_owned())));
    json!({
        "selector": { "matchLabels": selector(gateway) },
        "template": {
            "metadata": { "labels": pod_labels, "annotations": annotations },
            "spec": pod(gateway, settings),
        },
    })
}

fn autoscaler(gateway: &Gateway) -> Value {
    json!({
        "scaleTargetRef": {
            "apiVersion": "apps/v1", "kind": "Deployment", "name": gateway.service_name(),
        },
        "maxReplicas": 1,
    })
}

fn pod(gateway: &Gateway, settings: &Settings) -> Value {
    json!({
        "serviceAccountName": gateway.account_name(),
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": {
            "runAsNonRoot": true, "runAsUser": USER, "runAsGroup": USER,
            // The token is readable for this group.
            "fsGroup": USER,
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "containers": [container(gateway, settings)],
        "volumes": [
            {
                "name": "istio-token",
                "projected": { "sources": [{ "serviceAccountToken": {
                    "audience": settings.audience, "expirationSeconds": TOKEN_SECONDS,
                    "path": TOKEN,
                }}]},
            },
            { "name": "istiod-ca-cert", "configMap": { "name": ROOTS.name } },
            {
                "name": "istio-ca-crl",
                "configMap": { "name": REVOKED.name, "optional": true },
            },
        ],
    })
}

fn container(gateway: &Gateway, settings: &Settings) -> Value {
    json!({
        "name": CONTAINER,
        "image": settings.image,
        "command": [PROGRAM],
        "args": ["run"],
        "env": environment(gateway, settings),
        "ports": [
            { "name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP" },
            { "name": "status-port", "containerPort": STATUS_PORT, "protocol": "TCP" },
        ],
        "readinessProbe": {
            "httpGet": { "path": "/healthz/ready", "port": STATUS_PORT },
            "periodSeconds": 3,
        },
        "resources": {
            "requests": { "cpu": "100m", "memory": "128Mi" },
            "limits": { "cpu": "2", "memory": "1Gi" },
        },
        "securityContext": {
            "allowPrivilegeEscalation": false, "privileged": false,
            "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"] },
        },
        "volumeMounts": [
            { "name": "istio-token", "mountPath": TOKEN_DIR, "readOnly": true },
            { "name": "istiod-ca-cert", "mountPath": ROOTS_DIR, "readOnly": true },
            { "name": "istio-ca-crl", "mountPath": REVOKED_DIR, "readOnly": true },
        ],
    })
}

fn environment(gateway: &Gateway, settings: &Settings) -> Vec<Value> {
    let text = |name: &str, value: &str| json!({ "name": name, "value": value });
    let field = |name: &str, path: &str| json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } });
    vec![
        text("GATEWAY_NAME", &gateway.name.name),
        text("SERVICE_ACCOUNT", gateway.account_name()),
        text("XDS_ADDRESS", &settings.control_plane),
        text("XDS_ROOT_CA", &format!("{ROOTS_DIR}/{}", ROOTS.key)),
        text("AUTH_TOKEN", &format!("{TOKEN_DIR}/{TOKEN}")),
        text("CRL_PATH", &format!("{REVOKED_DIR}/{}", REVOKED.key)),
        text("TRUST_DOMAIN", &settings.trust_domain),
        text("CLUSTER_ID", &settings.cluster),
        text("NETWORK", &settings.network),
        field("POD_NAME", "metadata.name"),
        field("POD_NAMESPACE", "metadata.namespace"),
        field("INSTANCE_IP", "status.podIP"),
        field("NODE_NAME", "spec.nodeName"),
    ]
}

/// Returns whether an object has everything that is wanted of it. Others may have added to it, and
/// servers fill in what is left out.
pub(super) fn has(present: &Value, wanted: &Value) -> bool {
    match (present, wanted) {
        (Value::Object(present), Value::Object(wanted)) => {
            wanted.iter().all(|(name, value)| has_field(present, name, value))
        }
        (Value::Array(present), Value::Array(wanted)) => {
            wanted.iter().all(|value| present.iter().any(|present| has(present, value)))
        }
        (present, wanted) => present == wanted,
    }
}

fn has_field(present: &Map<String, Value>, name: &str, wanted: &Value) -> bool {
    match present.get(name) {
        Some(present) => has(present, wanted),
        // Servers leave out what is empty.
        None => match wanted {
            Value::Object(fields) => fields.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::String(text) => text.is_empty(),
            Value::Null => true,
            Value::Bool(_) | Value::Number(_) => false,
        },
    }
}

#[cfg(test)]
mod tests;
