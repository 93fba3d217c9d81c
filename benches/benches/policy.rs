//! Time of one policy decision, by the number of policies that apply to the workload.
#![expect(clippy::expect_used, reason = "the configuration is written here")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use mesh_api::{
    config::{LocalConfig, MeshConfig},
    identity::Identity,
    policy::{Flow, PolicyIndex, WorkloadPolicies},
};

const WORKLOAD: &str = "
workloads:
  - { uid: w, name: w, namespace: shop, addresses: [10.1.2.10], tunnel_protocol: HBONE, node: n }
policies:
";

/// Each allows another service account; the flow's is the last one.
fn config(policies: usize) -> MeshConfig {
    let policy = |number| {
        format!(
            "  - {{ name: p{number}, namespace: shop, scope: NAMESPACE, action: ALLOW, rules: \
             [{{ clauses: [{{ matches: [{{ principals: [{{ exact: \
             cluster.local/ns/shop/sa/p{number} }}] }}] }}] }}] }}\n"
        )
    };
    let policies: String = (1..=policies).map(policy).collect();
    LocalConfig::parse(&format!("{WORKLOAD}{policies}")).expect("a valid configuration")
}

fn decide(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decide");
    for count in [1, 10, 1_000] {
        let config = config(count);
        let index = PolicyIndex::new(config.policies);
        let policies = WorkloadPolicies::compile(&config.workloads[0], &index);
        let account = format!("spiffe://cluster.local/ns/shop/sa/p{count}");
        let identity: Identity = account.parse().expect("an identity");
        let flow = Flow {
            source: [10, 1, 1, 10].into(),
            identity: Some(&identity),
            destination: ([10, 1, 2, 10], 8080).into(),
        };
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            bencher.iter(|| black_box(policies.decide(black_box(&flow))));
        });
    }
    group.finish();
}

criterion_group!(benches, decide);
criterion_main!(benches);
