//! Which confidential resources a client may be told.
//!
//! Pure. What counts is whom the client's token belongs to; what it says of itself does not.

use super::resource_type::ResourceType;
use crate::{
    auth::{Account, Caller},
    resource::{Kind, Readers, Resource},
};

/// As whom a client may be told what is not for everybody; none if it may not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clearance(Option<Account>);

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
    /// Returns that of a client. The proxy of a node, which is for pods of all namespaces, has none,
    /// whatever its account is declared to be for.
    pub fn of(caller: &Caller, node_accounts: &[Account]) -> Self {
        let is_node = node_accounts.contains(&caller.account);
        Self((!is_node).then(|| caller.account.clone()))
    }

    fn admits(&self, resource: &Resource) -> bool {
        let Self(account) = self;
        match &resource.readers {
            Readers::Everybody => true,
            Readers::Accounts(readers) => {
                account.as_ref().is_some_and(|account| readers.contains(account))
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
