//! Which endpoint a service prefers for a client.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
};

use mesh_api::workload::{Balancing, Health, Locality, NodeName, Scope, Service, WorkloadUid};
use proptest::{collection::vec, prelude::*, sample::subsequence};

use super::*;
use crate::{
    state::menu::{MAX_ATTEMPTS, Purpose},
    telemetry::fixtures,
};

const TARGET: &str = "10.96.0.1:80";
const OWN_NODE: &str = "r1 z1 s1 n1 c1";

/// Returns a workload that runs at `place`: region, zone, subzone, node and cluster.
fn workload(name: &str, last_octet: u8, place: &str, capacity: u32) -> Workload {
    let parts: Vec<_> = place.split(' ').collect();
    let [region, zone, subzone, node, cluster] = parts[..] else { panic!("{place}") };
    Workload {
        uid: WorkloadUid(name.into()),
        addresses: vec![[10, 0, 0, last_octet].into()],
        locality: Locality { region: region.into(), zone: zone.into(), subzone: subzone.into() },
        node: NodeName(node.into()),
        cluster_id: cluster.into(),
        services: [(fixtures::service().key, BTreeMap::new())].into(),
        network: Network::default(),
        health: Health::Healthy,
        capacity,
        ..fixtures::workload(name)
    }
}

fn client(place: &str) -> Workload {
    Workload { services: BTreeMap::new(), ..workload("client", 0, place, 1) }
}

fn service(balancing: Balancing) -> Service {
    let mut service = fixtures::service();
    let ports =
        "[{name: s, namespace: n, hostname: h, ports: [{service_port: 80, target_port: 80}]}]";
    let config = LocalConfig::parse(&format!("services: {ports}")).unwrap();
    service.ports = config.services[0].ports.clone();
    service.balancing = balancing;
    service
}

fn mesh_of(balancing: Balancing, workloads: impl IntoIterator<Item = Workload>) -> MeshState {
    let mut mesh = MeshState::empty(Network::default());
    mesh.insert_service(service(balancing));
    workloads.into_iter().for_each(|workload| mesh.insert_workload(workload));
    mesh
}

/// Returns the endpoints in the order in which a client tries them. What is picked is given, then 0.
fn order_by(mesh: &MeshState, client: &Workload, now: Moment, picks: [u64; 2]) -> Vec<String> {
    let entry = mesh.service(&fixtures::service().key).unwrap();
    let turn = Cell::new(0);
    let pick = |below| picks.get(turn.replace(turn.get() + 1)).unwrap_or(&0) % below;
    let candidates = entry.candidates(client, TARGET.parse().unwrap(), Purpose::Serve, now, pick);
    candidates.iter().map(|candidate| candidate.choice.workload.uid.to_string()).collect()
}

fn order(mesh: &MeshState, client: &Workload) -> Vec<String> {
    order_by(mesh, client, Moment::default(), [0, 0])
}

fn scopes(text: &str) -> std::sync::Arc<[Scope]> {
    let scope = |word| match word {
        "network" => Scope::Network,
        "region" => Scope::Region,
        "zone" => Scope::Zone,
        "subzone" => Scope::Subzone,
        "node" => Scope::Node,
        "cluster" => Scope::Cluster,
        other => panic!("{other}"),
    };
    text.split_whitespace().map(scope).collect()
}

#[test]
fn what_a_service_prefers_decides_between_its_endpoints() {
    let same_zone = || Balancing::Failover(scopes("network region zone"));
    let same_node = || Balancing::Failover(scopes("network region zone subzone node"));
    let node_only = || Balancing::Strict(scopes("node"));
    let places = |places: &[&str]| -> Vec<Workload> {
        let named = |(i, place): (usize, &&str)| {
            workload(&i.to_string(), u8::try_from(i).unwrap(), place, 1)
        };
        places.iter().enumerate().map(named).collect()
    };
    let other_zone = "r1 z2 s1 n1 c1";
    let other_region = "r2 z1 s1 n1 c1";
    let other_node = "r1 z1 s1 n2 c1";
    for (what, balancing, workloads, expected) in [
        ("none", Balancing::Even, places(&[other_region, OWN_NODE]), &["0", "1"][..]),
        ("own zone first", same_zone(), places(&[other_zone, OWN_NODE]), &["1", "0"]),
        ("one that is left elsewhere", same_zone(), places(&[other_region]), &["0"]),
        ("region before none", same_zone(), places(&[other_region, other_zone]), &["1", "0"]),
        (
            "a zone of another region is another",
            same_zone(),
            places(&[other_region, other_zone]),
            &["1", "0"],
        ),
        (
            "own node first",
            same_node(),
            places(&[other_node, other_zone, OWN_NODE]),
            &["2", "0", "1"],
        ),
        ("own node only", node_only(), places(&[other_node, OWN_NODE]), &["1"]),
        ("none on the own node", node_only(), places(&[other_node]), &[]),
        ("nothing to share is shared", Balancing::Strict([].into()), places(&[other_node]), &["0"]),
        (
            "own cluster first",
            Balancing::Failover(scopes("cluster")),
            places(&["r1 z1 s1 n1 c2", "r2 z2 s2 n2 c1"]),
            &["1", "0"],
        ),
        (
            "all must be shared",
            Balancing::Strict(scopes("network region zone subzone cluster")),
            places(&["r1 z1 s1 n2 c2", "r1 z1 s2 n1 c1", other_node]),
            &["2"],
        ),
    ] {
        let mesh = mesh_of(balancing, workloads);
        assert_eq!(order(&mesh, &client(OWN_NODE)), expected, "{what}");
    }
}

#[test]
fn an_endpoint_that_cannot_be_used_does_not_hold_others_back() {
    let near = || workload("near", 1, OWN_NODE, 1);
    let far = || workload("far", 2, "r2 z2 s2 n2 c1", 1);
    let failover = || Balancing::Failover(scopes("network region zone"));
    for (what, near) in [
        ("unhealthy", Workload { health: Health::Unhealthy, ..near() }),
        ("takes no share", Workload { capacity: 0, ..near() }),
    ] {
        let mesh = mesh_of(failover(), [near.clone(), far()]);
        assert_eq!(order(&mesh, &client(OWN_NODE)), ["far"], "{what}");
        let strict = mesh_of(Balancing::Strict(scopes("zone")), [near, far()]);
        assert!(order(&strict, &client(OWN_NODE)).is_empty(), "{what}");
    }
    let mut mesh = mesh_of(failover(), [far(), Workload { health: Health::Unhealthy, ..near() }]);
    mesh.insert_service(Service { allow_unhealthy: true, ..service(failover()) });
    assert_eq!(order(&mesh, &client(OWN_NODE)), ["near", "far"], "all are candidates");
}

#[test]
fn a_network_that_is_named_first_counts_more_than_all_else() {
    use crate::state::proximity::Preference;

    let own = client(OWN_NODE);
    let rank = |scopes: &str, network: &str, place: &str| {
        let network = Network(network.into());
        let balancing = Balancing::Failover(self::scopes(scopes));
        Preference::new(&balancing).rank(&own, &Workload { network, ..client(place) })
    };
    for (network, place, expected) in [
        ("", OWN_NODE, 5),
        ("", "r1 z2 s1 n1 c1", 4),
        ("", "r2 z1 s1 n1 c1", 3),
        ("far", OWN_NODE, 2),
        ("far", "r1 z2 s1 n1 c1", 1),
        ("far", "r2 z1 s1 n1 c1", 0),
    ] {
        assert_eq!(rank("network region zone", network, place), expected, "{network} {place}");
    }
    assert_eq!(rank("region network zone", "far", OWN_NODE), 1, "later it is one of several");
}

/// The rule as the reference states it, an endpoint at a time.
fn expected_rank(scopes: &[Scope], client: &Workload, endpoint: &Workload) -> usize {
    let mut rank = 0;
    for (i, scope) in scopes.iter().enumerate() {
        let (own, other) = match scope {
            Scope::Network => (&client.network.0, &endpoint.network.0),
            Scope::Region => (&client.locality.region, &endpoint.locality.region),
            Scope::Zone => (&client.locality.zone, &endpoint.locality.zone),
            Scope::Subzone => (&client.locality.subzone, &endpoint.locality.subzone),
            Scope::Node => (&client.node.0, &endpoint.node.0),
            Scope::Cluster => (&client.cluster_id, &endpoint.cluster_id),
        };
        let network_first = i == 0 && *scope == Scope::Network;
        match (own == other, network_first) {
            (true, true) => rank += 1 + (scopes.len() - 1),
            (true, false) => rank += 1,
            (false, true) => {}
            (false, false) => break,
        }
    }
    rank
}

fn place() -> impl Strategy<Value = String> {
    let word = |prefix: &'static str| (0..2_u8).prop_map(move |n| format!("{prefix}{n}"));
    (word("r"), word("z"), word("s"), word("n"), word("c"))
        .prop_map(|(r, z, s, n, c)| format!("{r} {z} {s} {n} {c}"))
}

fn preference() -> impl Strategy<Value = Vec<Scope>> {
    let all =
        [Scope::Network, Scope::Region, Scope::Zone, Scope::Subzone, Scope::Node, Scope::Cluster];
    subsequence(all.to_vec(), 0..=6).prop_shuffle()
}

proptest! {
    #[test]
    fn endpoints_are_tried_as_the_rule_says_after_any_changes(
        own in place(),
        scopes in preference(),
        strict in any::<bool>(),
        changes in vec((0..8_u8, proptest::option::weighted(0.8, (place(), 0..3_u32))), 0..30),
    ) {
        let client = client(&own);
        let make = if strict { Balancing::Strict } else { Balancing::Failover };
        let mut mesh = mesh_of(make(scopes.as_slice().into()), []);
        let mut model = BTreeMap::new();
        for (octet, change) in changes {
            let name = format!("w{octet}");
            if let Some((place, capacity)) = change {
                let workload = workload(&name, octet, &place, capacity);
                mesh.insert_workload(workload.clone());
                model.insert(name, workload);
            } else {
                mesh.remove_workload(&WorkloadUid(name.as_str().into()));
                model.remove(&name);
            }
        }
        // The best is a client that runs where the endpoint runs.
        let best = expected_rank(&scopes, &client, &client);
        model.retain(|_, w| w.capacity > 0);
        model.retain(|_, w| !strict || expected_rank(&scopes, &client, w) == best);
        let rank = |name: &String| expected_rank(&scopes, &client, &model[name]);

        // As many as are tried: of the best ranks.
        let mut ranks: Vec<_> = model.keys().map(rank).collect();
        ranks.sort_unstable_by_key(|rank| std::cmp::Reverse(*rank));
        let first: Vec<_> = model.keys().filter(|name| Some(&rank(name)) == ranks.first()).collect();
        ranks.truncate(MAX_ATTEMPTS);
        let total: u64 = first.iter().map(|name| u64::from(model[*name].capacity)).sum();
        let mut chosen = BTreeMap::<String, u64>::new();
        for (column, level) in (0..first.len() as u64).flat_map(|c| (0..total).map(move |l| (c, l))) {
            let order = order_by(&mesh, &client, Moment::default(), [column, level]);
            prop_assert_eq!(order.iter().map(rank).collect::<Vec<_>>(), ranks.clone());
            *chosen.entry(order[0].clone()).or_default() += 1;
            prop_assert_eq!(order.iter().collect::<BTreeSet<_>>().len(), order.len());
        }
        if total == 0 {
            prop_assert!(order(&mesh, &client).is_empty());
        }
        for (name, times) in &chosen {
            prop_assert_eq!(*times, u64::from(model[name].capacity) * first.len() as u64);
        }
        prop_assert_eq!(chosen.len(), first.len());
    }
}
