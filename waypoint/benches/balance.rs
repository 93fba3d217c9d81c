//! Time to choose an endpoint, by algorithm and number of endpoints.
#![expect(clippy::expect_used, reason = "the endpoints are written here")]

use std::{hint::black_box, sync::Arc, time::Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use fairlead_waypoint::balance::{
    Algorithm, Cluster, ConsistentHash, Context, Endpoint, HashKey, HashTable, Instance, Outcome,
    Policy,
};
use mesh_api::{
    proto,
    workload::{Balancing, Workload},
};

fn instance(number: u32) -> Instance {
    let workload = proto::workload::Workload {
        uid: format!("w{number}"),
        name: format!("w{number}"),
        namespace: "shop".to_owned(),
        addresses: vec![number.to_be_bytes().to_vec().into()],
        ..Default::default()
    };
    let mut workload = Workload::try_from(workload).expect("a valid workload");
    workload.capacity = 1 + number % 2;
    Instance { workload: Arc::new(workload), labels: Arc::default() }
}

fn endpoint(number: u32) -> Endpoint {
    let address = ((0x0a00_0000 + number).to_be_bytes(), 8080).into();
    Endpoint { instance: instance(number), address, ready: true }
}

fn algorithms() -> [(&'static str, Algorithm); 5] {
    let hash = |table| Algorithm::Hash(ConsistentHash { key: HashKey::SourceIp, table });
    [
        ("least_request", Algorithm::LeastRequest),
        ("round_robin", Algorithm::RoundRobin),
        ("random", Algorithm::Random),
        ("ring", hash(HashTable::Ring { minimum: 1024 })),
        ("maglev", hash(HashTable::Maglev { size: 65_537 })),
    ]
}

fn choose(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("choose");
    for (name, algorithm) in algorithms() {
        for count in [1, 100, 10_000] {
            let policy = Policy { algorithm: Some(algorithm.clone()), ..Default::default() };
            let (waypoint, now) = (instance(0), Instant::now());
            let endpoints = (1..=count).map(endpoint);
            let balancing = Balancing::Even;
            let cluster =
                Cluster::new(Arc::new(policy), &balancing, &waypoint, endpoints, None, now);
            group.bench_function(BenchmarkId::new(name, count), |bencher| {
                let mut random = 0_u64;
                bencher.iter(|| {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let context = Context { hash: Some(random), ..Default::default() };
                    let picked = cluster.choose(black_box(&context), random, now);
                    picked.map(|picked| picked.finish(Outcome::Response(200), now))
                });
            });
        }
    }
    group.finish();
}

fn update(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("update");
    group.sample_size(10);
    let (waypoint, now) = (instance(0), Instant::now());
    let endpoints: Vec<_> = (1..=10_000).map(endpoint).collect();
    for (name, algorithm) in algorithms() {
        let policy = Arc::new(Policy { algorithm: Some(algorithm), ..Default::default() });
        let update = |previous: Option<&Cluster>| {
            let endpoints = endpoints.iter().cloned();
            Cluster::new(policy.clone(), &Balancing::Even, &waypoint, endpoints, previous, now)
        };
        let cluster = update(None);
        group.bench_function(BenchmarkId::new(name, endpoints.len()), |bencher| {
            bencher.iter(|| update(Some(&cluster)));
        });
    }
    group.finish();
}

criterion_group!(benches, choose, update);
criterion_main!(benches);
