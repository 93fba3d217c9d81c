//! Time of the decision where a connection goes, by the number of endpoints of the service.
#![expect(clippy::expect_used, reason = "the configuration is written here")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use fairlead_node::state::{MeshState, Moment, OutboundPolicy};
use mesh_api::{config::LocalConfig, workload::Network};

const SERVICE: &str = "
services:
  - { name: web, namespace: shop, hostname: web, addresses: [10.96.0.1], ports: [{ service_port: \
    80, target_port: 8080 }], load_balancing: { mode: FAILOVER, routing_preference: [NETWORK, \
    REGION, ZONE] } }
workloads:
  - { uid: client, name: client, namespace: shop, addresses: [10.1.0.2], tunnel_protocol: HBONE, \
    node: n0, locality: { region: r, zone: z0 } }
";

/// Endpoints on many nodes in three zones, of different capacities.
fn mesh(endpoints: u32) -> MeshState {
    let endpoint = |number: u32| {
        let [_, high, middle, low] = number.to_be_bytes();
        format!(
            "  - {{ uid: w{number}, name: w{number}, namespace: shop, addresses: \
             [10.{}.{middle}.{low}], tunnel_protocol: HBONE, node: n{}, locality: {{ region: r, \
             zone: z{} }}, capacity: {}, services: {{ shop/web: {{}} }} }}\n",
            high + 2,
            number % 100,
            number % 3,
            1 + number % 2,
        )
    };
    let endpoints: String = (1..=endpoints).map(endpoint).collect();
    let config = LocalConfig::parse(&format!("{SERVICE}{endpoints}"));
    MeshState::new(config.expect("a valid configuration"), Network::default())
}

fn route(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("route");
    let target = ([10, 96, 0, 1], 80).into();
    for count in [1, 100, 10_000] {
        let mesh = mesh(count);
        let client = mesh.workload_at([10, 1, 0, 2].into()).expect("the client").clone();
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            let (policy, now) = (OutboundPolicy::default(), Moment::default());
            let mut chance = 0_u64;
            bencher.iter(|| {
                chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let chance = chance >> 20;
                mesh.route(&client, black_box(target), policy, now, |below| chance % below)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, route);
criterion_main!(benches);
