//! The types of resources that clients can ask for.

use mesh_api::xds_client::{CREDENTIAL_TYPE, L7_TYPE};

use crate::resource::Kind;

/// A type of resources, as named by its URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResourceType {
    /// L4 policies.
    Authorization,
    /// Workloads and services, each wrapped in an `Address`.
    Address,
    /// Workloads only.
    Workload,
    /// Services only.
    Service,
    /// What secrets have, of which only waypoints of their namespaces are told.
    Credential,
    /// What only waypoints are told; node proxies do not ask.
    L7,
}

// === impl ResourceType ===

impl ResourceType {
    /// Every type, in the order in which news is sent: policies before what they protect,
    /// credentials before what needs them.
    pub const ALL: [Self; 6] = [
        Self::Authorization,
        Self::Address,
        Self::Workload,
        Self::Service,
        Self::Credential,
        Self::L7,
    ];

    /// Returns the type with the given URL.
    pub fn from_url(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.url() == url)
    }

    /// Returns the type's URL.
    pub fn url(self) -> &'static str {
        match self {
            Self::Authorization => "type.googleapis.com/istio.security.Authorization",
            Self::Address => "type.googleapis.com/istio.workload.Address",
            Self::Workload => "type.googleapis.com/istio.workload.Workload",
            Self::Service => "type.googleapis.com/istio.workload.Service",
            Self::Credential => CREDENTIAL_TYPE,
            Self::L7 => L7_TYPE,
        }
    }

    /// Returns the type's name in metrics.
    pub fn short_name(self) -> &'static str {
        match self {
            Self::Authorization => "wads",
            Self::Address => "wds",
            Self::Workload => "workload",
            Self::Service => "service",
            Self::Credential => "credential",
            Self::L7 => "l7",
        }
    }

    /// Returns whether a client is told further of what it holds once nothing that it asked for names
    /// it any longer. Otherwise it is told that it is gone.
    pub fn outlasts_its_aliases(self) -> bool {
        match self {
            // Clients find a resource by an address, and then hold the resource itself.
            Self::Authorization | Self::Address | Self::Workload | Self::Service => true,
            // Aliases say which waypoints it is for.
            Self::Credential | Self::L7 => false,
        }
    }

    /// Returns whether a client can subscribe to everything of the type.
    pub fn has_wildcard(self) -> bool {
        match self {
            Self::Authorization | Self::Address | Self::Workload | Self::Service | Self::L7 => true,
            // Nobody needs all of them.
            Self::Credential => false,
        }
    }

    /// Returns whether resources of the given kind belong to this type.
    pub fn carries(self, kind: Kind) -> bool {
        match self {
            Self::Authorization => kind == Kind::Authorization,
            Self::Address => matches!(kind, Kind::Workload | Kind::Service),
            Self::Workload => kind == Kind::Workload,
            Self::Service => kind == Kind::Service,
            Self::Credential => kind == Kind::Credential,
            Self::L7 => kind == Kind::L7,
        }
    }
}
