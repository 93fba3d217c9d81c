//! Which confidential resources a client may be told.
//!
//! Pure. What counts is whom the client's token belongs to; what it says of itself does not.

use mesh_api::identity::Namespace;

use super::resource_type::ResourceType;
use crate::{
    auth::{Account, Caller},
    resource::{Kind, Readers, Resource},
};

/// The namespace whose credentials a client may be told, if any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clearance(Option<Namespace>);

/// A type of resources, as far as a client may be told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// The type.
    pub resource_type: ResourceType,
    /// What of it the client may be told.
    pub clearance: Clearance,
}

// === impl Clearance ===

impl Clearance {
    /// Returns that of a client: its own namespace, unless it is the proxy of a node, which is for pods
    /// of all namespaces and needs none.
    pub fn of(caller: &Caller, node_accounts: &[Account]) -> Self {
        let is_node = node_accounts.contains(&caller.account);
        Self((!is_node).then(|| caller.account.namespace.clone()))
    }

    fn admits(&self, resource: &Resource) -> bool {
        let Self(namespace) = self;
        match &resource.readers {
            Readers::Everybody => true,
            Readers::Namespace(readers) => {
                namespace.as_ref().is_some_and(|namespace| namespace.as_str() == &**readers)
            }
        }
    }
}

// === impl Scope ===

impl Scope {
    /// Returns whether resources of a kind belong to the type.
    pub fn has(&self, kind: Kind) -> bool {
        self.resource_type.carries(kind)
    }

    /// Returns whether a resource belongs to the type and the client may be told of it.
    pub fn admits(&self, resource: &Resource) -> bool {
        self.has(resource.kind) && self.clearance.admits(resource)
    }
}

impl From<ResourceType> for Scope {
    /// Returns what every client may be told of a type.
    fn from(resource_type: ResourceType) -> Self {
        Self { resource_type, clearance: Clearance::default() }
    }
}
