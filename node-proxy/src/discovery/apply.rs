//! What a change of a resource does to the state. Pure.

use mesh_api::{
    convert::{policy_key, service_key},
    workload::WorkloadUid,
    xds_client::{AUTHORIZATION_TYPE, Change, MeshResource},
};

use crate::state::MeshState;

/// Applies a change of a resource of the type `type_url`.
pub(super) fn apply(state: &mut MeshState, type_url: &str, change: Change<MeshResource>) {
    match change {
        Change::Updated(_, MeshResource::Workload(workload)) => state.insert_workload(*workload),
        Change::Updated(_, MeshResource::Service(service)) => state.insert_service(*service),
        Change::Updated(_, MeshResource::Policy(policy)) => state.insert_policy(*policy),
        Change::Removed(name) if type_url == AUTHORIZATION_TYPE => {
            // No policy has a name of another form.
            if let Ok(key) = policy_key(&name) {
                state.remove_policy(&key);
            }
        }
        Change::Removed(name) => {
            let uid = WorkloadUid(name);
            if state.workload(&uid).is_some() {
                state.remove_workload(&uid);
            } else if let Ok(key) = service_key(&uid.0) {
                state.remove_service(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests;
