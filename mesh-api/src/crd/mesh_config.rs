//! The mesh configuration: key `mesh` of the config map `istio`.

use serde::Deserialize;

use super::{
    destination_rule::{ConnectionPoolSettings, LocalitySettings, OutlierSettings, TcpKeepalive},
    quantity::Time,
    virtual_service::VirtualRetries,
};

/// Settings of the whole mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MeshConfig {
    /// Trust domain of all identities.
    pub trust_domain: Option<String>,
    /// Namespace whose policies apply to the whole mesh.
    pub root_namespace: Option<String>,
    /// Namespaces that see services which do not say so themselves.
    pub default_service_export_to: Vec<String>,
    /// Namespaces that see virtual services which do not say so themselves.
    pub default_virtual_service_export_to: Vec<String>,
    /// Namespaces that see destination rules which do not say so themselves.
    pub default_destination_rule_export_to: Vec<String>,
    /// How requests are tried again that no route says it of.
    pub default_http_retry_policy: Option<VirtualRetries>,
    /// Where workloads may connect to.
    pub outbound_traffic_policy: Option<OutboundTrafficPolicy>,
    /// How services are used where no destination rule says it.
    pub default_traffic_policy: DefaultTrafficPolicy,
    /// How long a connection to an endpoint may take to be made, where no destination rule says it.
    pub connect_timeout: Option<Time>,
    /// How connections to endpoints are probed, where no destination rule says it.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// How endpoints are chosen by where they are, where neither a destination rule nor the service
    /// says it.
    pub locality_lb_setting: LocalitySettings,
    /// How waypoints spell paths before they decide by them.
    pub path_normalization: PathNormalization,
}

/// How paths are spelled before anything is decided by them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PathNormalization {
    /// How far they are normalised.
    pub normalization: NormalizationType,
}

/// How far paths are normalised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum NormalizationType {
    /// As with `BASE`.
    #[default]
    Default,
    /// Not at all.
    None,
    /// Dot segments and escapes of unreserved characters are removed.
    Base,
    /// Several slashes become one, too.
    MergeSlashes,
    /// Escaped slashes count as slashes, too.
    DecodeAndMergeSlashes,
}

/// How services are used where no destination rule says it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DefaultTrafficPolicy {
    /// Connections and requests at once.
    pub connection_pool: Option<ConnectionPoolSettings>,
    /// When endpoints are avoided.
    pub outlier_detection: Option<OutlierSettings>,
}

/// Where workloads may connect to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct OutboundTrafficPolicy {
    /// What becomes of connections to destinations that the mesh does not know.
    pub mode: Option<OutboundMode>,
}

/// What becomes of connections to destinations that the mesh does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OutboundMode {
    /// They are refused.
    RegistryOnly,
    /// They pass.
    AllowAny,
    /// They pass, resolved anew where a proxy sees the host name.
    AllowAnyDynamicDns,
}
