//! Names and kinds of the owners of pods.

use mesh_api::proto::workload::WorkloadType;

use crate::{
    mesh::names,
    object::{Metadata, Owner},
};

/// Label with the hash that a Deployment adds to the names of its replica sets.
const TEMPLATE_HASH: &str = "pod-template-hash";
/// Fewest and most digits of the time that a `CronJob` adds to the names of its jobs: minutes since
/// 1970, formerly seconds.
const CRON_DIGITS: std::ops::RangeInclusive<usize> = 8..=10;

/// Returns the kind and the name of a pod's owner; a bare pod is its own.
pub(super) fn of(metadata: &Metadata) -> (WorkloadType, String) {
    let (kind, name) = match &metadata.owner {
        Some(owner) => controller(metadata, owner),
        None => (WorkloadType::Pod, &*metadata.name.name),
    };
    (kind, metadata.label(names::WORKLOAD_NAME).unwrap_or(name).to_owned())
}

fn controller<'a>(metadata: &Metadata, owner: &'a Owner) -> (WorkloadType, &'a str) {
    match &*owner.kind {
        "ReplicaSet" => {
            let hash = metadata.label(TEMPLATE_HASH);
            let deployment = hash.and_then(|hash| owner.name.strip_suffix(hash)?.strip_suffix('-'));
            match deployment.filter(|name| !name.is_empty()) {
                Some(deployment) => (WorkloadType::Deployment, deployment),
                None => (WorkloadType::Pod, &owner.name),
            }
        }
        "Deployment" => (WorkloadType::Deployment, &owner.name),
        "CronJob" => (WorkloadType::Cronjob, &owner.name),
        "Job" => match cron_job(&owner.name) {
            Some(name) => (WorkloadType::Cronjob, name),
            None => (WorkloadType::Job, &owner.name),
        },
        _ => (WorkloadType::Pod, &owner.name),
    }
}

/// Returns the `CronJob` that a job's name tells of.
fn cron_job(job: &str) -> Option<&str> {
    let (name, time) = job.rsplit_once('-')?;
    let is_time = CRON_DIGITS.contains(&time.len()) && time.bytes().all(|b| b.is_ascii_digit());
    (is_time && !name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::ObjectName;

    fn metadata(owner: Option<(&str, &str)>, labels: &[(&str, &str)]) -> Metadata {
        Metadata {
            name: ObjectName::new("shop", "cart-6d4b-x"),
            labels: labels.iter().copied().collect(),
            owner: owner.map(|(kind, name)| Owner { kind: kind.into(), name: name.into() }),
            ..Metadata::default()
        }
    }

    #[test]
    fn a_pod_is_called_by_who_made_it() {
        let hash = [(TEMPLATE_HASH, "6d4b")];
        let cases: [(_, &[_], _, _); 9] = [
            (None, &[], WorkloadType::Pod, "cart-6d4b-x"),
            (Some(("ReplicaSet", "cart-6d4b")), &hash, WorkloadType::Deployment, "cart"),
            (Some(("ReplicaSet", "cart-6d4b")), &[], WorkloadType::Pod, "cart-6d4b"),
            (Some(("StatefulSet", "db")), &[], WorkloadType::Pod, "db"),
            (Some(("DaemonSet", "agent")), &[], WorkloadType::Pod, "agent"),
            (Some(("Job", "report")), &[], WorkloadType::Job, "report"),
            (Some(("Job", "report-28000000")), &[], WorkloadType::Cronjob, "report"),
            (Some(("Job", "report-280")), &[], WorkloadType::Job, "report-280"),
            (None, &[(names::WORKLOAD_NAME, "w")], WorkloadType::Pod, "w"),
        ];
        for (owner, labels, kind, name) in cases {
            assert_eq!(of(&metadata(owner, labels)), (kind, name.to_owned()), "{owner:?}");
        }
    }
}
