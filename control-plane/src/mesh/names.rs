//! Labels and annotations that the mesh reads.

/// Label that binds an object to a waypoint.
pub(super) const USE_WAYPOINT: &str = "istio.io/use-waypoint";
/// Label with the namespace of that waypoint.
pub(super) const USE_WAYPOINT_NAMESPACE: &str = "istio.io/use-waypoint-namespace";
/// Label that gives a second waypoint a share.
pub(super) const USE_CANARY: &str = "istio.io/use-waypoint-canary";
/// Label with the namespace of that waypoint.
pub(super) const USE_CANARY_NAMESPACE: &str = "istio.io/use-waypoint-canary-namespace";
/// Annotation with the share of that waypoint, in percent.
pub(super) const CANARY_WEIGHT: &str = "istio.io/use-waypoint-canary-weight";
/// Label that has ingress gateways pass the waypoint, too.
pub(super) const INGRESS_USE_WAYPOINT: &str = "istio.io/ingress-use-waypoint";
/// Label of a gateway that says which traffic it is a waypoint for.
pub(super) const WAYPOINT_FOR: &str = "istio.io/waypoint-for";
/// Annotation of a gateway with the service account whose pods it is a waypoint for.
pub(super) const FOR_SERVICE_ACCOUNT: &str = "istio.io/for-service-account";
/// Annotation of a gateway that says how its pods are handed connections.
pub(super) const INBOUND_BINDING: &str = "ambient.istio.io/waypoint-inbound-binding";
/// Annotation of a gateway that says whether what it is the waypoint of refuses what goes past it.
pub(super) const REQUIRE_WAYPOINT: &str = "fairlead.io/require-waypoint";
/// Label of what a controller made for a gateway.
pub(super) const GATEWAY_MANAGED: &str = "gateway.istio.io/managed";
/// Label with the name of the gateway that an object was made for.
pub(super) const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";
/// Annotation by which a node agent reports that it captures a pod's traffic.
pub(super) const REDIRECTION: &str = "ambient.istio.io/redirection";
/// Label of workloads that speak HBONE themselves.
pub(super) const TUNNEL: &str = "networking.istio.io/tunnel";
/// Label with the network of a workload.
pub(super) const NETWORK: &str = "topology.istio.io/network";
/// Label of a node with its region.
pub(super) const REGION: &str = "topology.kubernetes.io/region";
/// Label of a node with its zone.
pub(super) const ZONE: &str = "topology.kubernetes.io/zone";
/// Label of a node with its subzone.
pub(super) const SUBZONE: &str = "topology.istio.io/subzone";
/// Label with the name of a workload's owner.
pub(super) const WORKLOAD_NAME: &str = "service.istio.io/workload-name";
/// Labels with the canonical name of a workload, most important first.
pub(super) const CANONICAL_NAMES: [&str; 3] =
    ["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"];
/// Labels with the canonical revision of a workload, most important first.
pub(super) const CANONICAL_REVISIONS: [&str; 3] =
    ["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"];
/// Annotation with the preferred endpoints of a service.
pub(super) const TRAFFIC_DISTRIBUTION: &str = "networking.istio.io/traffic-distribution";
/// Annotation with the namespaces that see a service.
pub(super) const EXPORT_TO: &str = "networking.istio.io/exportTo";
/// Label that turns the allocation of virtual addresses off.
pub(super) const NO_AUTO_ADDRESS: &str = "networking.istio.io/enable-autoallocate-ip";
/// What the name of a secret with the roots that belong to another secret ends with.
pub(super) const CA_SECRET_SUFFIX: &str = "-cacert";
/// Annotation of policies that are only reported.
pub(super) const DRY_RUN: &str = "istio.io/dry-run";

/// Scheme that principals are written without; with it, they are meant alike.
pub(super) const SPIFFE_SCHEME: &str = "spiffe://";
