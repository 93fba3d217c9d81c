//! How near an endpoint is to the client.

use std::{ops::RangeInclusive, sync::Arc};

use mesh_api::workload::{Balancing, Scope, Workload};

/// What a service prefers its endpoints to have in common with a client.
#[derive(Clone, Copy, Debug)]
pub(super) struct Preference<'a> {
    scopes: &'a [Scope],
    strict: bool,
}

// === impl Preference ===

impl<'a> Preference<'a> {
    pub(super) fn new(balancing: &'a Balancing) -> Self {
        match balancing {
            Balancing::Even | Balancing::Passthrough => Self { scopes: &[], strict: false },
            Balancing::Strict(scopes) => Self { scopes, strict: true },
            Balancing::Failover(scopes) => Self { scopes, strict: false },
        }
    }

    /// Returns what about a client matters.
    pub(super) fn scopes(self) -> &'a [Scope] {
        self.scopes
    }

    /// Returns the ranks of endpoints that may be chosen.
    pub(super) fn ranks(self) -> RangeInclusive<usize> {
        let best = match self.scopes {
            [] => 0,
            [Scope::Network, rest @ ..] => self.scopes.len() + rest.len(),
            [..] => self.scopes.len(),
        };
        if self.strict { best..=best } else { 0..=best }
    }

    /// Returns the rank of `endpoint` for `client`: a point for each scope that they have in common
    /// up to the first that they have not. A network that comes first counts more than all others
    /// together, which count even if it differs.
    pub(super) fn rank(self, client: &Workload, endpoint: &Workload) -> usize {
        let (network, scopes) = match self.scopes {
            [Scope::Network, rest @ ..] => {
                let shared = is_shared(Scope::Network, client, endpoint);
                (if shared { self.scopes.len() } else { 0 }, rest)
            }
            scopes => (0, scopes),
        };
        network + scopes.iter().take_while(|scope| is_shared(**scope, client, endpoint)).count()
    }
}

/// Returns whether the two run in the same place, as far as any preference can tell.
pub(super) fn is_same_place(one: &Workload, other: &Workload) -> bool {
    // What differs most often comes first.
    one.node == other.node
        && one.network == other.network
        && one.cluster_id == other.cluster_id
        && one.locality == other.locality
}

fn is_shared(scope: Scope, one: &Workload, other: &Workload) -> bool {
    value(scope, one) == value(scope, other)
}

/// Returns what a workload may have in common with others.
pub(super) fn value(scope: Scope, workload: &Workload) -> &Arc<str> {
    match scope {
        Scope::Network => &workload.network.0,
        Scope::Region => &workload.locality.region,
        Scope::Zone => &workload.locality.zone,
        Scope::Subzone => &workload.locality.subzone,
        Scope::Node => &workload.node.0,
        Scope::Cluster => &workload.cluster_id,
    }
}
