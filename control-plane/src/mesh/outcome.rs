//! What came out of computations, and what is different from before.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use mesh_api::proto::workload::{Workload, WorkloadStatus};
use prost::Message as _;

use super::{
    dirty::Unit,
    index::{MultiMap, Op},
    l7,
};
use crate::{
    object::{ObjectKey, ObjectName},
    resource::{Change, Kind, Resource, ResourceName, Urgency},
};

/// What came out of all units.
#[derive(Debug, Default)]
pub(super) struct Outcomes {
    by_unit: HashMap<Unit, Outcome>,
    gateway_users: MultiMap<ObjectName, ObjectKey>,
}

/// What came out of a unit.
#[derive(Debug, Default)]
struct Outcome {
    resources: Box<[Arc<Resource>]>,
    gateways: Box<[ObjectName]>,
}

/// Resources before and after, as far as they differ.
#[derive(Debug, Default)]
pub(super) struct Diff(BTreeMap<(Kind, ResourceName), BeforeAfter>);

#[derive(Debug, Default)]
struct BeforeAfter {
    before: Option<Arc<Resource>>,
    after: Option<Arc<Resource>>,
}

// === impl Outcomes ===

impl Outcomes {
    pub(super) fn resources(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.by_unit.values().flat_map(|outcome| &outcome.resources)
    }

    /// Returns the objects by the gateways that they depend on.
    pub(super) fn gateway_users(&self) -> &MultiMap<ObjectName, ObjectKey> {
        &self.gateway_users
    }

    /// Replaces what came out of a unit, adding the difference to `diff`.
    pub(super) fn replace(
        &mut self,
        unit: &Unit,
        resources: Vec<Resource>,
        gateways: BTreeSet<ObjectName>,
        diff: &mut Diff,
    ) {
        let old = self.by_unit.remove(unit).unwrap_or_default();
        let resources: Box<[_]> = resources.into_iter().map(|new| reuse(&old, new)).collect();
        for resource in &old.resources {
            diff.before(resource);
        }
        for resource in &resources {
            diff.after(resource);
        }
        if let Unit::Object(key) = unit {
            self.index(Op::Remove, &old.gateways, key);
            self.index(Op::Insert, &gateways.iter().cloned().collect::<Vec<_>>(), key);
        }
        if !resources.is_empty() || !gateways.is_empty() {
            let outcome = Outcome { resources, gateways: gateways.into_iter().collect() };
            self.by_unit.insert(unit.clone(), outcome);
        }
    }

    fn index(&mut self, op: Op, gateways: &[ObjectName], user: &ObjectKey) {
        for gateway in gateways {
            self.gateway_users.apply(op, gateway.clone(), user.clone());
        }
    }
}

// === impl Diff ===

impl Diff {
    /// Returns the changes, in the order in which proxies can follow them.
    pub(super) fn into_changes(self) -> Vec<Change> {
        let differing = self.0.into_iter().filter(|(_, pair)| pair.before != pair.after);
        let mut changes: Vec<_> = differing
            .map(|((kind, name), BeforeAfter { before, after })| {
                let urgency = urgency(kind, before.as_deref(), after.as_deref());
                Change { kind, name, resource: after, urgency }
            })
            .collect();
        changes.sort_by_key(|change| order(change.kind, change.resource.is_some()));
        changes
    }

    fn before(&mut self, resource: &Arc<Resource>) {
        self.entry(resource).before = Some(Arc::clone(resource));
    }

    fn after(&mut self, resource: &Arc<Resource>) {
        self.entry(resource).after = Some(Arc::clone(resource));
    }

    fn entry(&mut self, resource: &Resource) -> &mut BeforeAfter {
        self.0.entry((resource.kind, resource.name.clone())).or_default()
    }
}

/// Returns the old one of two equal resources, so that it is held once.
fn reuse(old: &Outcome, new: Resource) -> Arc<Resource> {
    let equal = old.resources.iter().find(|old| ***old == new);
    equal.map_or_else(|| Arc::new(new), Arc::clone)
}

/// Returns the place of a change among others: what is named comes before what names it, and goes
/// after it.
fn order(kind: Kind, is_there: bool) -> u8 {
    match (kind, is_there) {
        (Kind::Authorization, true) => 0,
        (Kind::Service, true) => 1,
        (Kind::Workload, true) => 2,
        (Kind::L7, true) => 3,
        (Kind::L7, false) => 4,
        (Kind::Workload, false) => 5,
        (Kind::Service, false) => 6,
        (Kind::Authorization, false) => 7,
    }
}

fn urgency(kind: Kind, before: Option<&Resource>, after: Option<&Resource>) -> Urgency {
    let urgent = match (kind, before, after) {
        (Kind::Authorization, _, _) | (_, _, None) => true,
        (Kind::Workload, Some(before), Some(after)) => is_withdrawn(before, after),
        (Kind::L7, _, Some(after)) => l7::is_policy(after),
        (Kind::Workload, None, Some(_)) | (Kind::Service, _, Some(_)) => false,
    };
    if urgent { Urgency::Immediate } else { Urgency::Batched }
}

/// Returns whether a workload takes less traffic than before, or other policies apply to it.
fn is_withdrawn(before: &Resource, after: &Resource) -> bool {
    let decode = |resource: &Resource| Workload::decode(resource.body.clone()).unwrap_or_default();
    let (before, after) = (decode(before), decode(after));
    let fails =
        before.status() == WorkloadStatus::Healthy && after.status() == WorkloadStatus::Unhealthy;
    fails
        || before.authorization_policies != after.authorization_policies
        || before.services.keys().any(|service| !after.services.contains_key(service))
        || before.addresses.iter().any(|address| !after.addresses.contains(address))
}
