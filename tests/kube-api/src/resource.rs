//! The resources that the server knows.

/// A resource as the API names it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Resource {
    /// Empty for the core group.
    pub(crate) group: &'static str,
    /// Versions, the preferred one first. All show the same objects.
    pub(crate) versions: &'static [&'static str],
    pub(crate) plural: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) namespaced: bool,
}

const CORE: &str = "";
const V1: &[&str] = &["v1"];
const ISTIO: &[&str] = &["v1", "v1beta1"];
const ISTIO_NETWORKING: &[&str] = &["v1", "v1beta1", "v1alpha3"];
const GATEWAY_API: &[&str] = &["v1", "v1beta1"];
const NETWORKING: &str = "networking.istio.io";
const SECURITY: &str = "security.istio.io";
const GATEWAY: &str = "gateway.networking.k8s.io";

pub(crate) static RESOURCES: [Resource; 33] = [
    cluster(CORE, V1, "namespaces", "Namespace"),
    cluster(CORE, V1, "nodes", "Node"),
    namespaced(CORE, V1, "configmaps", "ConfigMap"),
    namespaced(CORE, V1, "events", "Event"),
    namespaced(CORE, V1, "pods", "Pod"),
    namespaced(CORE, V1, "secrets", "Secret"),
    namespaced(CORE, V1, "serviceaccounts", "ServiceAccount"),
    namespaced(CORE, V1, "services", "Service"),
    namespaced("apps", V1, "daemonsets", "DaemonSet"),
    namespaced("apps", V1, "deployments", "Deployment"),
    namespaced("apps", V1, "replicasets", "ReplicaSet"),
    namespaced("autoscaling", &["v2"], "horizontalpodautoscalers", "HorizontalPodAutoscaler"),
    namespaced("coordination.k8s.io", V1, "leases", "Lease"),
    namespaced("discovery.k8s.io", V1, "endpointslices", "EndpointSlice"),
    namespaced("policy", V1, "poddisruptionbudgets", "PodDisruptionBudget"),
    cluster(GATEWAY, GATEWAY_API, "gatewayclasses", "GatewayClass"),
    namespaced(GATEWAY, GATEWAY_API, "gateways", "Gateway"),
    namespaced(GATEWAY, V1, "grpcroutes", "GRPCRoute"),
    namespaced(GATEWAY, GATEWAY_API, "httproutes", "HTTPRoute"),
    namespaced(GATEWAY, &["v1beta1"], "referencegrants", "ReferenceGrant"),
    namespaced(GATEWAY, &["v1alpha2"], "tcproutes", "TCPRoute"),
    namespaced(GATEWAY, &["v1alpha2"], "tlsroutes", "TLSRoute"),
    namespaced(NETWORKING, ISTIO_NETWORKING, "destinationrules", "DestinationRule"),
    namespaced(NETWORKING, ISTIO_NETWORKING, "gateways", "Gateway"),
    namespaced(NETWORKING, ISTIO_NETWORKING, "serviceentries", "ServiceEntry"),
    namespaced(NETWORKING, ISTIO_NETWORKING, "sidecars", "Sidecar"),
    namespaced(NETWORKING, ISTIO_NETWORKING, "virtualservices", "VirtualService"),
    namespaced(NETWORKING, ISTIO_NETWORKING, "workloadentries", "WorkloadEntry"),
    namespaced(SECURITY, ISTIO, "authorizationpolicies", "AuthorizationPolicy"),
    namespaced(SECURITY, ISTIO, "peerauthentications", "PeerAuthentication"),
    namespaced(SECURITY, ISTIO, "requestauthentications", "RequestAuthentication"),
    namespaced("telemetry.istio.io", &["v1", "v1alpha1"], "telemetries", "Telemetry"),
    cluster(
        "admissionregistration.k8s.io",
        V1,
        "validatingwebhookconfigurations",
        "ValidatingWebhookConfiguration",
    ),
];

const fn cluster(
    group: &'static str,
    versions: &'static [&'static str],
    plural: &'static str,
    kind: &'static str,
) -> Resource {
    Resource { group, versions, plural, kind, namespaced: false }
}

const fn namespaced(
    group: &'static str,
    versions: &'static [&'static str],
    plural: &'static str,
    kind: &'static str,
) -> Resource {
    Resource { namespaced: true, ..cluster(group, versions, plural, kind) }
}

/// Returns the resource of a path, with the version asked for.
pub(crate) fn find(
    group: &str,
    version: &str,
    plural: &str,
) -> Option<(&'static Resource, &'static str)> {
    let resource = RESOURCES.iter().find(|r| r.group == group && r.plural == plural)?;
    let version = resource.versions.iter().find(|known| **known == version)?;
    Some((resource, version))
}

// === impl Resource ===

impl Resource {
    /// Returns the `apiVersion` of its objects at `version`.
    pub(crate) fn api_version(&self, version: &str) -> String {
        match self.group {
            CORE => version.to_owned(),
            group => format!("{group}/{version}"),
        }
    }
}
