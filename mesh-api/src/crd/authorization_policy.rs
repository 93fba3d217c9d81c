//! `AuthorizationPolicy` of `security.istio.io`.

use serde::Deserialize;

use super::WorkloadSelector;

/// Who may connect to some workloads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct AuthorizationPolicy {
    /// Workloads it applies to; all of the namespace without it.
    pub selector: Option<WorkloadSelector>,
    /// Older form of `target_refs`.
    pub target_ref: Option<TargetReference>,
    /// Gateways or services it applies to instead of workloads.
    pub target_refs: Vec<TargetReference>,
    /// Matches when any of these does.
    pub rules: Vec<AuthorizationRule>,
    /// What happens to requests that match.
    pub action: AuthorizationAction,
    /// Who decides, for [`AuthorizationAction::Custom`].
    pub provider: Option<Provider>,
}

/// What a policy does with requests that match.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum AuthorizationAction {
    /// Accepts them, and with that refuses what no such policy matches.
    #[default]
    Allow,
    /// Refuses them.
    Deny,
    /// Logs them.
    Audit,
    /// Asks a provider.
    Custom,
}

/// An external authorizer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Provider {
    /// Name in the mesh configuration.
    pub name: String,
}

/// An object that a policy is attached to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TargetReference {
    /// API group.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
    /// Namespace; has to be empty.
    pub namespace: String,
}

/// Conditions that must hold together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthorizationRule {
    /// One of these sources; any without.
    pub from: Vec<From>,
    /// One of these operations; any without.
    pub to: Vec<To>,
    /// All of these conditions.
    pub when: Vec<Condition>,
}

/// Wraps a source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct From {
    /// The source.
    pub source: Option<Source>,
}

/// Who sends a request; the fields must match together, each by one of its values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Source {
    /// SPIFFE ids without their scheme.
    pub principals: Vec<String>,
    /// None of these.
    pub not_principals: Vec<String>,
    /// Subjects of tokens.
    pub request_principals: Vec<String>,
    /// None of these.
    pub not_request_principals: Vec<String>,
    /// Namespaces.
    pub namespaces: Vec<String>,
    /// None of these.
    pub not_namespaces: Vec<String>,
    /// Service accounts, as `namespace/name` or `name`.
    pub service_accounts: Vec<String>,
    /// None of these.
    pub not_service_accounts: Vec<String>,
    /// Addresses of the peer's socket.
    pub ip_blocks: Vec<String>,
    /// None of these.
    pub not_ip_blocks: Vec<String>,
    /// Addresses that proxies forwarded.
    pub remote_ip_blocks: Vec<String>,
    /// None of these.
    pub not_remote_ip_blocks: Vec<String>,
    /// Trust domains.
    pub trust_domains: Vec<String>,
    /// None of these.
    pub not_trust_domains: Vec<String>,
}

/// Wraps an operation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct To {
    /// The operation.
    pub operation: Option<Operation>,
}

/// What is requested; the fields must match together, each by one of its values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Operation {
    /// Host names.
    pub hosts: Vec<String>,
    /// None of these.
    pub not_hosts: Vec<String>,
    /// Ports.
    pub ports: Vec<String>,
    /// None of these.
    pub not_ports: Vec<String>,
    /// HTTP methods.
    pub methods: Vec<String>,
    /// None of these.
    pub not_methods: Vec<String>,
    /// Paths.
    pub paths: Vec<String>,
    /// None of these.
    pub not_paths: Vec<String>,
}

/// A condition on an attribute.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Condition {
    /// Name of the attribute.
    pub key: String,
    /// One of these.
    pub values: Vec<String>,
    /// None of these.
    pub not_values: Vec<String>,
}

// === impl AuthorizationPolicy ===

impl AuthorizationPolicy {
    /// Returns all objects that the policy is attached to, in whichever form they are written.
    pub fn targets(&self) -> impl Iterator<Item = &TargetReference> {
        self.target_ref.iter().chain(&self.target_refs)
    }
}
