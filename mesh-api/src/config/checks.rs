//! What must hold between the entries of a file.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    hash::Hash,
};

use super::{
    ConfigError, ConfigProblem, ConfigWarning,
    entries::{Entries, Entry, Place},
};
use crate::{
    identity::Namespace,
    policy::{PeerAuthenticationTarget, Policy, Scope},
    workload::{NetworkMode, Workload, WorkloadUid},
};

/// Checks that no two entries have the same key or address.
pub(super) fn conflicts(entries: &Entries) -> Result<(), ConfigError> {
    unique("uid", &entries.workloads, |workload| &workload.uid)?;
    unique("", &entries.services, |service| &service.key)?;
    unique("", &entries.policies, |policy| &policy.key)?;
    unique("", &entries.peer_authentications, |object| &object.key)?;
    unique_addresses(&entries.workloads)
}

/// Checks that workloads and peer authentications refer to entries that exist.
pub(super) fn references(entries: &Entries) -> Result<(), ConfigError> {
    services_exist(entries)?;
    selected_workloads_exist(entries)
}

/// Checks that no policy has the key of one that peer authentications are lowered to.
pub(super) fn reserved(policies: &[Entry<Policy>], lowered: &[Policy]) -> Result<(), ConfigError> {
    let reserved: HashSet<_> = lowered.iter().map(|policy| &policy.key).collect();
    match policies.iter().find(|entry| reserved.contains(&entry.value.key)) {
        Some(Entry { value, place }) => {
            Err(place.error("name", ConfigProblem::ReservedPolicy(value.key.to_string())))
        }
        None => Ok(()),
    }
}

/// Returns a warning for each policy that applies to no workload.
pub(super) fn unused(policies: &[Policy], workloads: &[Workload]) -> Vec<ConfigWarning> {
    let named: HashSet<_> =
        workloads.iter().flat_map(|workload| &workload.authorization_policies).collect();
    policies
        .iter()
        .filter(|policy| policy.scope == Scope::WorkloadSelector && !named.contains(&policy.key))
        .map(|policy| ConfigWarning::UnusedPolicy(policy.key.clone()))
        .collect()
}

/// Returns a warning for each policy that a workload names but that does not exist.
pub(super) fn unknown(policies: &[Policy], workloads: &[Workload]) -> Vec<ConfigWarning> {
    let known: HashSet<_> = policies.iter().map(|policy| &policy.key).collect();
    let of_workload = |workload: &Workload| {
        let missing = workload.authorization_policies.iter().filter(|key| !known.contains(key));
        missing
            .map(|key| ConfigWarning::UnknownPolicy {
                workload: workload.uid.clone(),
                policy: key.clone(),
            })
            .collect::<Vec<_>>()
    };
    workloads.iter().flat_map(of_workload).collect()
}

fn unique<'a, T, K>(
    field: &str,
    entries: &'a [Entry<T>],
    key: impl Fn(&'a T) -> &'a K,
) -> Result<(), ConfigError>
where
    K: Eq + Hash + fmt::Display + 'a,
{
    let mut seen = HashMap::new();
    for Entry { value, place } in entries {
        let key = key(value);
        if let Some(first) = seen.insert(key, place) {
            return Err(place.error(field, duplicate(key, first)));
        }
    }
    Ok(())
}

/// Workloads of the host network share their node's address and are left out.
fn unique_addresses(workloads: &[Entry<Workload>]) -> Result<(), ConfigError> {
    let mut seen: HashMap<_, &Place> = HashMap::new();
    for Entry { value, place } in workloads {
        if value.network_mode == NetworkMode::HostNetwork {
            continue;
        }
        for (i, address) in value.addresses.iter().enumerate() {
            if let Some(first) = seen.insert((&value.network, address), place) {
                return Err(place.error(&format!("addresses[{i}]"), duplicate(address, first)));
            }
        }
    }
    Ok(())
}

fn services_exist(entries: &Entries) -> Result<(), ConfigError> {
    let known: HashSet<_> = entries.services.iter().map(|entry| &entry.value.key).collect();
    for Entry { value, place } in &entries.workloads {
        if let Some(key) = value.services.keys().find(|key| !known.contains(key)) {
            return Err(place.error("services", unknown_entry(key, "services")));
        }
    }
    Ok(())
}

fn selected_workloads_exist(entries: &Entries) -> Result<(), ConfigError> {
    let known: HashMap<_, _> =
        entries.workloads.iter().map(|entry| (&entry.value.uid, &entry.value)).collect();
    for Entry { value, place } in &entries.peer_authentications {
        let uids = match &value.target {
            PeerAuthenticationTarget::Namespace => continue,
            PeerAuthenticationTarget::Workloads { uids, ports: _ } => uids,
        };
        for (i, uid) in uids.iter().enumerate() {
            selected(&known, uid, &value.key.namespace)
                .map_err(|problem| place.error(&format!("workloads[{i}]"), problem))?;
        }
    }
    Ok(())
}

fn selected(
    known: &HashMap<&WorkloadUid, &Workload>,
    uid: &WorkloadUid,
    namespace: &Namespace,
) -> Result<(), ConfigProblem> {
    match known.get(uid) {
        None => Err(unknown_entry(uid, "workloads")),
        Some(workload) if workload.namespace() != namespace => {
            Err(ConfigProblem::ForeignWorkload {
                workload: uid.to_string(),
                namespace: namespace.clone(),
            })
        }
        Some(_) => Ok(()),
    }
}

fn unknown_entry(value: &impl fmt::Display, list: &'static str) -> ConfigProblem {
    ConfigProblem::Unknown { value: value.to_string(), list }
}

fn duplicate(value: &impl fmt::Display, first: &Place) -> ConfigProblem {
    ConfigProblem::Duplicate { value: value.to_string(), first: first.to_string() }
}
