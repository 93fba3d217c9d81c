//! Endpoints for tests.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use mesh_api::{
    proto,
    workload::{Balancing, Workload},
};

use super::{Cluster, Context, Endpoint, Instance, Labels, NoEndpoint, Outcome, Policy};

/// Returns a workload with this name as key that is at this place, `region/zone/subzone`.
pub(super) fn instance(name: &str, place: &str, labels: &[(&str, &str)]) -> Instance {
    let mut place = place.split('/').map(str::to_owned);
    let mut next = || place.next().unwrap_or_default();
    let locality = proto::workload::Locality { region: next(), zone: next(), subzone: next() };
    let workload = proto::workload::Workload {
        uid: name.to_owned(),
        name: name.to_owned(),
        namespace: "shop".to_owned(),
        addresses: vec![vec![10, 0, 0, 1].into()],
        locality: Some(locality),
        ..Default::default()
    };
    let workload = Workload::try_from(workload).unwrap();
    Instance { workload: Arc::new(workload), labels: labelled(labels) }
}

pub(super) fn labelled(labels: &[(&str, &str)]) -> Arc<Labels> {
    let label = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    Arc::new(labels.iter().map(label).collect())
}

pub(super) fn endpoint(number: u16, place: &str, weight: u32) -> Endpoint {
    let mut instance = instance(&format!("w{number}"), place, &[]);
    Arc::make_mut(&mut instance.workload).capacity = weight;
    let [high, low] = number.to_be_bytes();
    Endpoint { instance, address: SocketAddr::from(([10, 1, high, low], 8080)), ready: true }
}

/// Returns endpoints of these weights, numbered from 0.
pub(super) fn endpoints(weights: &[u32]) -> Vec<Endpoint> {
    (0..).zip(weights).map(|(number, weight)| endpoint(number, "r/z/s", *weight)).collect()
}

pub(super) fn number(endpoint: &Endpoint) -> usize {
    endpoint.instance.workload.uid.0[1..].parse().unwrap()
}

/// A cluster at some time, and random numbers.
pub(super) struct Scene {
    pub(super) cluster: Cluster,
    pub(super) waypoint: Instance,
    pub(super) now: Instant,
    pub(super) random: u64,
}

// === impl Scene ===

impl Scene {
    pub(super) fn new(policy: Policy, endpoints: Vec<Endpoint>) -> Self {
        let (waypoint, now) = (instance("waypoint", "r/z/s", &[]), Instant::now());
        let policy = Arc::new(policy);
        let cluster = Cluster::new(policy, &Balancing::Even, &waypoint, endpoints, None, now);
        Self { cluster, waypoint, now, random: 0 }
    }

    pub(super) fn update(&mut self, policy: Policy, endpoints: Vec<Endpoint>) {
        let (policy, previous) = (Arc::new(policy), Some(&self.cluster));
        self.cluster =
            Cluster::new(policy, &Balancing::Even, &self.waypoint, endpoints, previous, self.now);
    }

    pub(super) fn choose(&mut self, context: &Context<'_>) -> Result<super::Picked, NoEndpoint> {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.cluster.choose(context, self.random, self.now)
    }

    /// Returns how often each of so many endpoints is chosen for requests that take no time.
    pub(super) fn counts(&mut self, endpoints: usize, requests: u32) -> Vec<u32> {
        let mut counts = vec![0; endpoints];
        for _ in 0..requests {
            if let Ok(picked) = self.choose(&Context::default()) {
                counts[number(picked.endpoint())] += 1;
            }
        }
        counts
    }

    /// Has all endpoints of these numbers answer with this status as often.
    pub(super) fn answer(&mut self, numbers: &[usize], status: u16, times: u32) {
        let mut left: Vec<_> = numbers.iter().map(|number| (*number, times)).collect();
        for _ in 0..100_000 {
            left.retain(|(_, times)| *times > 0);
            if left.is_empty() {
                return;
            }
            let Ok(picked) = self.choose(&Context::default()) else { return };
            let chosen = number(picked.endpoint());
            if let Some((_, times)) = left.iter_mut().find(|(number, _)| *number == chosen) {
                *times -= 1;
                picked.finish(Outcome::Response(status), self.now);
            }
        }
    }
}
