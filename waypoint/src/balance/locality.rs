//! Puts endpoints in order by where they are.

use std::{collections::BTreeMap, sync::Arc};

use mesh_api::workload::{Balancing, Locality, Scope, Workload};

use super::{
    endpoint::{Endpoint, Instance},
    policy::{Distribution, LocalityPolicy, Policy, PreferredLabel, RegionFailover},
};

/// Steps from one preference by labels to the next: as many as there are by localities.
const LOCALITY_STEPS: usize = 5;

/// Endpoints that are as good as each other, in groups that share traffic.
pub(super) type Arrangement = Vec<Vec<Share>>;

/// Endpoints that get a share together; never none.
#[derive(Debug, PartialEq)]
pub(super) struct Share {
    pub(super) weight: u32,
    pub(super) endpoints: Vec<Endpoint>,
}

/// Returns tiers of endpoints as `waypoint` prefers them, best first. What its policy says of
/// localities holds in place of what the service says, `balancing`.
pub(super) fn arrange(
    policy: &Policy,
    balancing: &Balancing,
    waypoint: &Instance,
    endpoints: Vec<Endpoint>,
) -> Arrangement {
    let fails_over = policy.outlier.is_some();
    match (&policy.locality, balancing) {
        (Some(LocalityPolicy::Distribute(distributions)), _) => {
            distribute(distributions, &waypoint.workload.locality, endpoints)
        }
        // Nobody could tell that the nearest fail.
        (Some(LocalityPolicy::Failover { regions, labels }), _) if fails_over => {
            let preference = Preference::labels(labels);
            by_rank(endpoints, |endpoint| {
                let [from, to] = [waypoint, &endpoint.instance].map(|at| &at.workload.locality);
                let near = if labels.is_empty() || !regions.is_empty() {
                    distance(regions, from, to)
                } else {
                    0
                };
                preference.distance(waypoint, &endpoint.instance) * LOCALITY_STEPS + near
            })
        }
        (None, Balancing::Failover(scopes)) => {
            let preference = Preference::scopes(scopes);
            by_rank(endpoints, |endpoint| preference.distance(waypoint, &endpoint.instance))
        }
        (None, Balancing::Strict(scopes)) => {
            let preference = Preference::scopes(scopes);
            let shares_all =
                |endpoint: &Endpoint| preference.distance(waypoint, &endpoint.instance) == 0;
            level(endpoints.into_iter().filter(shares_all).collect())
        }
        (None, Balancing::Even | Balancing::Passthrough) if fails_over => {
            let own = &waypoint.workload.locality;
            by_rank(endpoints, |endpoint| distance(&[], own, &endpoint.instance.workload.locality))
        }
        (Some(LocalityPolicy::Off | LocalityPolicy::Failover { .. }), _)
        | (None, Balancing::Even | Balancing::Passthrough) => level(endpoints),
    }
}

fn level(endpoints: Vec<Endpoint>) -> Arrangement {
    by_rank(endpoints, |_| 0)
}

fn by_rank(endpoints: Vec<Endpoint>, rank: impl Fn(&Endpoint) -> usize) -> Arrangement {
    let mut tiers: BTreeMap<usize, Vec<Endpoint>> = BTreeMap::new();
    for endpoint in endpoints {
        tiers.entry(rank(&endpoint)).or_default().push(endpoint);
    }
    tiers.into_values().map(|endpoints| vec![Share { weight: 1, endpoints }]).collect()
}

/// Endpoints count for the first entry that they match; those that match none get nothing.
fn distribute(
    distributions: &[Distribution],
    own: &Locality,
    endpoints: Vec<Endpoint>,
) -> Arrangement {
    let Some(distribution) = distributions.iter().find(|entry| entry.from.matches(own)) else {
        return level(endpoints);
    };
    let targets = distribution.to.iter();
    let mut shares: Vec<_> =
        targets.map(|(_, weight)| Share { weight: *weight, endpoints: Vec::new() }).collect();
    for endpoint in endpoints {
        let locality = &endpoint.instance.workload.locality;
        let found = distribution.to.iter().position(|(pattern, _)| pattern.matches(locality));
        if let Some(index) = found {
            shares[index].endpoints.push(endpoint);
        }
    }
    shares.retain(|share| !share.endpoints.is_empty());
    if shares.is_empty() { Vec::new() } else { vec![shares] }
}

/// Returns how far a locality is: 0 for the own one, 3 for another region, and 4 for one that others
/// come before.
fn distance(failover: &[RegionFailover], own: &Locality, other: &Locality) -> usize {
    if own.region != other.region {
        let preferred = failover.iter().find(|failover| failover.from == own.region);
        return if preferred.is_none_or(|failover| failover.to == other.region) { 3 } else { 4 };
    }
    match (own.zone == other.zone, own.subzone == other.subzone) {
        (true, true) => 0,
        (true, false) => 1,
        (false, _) => 2,
    }
}

/// What endpoints should have in common with the waypoint.
struct Preference<'a> {
    /// Most important first.
    properties: Vec<Property<'a>>,
    /// Whether the first of them is the network: it then counts more than all others together,
    /// which count even if it differs.
    network_first: bool,
}

enum Property<'a> {
    Scope(Scope),
    Label(&'a PreferredLabel),
}

// === impl Preference ===

impl<'a> Preference<'a> {
    fn new(properties: Vec<Property<'a>>) -> Self {
        let network_first = match properties.first() {
            Some(Property::Scope(scope)) => *scope == Scope::Network,
            Some(Property::Label(label)) => {
                label.value.is_none() && scope_of(&label.key) == Some(Scope::Network)
            }
            None => false,
        };
        Self { properties, network_first }
    }

    fn scopes(scopes: &[Scope]) -> Self {
        Self::new(scopes.iter().copied().map(Property::Scope).collect())
    }

    fn labels(labels: &'a [PreferredLabel]) -> Self {
        Self::new(labels.iter().map(Property::Label).collect())
    }

    /// Returns the number of properties from the first one on that `endpoint` does not share.
    fn distance(&self, waypoint: &Instance, endpoint: &Instance) -> usize {
        let is_shared = |property: &&Property<'_>| property.is_shared(waypoint, endpoint);
        match &self.properties[..] {
            [network, rest @ ..] if self.network_first => {
                let far = if is_shared(&network) { 0 } else { self.properties.len() };
                far + rest.len() - rest.iter().take_while(is_shared).count()
            }
            all => all.len() - all.iter().take_while(is_shared).count(),
        }
    }
}

// === impl Property ===

impl Property<'_> {
    fn is_shared(&self, waypoint: &Instance, endpoint: &Instance) -> bool {
        match self {
            Self::Scope(scope) => {
                in_scope(*scope, &waypoint.workload) == in_scope(*scope, &endpoint.workload)
            }
            Self::Label(PreferredLabel { key, value }) => {
                let own = || label(waypoint, key);
                value.as_deref().unwrap_or_else(own) == label(endpoint, key)
            }
        }
    }
}

/// Returns the value of a label, which places have even if the workload is not labelled with them.
fn label<'a>(instance: &'a Instance, key: &str) -> &'a str {
    let place = || scope_of(key).map_or("", |scope| in_scope(scope, &instance.workload));
    instance.labels.get(key).map_or_else(place, String::as_str)
}

fn scope_of(label: &str) -> Option<Scope> {
    match label {
        "topology.istio.io/network" => Some(Scope::Network),
        "topology.kubernetes.io/region" => Some(Scope::Region),
        "topology.kubernetes.io/zone" => Some(Scope::Zone),
        "topology.istio.io/subzone" => Some(Scope::Subzone),
        "kubernetes.io/hostname" => Some(Scope::Node),
        "topology.istio.io/cluster" => Some(Scope::Cluster),
        _ => None,
    }
}

fn in_scope(scope: Scope, workload: &Workload) -> &Arc<str> {
    match scope {
        Scope::Network => &workload.network.0,
        Scope::Region => &workload.locality.region,
        Scope::Zone => &workload.locality.zone,
        Scope::Subzone => &workload.locality.subzone,
        Scope::Node => &workload.node.0,
        Scope::Cluster => &workload.cluster_id,
    }
}

#[cfg(test)]
mod tests;
