//! Which endpoints are chosen while some are set aside, and what a choice costs.

use std::time::Duration;

use mesh_api::workload::{ApplicationTunnel, Health, Service, WorkloadUid};
use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    state::{
        endpoints::Candidate,
        menu::{LeftOut, MAX_ATTEMPTS, Purpose, Way},
    },
    telemetry::fixtures,
};

const TARGET: &str = "10.96.0.1:80";

fn workload(number: u32, zone: u32) -> Workload {
    let [_, high, middle, low] = number.to_be_bytes();
    let mut workload = fixtures::workload("x");
    workload.uid = WorkloadUid(number.to_string().into());
    workload.addresses = vec![[10, high, middle, low].into()];
    workload.locality.zone = zone.to_string().into();
    workload.services = [(fixtures::service().key, std::collections::BTreeMap::new())].into();
    workload
}

fn mesh_of(workloads: impl IntoIterator<Item = Workload>) -> MeshState {
    let service = "{namespace: shop, hostname: cache.shop.svc.cluster.local, \
                   ports: [{service_port: 80, target_port: 80}], \
                   load_balancing: {mode: FAILOVER, routing_preference: [ZONE]}}";
    let config = LocalConfig::parse(&format!("services: [{service}]")).unwrap();
    let mut mesh = MeshState::new(config, Network::default());
    workloads.into_iter().for_each(|workload| mesh.insert_workload(workload));
    mesh
}

fn candidates(mesh: &MeshState, now: Moment, pick: impl Fn(u64) -> u64) -> Vec<Candidate> {
    let entry = mesh.service(&fixtures::service().key).unwrap();
    let target = TARGET.parse().unwrap();
    entry.candidates(&workload(0, 0), target, Purpose::Serve, now, pick)
}

fn names(candidates: &[Candidate]) -> Vec<u32> {
    let number = |candidate: &Candidate| candidate.choice.workload.uid.0.parse().unwrap();
    candidates.iter().map(number).collect()
}

fn fail(candidate: &Candidate, now: Moment) {
    for _ in 0..3 {
        candidate.choice.standing.failed(now);
    }
}

#[test]
fn an_endpoint_that_fails_is_left_for_last_until_its_time_is_over() {
    let mesh = mesh_of([workload(1, 0), workload(2, 0), workload(3, 7)]);
    let start = Moment::default();
    let order = |now| names(&candidates(&mesh, now, |_| 0));
    assert_eq!(order(start), [1, 2, 3]);
    fail(&candidates(&mesh, start, |_| 0)[0], start);
    assert_eq!(order(start), [2, 3, 1]);
    fail(&candidates(&mesh, start, |_| 0)[0], start);
    assert_eq!(order(start), [3, 1, 2], "the own zone after all others that work");
    fail(&candidates(&mesh, start, |_| 0)[0], start);
    assert_eq!(order(start), [1, 2, 3], "never nothing");
    assert_eq!(order(Moment::after(Duration::from_secs(5))), [1, 2, 3]);
}

#[test]
fn how_an_endpoint_does_outlives_changes_but_not_its_address() {
    let mut mesh = mesh_of([workload(1, 0), workload(2, 0)]);
    let start = Moment::default();
    fail(&candidates(&mesh, start, |_| 0)[0], start);
    let mut changed = workload(1, 0);
    changed.canonical_revision = "v2".into();
    mesh.insert_workload(changed);
    mesh.insert_workload(workload(3, 0));
    let order = |mesh: &MeshState| names(&candidates(mesh, start, |_| 0));
    assert_eq!(order(&mesh), [2, 3, 1]);
    let mut moved = workload(1, 0);
    moved.addresses = vec![[10, 9, 9, 9].into()];
    mesh.insert_workload(moved);
    assert_eq!(order(&mesh), [2, 3, 1], "by their order in the place");
    let _ = candidates(&mesh, start, |_| 0).iter().map(|c| fail(c, start)).count();
    mesh.remove_workload(&WorkloadUid("2".into()));
    mesh.insert_workload(workload(2, 0));
    assert_eq!(order(&mesh)[0], 2, "what went away is not remembered");
}

#[test]
fn what_was_prepared_is_used_again_until_something_changes() {
    let mut mesh = mesh_of((1..=3).map(|number| workload(number, 0)));
    let menu = |mesh: &MeshState, client: &Workload, port| {
        mesh.service(&fixtures::service().key).unwrap().menu(client, port, Purpose::Serve)
    };
    let (client, elsewhere) = (workload(0, 0), workload(0, 1));
    let first = menu(&mesh, &client, 80);
    let is_first = |mesh: &MeshState, client: &Workload| {
        std::sync::Arc::ptr_eq(&first, &menu(mesh, client, 80))
    };
    assert!(is_first(&mesh, &client));
    assert!(is_first(&mesh.clone(), &client), "snapshots share it");
    assert!(is_first(&mesh, &Workload { canonical_name: "other".into(), ..client.clone() }));
    assert!(!is_first(&mesh, &elsewhere), "a client of another zone");
    assert!(is_first(&mesh, &client), "both are kept");
    let before = mesh.clone();
    mesh.insert_workload(workload(4, 0));
    assert!(!is_first(&mesh, &client));
    assert!(is_first(&before, &client), "of the earlier snapshot it is still true");
    assert_eq!(menu(&mesh, &client, 80).tiers()[0].choices.len(), 4);
    let service = Service::clone(mesh.service(&fixtures::service().key).unwrap().service);
    let second = menu(&mesh, &client, 80);
    mesh.insert_service(service);
    assert!(!std::sync::Arc::ptr_eq(&second, &menu(&mesh, &client, 80)));
}

#[test]
fn what_cannot_be_chosen_is_counted_by_its_cause() {
    let with = |number, edit: fn(&mut Workload)| {
        let mut workload = workload(number, 0);
        edit(&mut workload);
        workload
    };
    let mut mesh = mesh_of([
        workload(1, 0),
        with(2, |w| w.health = Health::Unhealthy),
        with(3, |w| w.capacity = 0),
        with(4, |w| w.addresses = vec!["fd00::4".parse().unwrap()]),
        with(6, |w| w.network = Network("far".into())),
        workload(5, 9),
    ]);
    let mut service = Service::clone(mesh.service(&fixtures::service().key).unwrap().service);
    service.ip_families = mesh_api::workload::IpFamilies::V4Only;
    service.balancing =
        mesh_api::workload::Balancing::Strict([mesh_api::workload::Scope::Zone].into());
    mesh.insert_service(service);
    let entry = mesh.service(&fixtures::service().key).unwrap();
    let menu = entry.menu(&workload(0, 0), 80, Purpose::Serve);
    let expected = LeftOut {
        unhealthy: 1,
        without_share: 1,
        without_address: 1,
        elsewhere: 1,
        without_port: 0,
        without_gateway: 1,
        without_identity: 0,
    };
    assert_eq!(menu.left_out, expected);
    let menu = entry.menu(&workload(0, 0), 81, Purpose::Serve);
    assert_eq!(menu.left_out.without_port, 3);
    assert!(menu.tiers().is_empty());
}

fn address_of(candidate: &Candidate) -> SocketAddr {
    match candidate.way {
        Way::At(address) => address,
        Way::Named(..) | Way::Across => panic!("{candidate:?}"),
    }
}

#[test]
fn a_proxy_that_takes_everything_at_one_port_stands_in_at_ports_that_its_service_lacks() {
    let tunnel = |number, port| {
        let mut workload = workload(number, 0);
        workload.application_tunnel = Some(ApplicationTunnel { proxy_header: true, port });
        workload
    };
    let mesh = mesh_of([workload(1, 0), tunnel(2, None), tunnel(3, Some(15088))]);
    let entry = mesh.service(&fixtures::service().key).unwrap();
    let found = |port, purpose| {
        let target = SocketAddr::new([10, 96, 0, 1].into(), port);
        let found = entry.candidates(&workload(0, 0), target, purpose, Moment::default(), |_| 0);
        found.iter().map(|candidate| address_of(candidate).to_string()).collect::<Vec<_>>()
    };
    assert_eq!(found(80, Purpose::StandIn), ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]);
    assert_eq!(found(15008, Purpose::StandIn), ["10.0.0.3:15008"]);
    assert!(found(15008, Purpose::Serve).is_empty());
}

/// The rule without a bound on what is looked at: what works by tier, then what does not.
fn expected_order(endpoints: &[(u32, bool)]) -> Vec<(bool, u32)> {
    let mut all: Vec<_> =
        endpoints.iter().map(|(zone, aside)| (*aside, u32::from(*zone != 0))).collect();
    all.sort_unstable();
    all.truncate(MAX_ATTEMPTS);
    all
}

proptest! {
    #[test]
    fn what_is_set_aside_is_never_all_and_always_last(
        endpoints in vec((0..2_u32, any::<bool>()), 0..17),
        picks in vec(any::<u64>(), 1..9),
    ) {
        let numbered = (1..).zip(&endpoints);
        let mesh = mesh_of(numbered.map(|(number, (zone, _))| workload(number, *zone)));
        let now = Moment::default();
        let entry = mesh.service(&fixtures::service().key).unwrap();
        let menu = entry.menu(&workload(0, 0), 80, Purpose::Serve);
        for choice in menu.tiers().iter().flat_map(|tier| &tier.choices) {
            let number: usize = choice.workload.uid.0.parse().unwrap();
            if endpoints[number - 1].1 {
                fail(&Candidate { choice: choice.clone(), way: Way::At(TARGET.parse().unwrap()) }, now);
            }
        }
        let turn = std::cell::Cell::new(0);
        let found = candidates(&mesh, now, |below| {
            picks[turn.replace(turn.get() + 1) % picks.len()] % below
        });
        let found: Vec<_> = names(&found)
            .into_iter()
            .map(|number| endpoints[usize::try_from(number).unwrap() - 1])
            .map(|(zone, aside)| (aside, u32::from(zone != 0)))
            .collect();
        prop_assert_eq!(found, expected_order(&endpoints));
    }
}

#[test]
fn the_cost_of_a_choice_does_not_depend_on_the_number_of_endpoints() {
    let asked = |endpoints: u32| {
        let mesh = mesh_of((1..=endpoints).map(|number| workload(number, 0)));
        let asked = std::cell::Cell::new(0);
        let first = || {
            candidates(&mesh, Moment::default(), |below| {
                asked.set(asked.get() + 1);
                asked.get() % below
            })
        };
        assert_eq!(first().len(), MAX_ATTEMPTS);
        asked.get()
    };
    assert_eq!(asked(10), asked(1000));
}
