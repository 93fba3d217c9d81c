//! What the mesh is told from outside its objects.

use std::sync::Arc;

/// Name of a cluster that is given no other.
const DEFAULT_CLUSTER: &str = "Kubernetes";
/// Namespace whose policies apply to the whole mesh, unless the mesh configuration names another.
const DEFAULT_ROOT_NAMESPACE: &str = "istio-system";
/// Domain of the names of services.
const DEFAULT_DOMAIN: &str = "cluster.local";

/// Settings of the computation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Name of the cluster.
    pub cluster: Arc<str>,
    /// Network of addresses that name none.
    pub network: Arc<str>,
    /// Domain of the names of services.
    pub domain: Arc<str>,
    /// Namespace of the mesh configuration, and the root namespace if that names no other.
    pub system_namespace: Arc<str>,
    /// How it is known which pods take part.
    pub enrolment: Enrolment,
    /// What becomes of traffic to a waypoint that is not there.
    pub absent_waypoint: AbsentWaypoint,
    /// Whether the host of a mirrored request gets the suffix `-shadow`.
    pub shadow_suffix: bool,
    /// Whether what is bound to a waypoint is reached through it only, even if the waypoint does not
    /// say so itself.
    pub require_waypoints: bool,
    /// Whether a waypoint is provided where routes need one and nobody has declared one.
    pub automatic_waypoints: bool,
}

/// How it is known which pods take part in the mesh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Enrolment {
    /// A node agent reports it, by an annotation on the pod.
    #[default]
    Reported,
    /// Labels of the pod and of its namespace say so, and an agent follows. What no controller
    /// reports is taken for granted, too: pods are ready, gateways have the service of their name.
    Declared,
}

/// What becomes of traffic that is bound to a waypoint which is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AbsentWaypoint {
    /// It is bound nevertheless, so that proxies refuse it: a policy of the waypoint would be
    /// missing.
    #[default]
    Refuse,
    /// It passes without waypoint, as with Istio.
    Bypass,
}

// === impl Options ===

impl Default for Options {
    fn default() -> Self {
        Self {
            cluster: DEFAULT_CLUSTER.into(),
            network: "".into(),
            domain: DEFAULT_DOMAIN.into(),
            system_namespace: DEFAULT_ROOT_NAMESPACE.into(),
            enrolment: Enrolment::default(),
            absent_waypoint: AbsentWaypoint::default(),
            shadow_suffix: false,
            require_waypoints: false,
            automatic_waypoints: true,
        }
    }
}
