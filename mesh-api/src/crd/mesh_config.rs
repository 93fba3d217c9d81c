//! The mesh configuration: key `mesh` of the config map `istio`.

use serde::Deserialize;

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
}
