//! What came out of computations, and what is different from before.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Range,
    sync::Arc,
};

use mesh_api::proto::workload::{Workload, WorkloadStatus};
use prost::Message as _;

use super::{
    dependency::{Dependencies, Dependents, Moved, Namespaces, Use},
    dirty::Unit,
    index::Op,
    l7::{self, LoweredRoutes},
};
use crate::{
    object::ObjectKey,
    resource::{Change, Kind, Resource, ResourceName, Urgency},
};

/// What came out of all units.
#[derive(Debug, Default)]
pub(super) struct Outcomes {
    by_unit: HashMap<Unit, Outcome>,
    dependents: Dependents,
}

/// What came out of a unit.
#[derive(Debug, Default)]
struct Outcome {
    /// Those of `lowered`, too.
    resources: Box<[Arc<Resource>]>,
    depends_on: Dependencies,
    lowered: LoweredRoutes,
}

/// Resources before and after, as far as they differ.
#[derive(Debug, Default)]
pub(super) struct Diff(BTreeMap<(Kind, ResourceName), BeforeAfter>);

/// What is left of two lists without what they begin and end with alike.
#[derive(Clone, Copy, Debug)]
struct Middle {
    first: usize,
    /// How many follow.
    behind: usize,
}

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

    /// Returns who depends on what.
    pub(super) fn dependents(&self) -> &Dependents {
        &self.dependents
    }

    /// Takes the routes out of what came out of a unit, which is computed anew.
    pub(super) fn take_lowered(&mut self, unit: &Unit) -> LoweredRoutes {
        self.by_unit.get_mut(unit).map(|old| std::mem::take(&mut old.lowered)).unwrap_or_default()
    }

    /// Replaces what came out of a unit, adding the difference to `diff`; returns what depends
    /// on that.
    pub(super) fn replace(
        &mut self,
        unit: &Unit,
        (resources, lowered): (Vec<Resource>, LoweredRoutes),
        depends_on: Dependencies,
        diff: &mut Diff,
    ) -> Moved {
        let old = self.by_unit.remove(unit).unwrap_or_default();
        let own = resources.into_iter().map(Arc::new);
        let all = own.chain(l7::lowered_resources(&lowered).cloned()).collect();
        let resources = reuse(&old.resources, all);
        let middle = differing(&old.resources, &resources, Arc::ptr_eq);
        for resource in &old.resources[middle.of(&old.resources)] {
            diff.before(resource);
        }
        for resource in &resources[middle.of(&resources)] {
            diff.after(resource);
        }
        let moved = match unit {
            Unit::Object(key) => self.depend(key, &old.depends_on, &depends_on),
            Unit::Destination(used) => self.need(used, &old.depends_on, &depends_on),
            Unit::StrictPolicy | Unit::Labels(_) | Unit::Credential(_) => Moved::default(),
        };
        if !resources.is_empty() || depends_on != Dependencies::default() {
            self.by_unit.insert(unit.clone(), Outcome { resources, depends_on, lowered });
        }
        moved
    }

    /// Returns whether something came out of a unit.
    pub(super) fn has(&self, unit: &Unit) -> bool {
        self.by_unit.contains_key(unit)
    }

    /// Returns the names of the workloads of an object.
    pub(super) fn workloads(&self, key: &ObjectKey) -> impl Iterator<Item = &str> {
        let outcome = self.by_unit.get(&Unit::Object(key.clone()));
        let resources = outcome.into_iter().flat_map(|outcome| &outcome.resources);
        let workloads = resources.filter(|resource| resource.kind == Kind::Workload);
        workloads.map(|resource| resource.name.as_str())
    }

    fn depend(&mut self, object: &ObjectKey, old: &Dependencies, new: &Dependencies) -> Moved {
        let uses: BTreeSet<_> =
            old.uses.symmetric_difference(&new.uses).map(|(used, _)| used.clone()).collect();
        let namespaces: BTreeSet<_> = uses.iter().map(|used| used.namespace.clone()).collect();
        let looked_at = |dependents: &Dependents| -> (bool, BTreeSet<_>) {
            let of_some = namespaces.iter().filter(|name| dependents.need_labels_of(name));
            (dependents.need_all_labels(), of_some.cloned().collect())
        };
        let before = looked_at(&self.dependents);
        self.dependents.apply(Op::Remove, old, object);
        self.dependents.apply(Op::Insert, new, object);
        let after = looked_at(&self.dependents);
        let labels = if before.0 == after.0 {
            Namespaces::Some(before.1.symmetric_difference(&after.1).cloned().collect())
        } else {
            Namespaces::All
        };
        Moved { uses, labels, credentials: BTreeSet::new() }
    }

    fn need(&mut self, used: &Use, old: &Dependencies, new: &Dependencies) -> Moved {
        self.dependents.apply_credentials(Op::Remove, old, used);
        self.dependents.apply_credentials(Op::Insert, new, used);
        // A use is computed anew if it has other waypoints, too.
        let credentials = old.credentials.union(&new.credentials).cloned().collect();
        Moved { credentials, ..Moved::default() }
    }
}

// === impl Middle ===

impl Middle {
    /// Returns where it is in one of the lists.
    fn of(self, list: &[Arc<Resource>]) -> Range<usize> {
        self.first..list.len() - self.behind
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

/// Returns the old ones of equal resources, so that they are held once.
pub(super) fn reuse(old: &[Arc<Resource>], mut new: Vec<Arc<Resource>>) -> Box<[Arc<Resource>]> {
    // Most are in their old place: there may be thousands, of which one has changed.
    let is_equal = |old: &Arc<Resource>, new: &Arc<Resource>| Arc::ptr_eq(old, new) || old == new;
    let middle = differing(old, &new, is_equal);
    let by_name: HashMap<_, _> =
        old[middle.of(old)].iter().map(|old| ((old.kind, old.name.as_str()), old)).collect();
    let (of_new, length) = (middle.of(&new), new.len());
    for (place, new) in new.iter_mut().enumerate() {
        let equal = if place < of_new.start {
            old.get(place)
        } else if place >= of_new.end {
            old.get(old.len() + place - length)
        } else {
            by_name.get(&(new.kind, new.name.as_str())).copied().filter(|old| *old == new)
        };
        if let Some(equal) = equal {
            *new = Arc::clone(equal);
        }
    }
    new.into()
}

/// Returns what is between the resources that two lists begin and end with alike.
fn differing(
    old: &[Arc<Resource>],
    new: &[Arc<Resource>],
    is_same: impl Fn(&Arc<Resource>, &Arc<Resource>) -> bool,
) -> Middle {
    let same = |(old, new): &(&Arc<Resource>, &Arc<Resource>)| is_same(old, new);
    let first = old.iter().zip(new).take_while(same).count();
    let rest = old[first..].iter().rev().zip(new[first..].iter().rev());
    Middle { first, behind: rest.take_while(same).count() }
}

/// Returns the place of a change among others: what is named comes before what names it, and goes
/// after it.
fn order(kind: Kind, is_there: bool) -> u8 {
    match (kind, is_there) {
        (Kind::Authorization, true) => 0,
        (Kind::Service, true) => 1,
        (Kind::Workload, true) => 2,
        (Kind::Credential, true) => 3,
        (Kind::L7, true) => 4,
        (Kind::L7, false) => 5,
        (Kind::Credential, false) => 6,
        (Kind::Workload, false) => 7,
        (Kind::Service, false) => 8,
        (Kind::Authorization, false) => 9,
    }
}

fn urgency(kind: Kind, before: Option<&Resource>, after: Option<&Resource>) -> Urgency {
    let urgent = match (kind, before, after) {
        (Kind::Authorization, _, _) | (_, _, None) => true,
        (Kind::Workload, Some(before), Some(after)) => is_withdrawn(before, after),
        (Kind::Credential, _, Some(_)) => return Urgency::Prompt,
        (Kind::L7, _, Some(after)) if l7::is_traffic(after) => return Urgency::Prompt,
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

#[cfg(test)]
mod tests {
    use mesh_api::proto::security::Authorization;

    use super::*;

    fn resource(name: &str, namespace: &str) -> Resource {
        let policy = Authorization {
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            ..Authorization::default()
        };
        Resource { name: ResourceName::new(name), ..Resource::authorization(&policy) }
    }

    fn resources(written: &str) -> Vec<Resource> {
        written.split_whitespace().map(|word| resource(&word[..1], &word[1..])).collect()
    }

    /// Resources of a unit before and after as name and content; what changes, and how many are held on
    /// to.
    #[test]
    fn what_differs_is_a_change_and_what_is_equal_is_held_once() {
        let cases = [
            ("", "", "", 0),
            ("", "a1 b1", "+a +b", 0),
            ("a1 b1", "", "-a -b", 0),
            ("a1 b1 c1", "a1 b1 c1", "", 3),
            ("a1 b1 c1", "a1 b2 c1", "+b", 2),
            ("a1 b1 c1", "a1 c1", "-b", 2),
            ("a1 c1", "a1 b1 c1", "+b", 2),
            // The order is none.
            ("a1 b1 c1", "c1 a1 b1", "", 3),
            ("a1 b1 c1", "c1 b2 d1", "+b +d -a", 1),
        ];
        let unit = Unit::StrictPolicy;
        for (before, after, expected, held) in cases {
            let mut outcomes = Outcomes::default();
            let depends_on = Dependencies::default;
            let none = LoweredRoutes::new;
            let before_all = (resources(before), none());
            outcomes.replace(&unit, before_all, depends_on(), &mut Diff::default());
            let old: Vec<_> = outcomes.resources().cloned().collect();
            let mut diff = Diff::default();
            outcomes.replace(&unit, (resources(after), none()), depends_on(), &mut diff);
            let changes = diff.into_changes();
            let mut changes: Vec<_> = changes
                .iter()
                .map(|change| {
                    let sign = if change.resource.is_some() { '+' } else { '-' };
                    format!("{sign}{}", change.name)
                })
                .collect();
            changes.sort();
            assert_eq!(changes.join(" "), expected, "{before} -> {after}");
            let is_old = |new: &&Arc<Resource>| old.iter().any(|old| Arc::ptr_eq(old, new));
            assert_eq!(outcomes.resources().filter(is_old).count(), held, "{before} -> {after}");
        }
    }
}
