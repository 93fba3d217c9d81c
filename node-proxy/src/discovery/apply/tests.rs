use std::collections::{BTreeMap, BTreeSet};

use mesh_api::{
    config::LocalConfig,
    identity::Identity,
    policy::Flow,
    workload::{Network, Workload},
    xds_client::ADDRESS_TYPE,
};
use proptest::prelude::*;

use super::*;
use crate::{
    state::{Moment, OutboundPolicy},
    telemetry::fixtures,
};

type MeshChange = Change<MeshResource>;

/// Returns a change that brings the only entry of a configuration.
fn updated(yaml: &str) -> (&'static str, MeshChange) {
    let mut config = LocalConfig::parse(yaml).unwrap();
    if let Some(workload) = config.workloads.pop() {
        let name = workload.uid.0.clone();
        (ADDRESS_TYPE, Change::Updated(name, MeshResource::Workload(Box::new(workload))))
    } else if let Some(service) = config.services.pop() {
        let name = service.key.to_string().into();
        (ADDRESS_TYPE, Change::Updated(name, MeshResource::Service(Box::new(service))))
    } else {
        let policy = config.policies.pop().unwrap();
        let name = policy.key.to_string().into();
        (AUTHORIZATION_TYPE, Change::Updated(name, MeshResource::Policy(Box::new(policy))))
    }
}

/// Returns a workload of service `shop/web`; the configuration file wants that to exist, the control
/// plane may send it later.
fn member(n: u8, more: &str) -> (&'static str, MeshChange) {
    let (type_url, mut change) = updated(&format!(
        "workloads: [{{uid: c//Pod/shop/w{n}, name: w{n}, namespace: shop, \
         addresses: [10.0.0.{n}]{more}}}]"
    ));
    if let Change::Updated(_, MeshResource::Workload(workload)) = &mut change {
        workload.services.insert(service_key("shop/web").unwrap(), BTreeMap::new());
    }
    (type_url, change)
}

fn service(address: &str) -> (&'static str, MeshChange) {
    updated(&format!(
        "services: [{{name: web, namespace: shop, hostname: web, addresses: [{address}], \
         ports: [{{service_port: 80, target_port: 8080}}]}}]"
    ))
}

fn policy(name: &str, action: &str, scope: &str) -> (&'static str, MeshChange) {
    updated(&format!(
        "policies: [{{name: {name}, namespace: shop, action: {action}, scope: {scope}, \
         rules: [{{}}]}}]"
    ))
}

fn removed(type_url: &'static str, name: &str) -> (&'static str, MeshChange) {
    (type_url, Change::Removed(name.into()))
}

fn after(changes: impl IntoIterator<Item = (&'static str, MeshChange)>) -> MeshState {
    let mut state = MeshState::empty(Network::default());
    for (type_url, change) in changes {
        apply(&mut state, type_url, change);
    }
    state
}

/// Returns the addresses, sorted, that a connection to the service at `target` may go to.
fn endpoints(state: &MeshState, target: &str) -> Vec<String> {
    let target: std::net::IpAddr = target.parse().unwrap();
    if state.service_at(target, &"shop".parse().unwrap()).is_none() {
        return Vec::new();
    }
    let (policy, now) = (OutboundPolicy::default(), Moment::default());
    let client = fixtures::workload("client");
    // A connection tries a few of them; which ones is a matter of chance.
    let hops = (0..16_u64).flat_map(|chance| {
        let route = state.route(&client, (target, 80).into(), policy, now, |below| chance % below);
        route.map(|route| route.hops).unwrap_or_default()
    });
    let addresses: BTreeSet<_> = hops.map(|hop| hop.address.to_string()).collect();
    addresses.into_iter().collect()
}

fn admits(state: &MeshState, name: &str) -> Option<bool> {
    let identity: Identity = "spiffe://cluster.local/ns/shop/sa/default".parse().unwrap();
    let local = state.local_workload(name, &identity)?;
    let destination = (local.workload.addresses[0], 80).into();
    let flow = Flow { source: [10, 9, 9, 9].into(), identity: None, destination };
    Some(matches!(local.policies.decide(&flow), mesh_api::policy::Verdict::Allow(_)))
}

#[test]
fn a_workload_may_come_before_its_service_and_stays_when_that_is_sent_again() {
    let mut state = after([member(1, ""), member(2, ", status: UNHEALTHY")]);
    assert!(endpoints(&state, "10.96.0.1").is_empty());
    for (what, (type_url, change), expected) in [
        ("the service comes", service("10.96.0.1"), &["10.0.0.1:8080"][..]),
        ("it is sent again", service("10.96.0.1"), &["10.0.0.1:8080"]),
        ("another endpoint", member(3, ""), &["10.0.0.1:8080", "10.0.0.3:8080"]),
        ("one is well again", member(2, ""), &["10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.3:8080"]),
        ("one goes", removed(ADDRESS_TYPE, "c//Pod/shop/w1"), &["10.0.0.2:8080", "10.0.0.3:8080"]),
        ("the service goes", removed(ADDRESS_TYPE, "shop/web"), &[]),
        ("it comes back", service("10.96.0.1"), &["10.0.0.2:8080", "10.0.0.3:8080"]),
    ] {
        apply(&mut state, type_url, change);
        assert_eq!(endpoints(&state, "10.96.0.1"), expected, "{what}");
    }
    let (type_url, change) = service("10.96.0.2");
    apply(&mut state, type_url, change);
    assert!(endpoints(&state, "10.96.0.1").is_empty(), "its address has changed");
    assert_eq!(endpoints(&state, "10.96.0.2").len(), 2);
}

#[test]
fn a_name_is_removed_as_a_workload_or_else_as_a_service_and_else_means_nothing() {
    let uid = updated("workloads: [{uid: shop/web, namespace: shop, addresses: [10.0.0.9]}]");
    let mut state = after([service("10.96.0.1"), uid, policy("p", "DENY", "NAMESPACE")]);
    for (name, counts) in [
        ("nothing/known", (1, 1, 1)),
        ("nothing", (1, 1, 1)),
        ("shop/web", (0, 1, 1)),
        ("shop/web", (0, 0, 1)),
        ("shop/p", (0, 0, 1)),
    ] {
        let (type_url, change) = removed(ADDRESS_TYPE, name);
        apply(&mut state, type_url, change);
        assert_eq!(state.counts(), counts, "{name}");
    }
    let (type_url, change) = removed(AUTHORIZATION_TYPE, "shop/p");
    apply(&mut state, type_url, change);
    assert_eq!(state.counts(), (0, 0, 0));
}

#[test]
fn a_workload_that_names_a_policy_which_has_not_come_admits_nobody() {
    let mut state = after([member(1, ", authorization_policies: [shop/allow]")]);
    assert_eq!(admits(&state, "w1"), Some(false));
    for ((type_url, change), expected) in [
        (policy("allow", "ALLOW", "WORKLOAD_SELECTOR"), true),
        (policy("deny", "DENY", "NAMESPACE"), false),
        (removed(AUTHORIZATION_TYPE, "shop/deny"), true),
        (removed(AUTHORIZATION_TYPE, "shop/allow"), false),
    ] {
        apply(&mut state, type_url, change);
        assert_eq!(admits(&state, "w1"), Some(expected));
    }
}

#[test]
fn a_snapshot_does_not_change_with_what_comes_after_it() {
    let mut state = after([member(1, ""), service("10.96.0.1")]);
    let before = state.clone();
    for (type_url, change) in [
        member(2, ""),
        removed(ADDRESS_TYPE, "c//Pod/shop/w1"),
        service("10.96.0.2"),
        policy("deny", "DENY", "NAMESPACE"),
    ] {
        apply(&mut state, type_url, change);
    }
    assert_eq!(endpoints(&before, "10.96.0.1"), ["10.0.0.1:8080"]);
    assert_eq!(admits(&before, "w1"), Some(true));
    assert_eq!(endpoints(&state, "10.96.0.2"), ["10.0.0.2:8080"]);
    assert_eq!((admits(&state, "w1"), admits(&state, "w2")), (None, Some(false)));
}

#[test]
fn of_workloads_at_one_address_the_pod_and_the_latest_count() {
    let entry = |uid: &str| {
        updated(&format!("workloads: [{{uid: {uid}, namespace: shop, addresses: [10.0.0.1]}}]"))
    };
    let mut state = after([entry("c/entry/x"), entry("c//Pod/shop/a"), entry("c/entry/y")]);
    let owner = |state: &MeshState| {
        state.workload_at([10, 0, 0, 1].into()).map(|workload| workload.uid.0.to_string())
    };
    for (removed_next, expected) in [
        ("c/entry/none", Some("c//Pod/shop/a")),
        ("c//Pod/shop/a", Some("c/entry/y")),
        ("c/entry/y", Some("c/entry/x")),
        ("c/entry/x", None),
    ] {
        let (type_url, change) = removed(ADDRESS_TYPE, removed_next);
        apply(&mut state, type_url, change);
        assert_eq!(owner(&state).as_deref(), expected, "without {removed_next}");
    }
}

/// What anyone can see of a state.
fn visible(state: &MeshState) -> Vec<String> {
    let vips = ["10.96.0.1", "10.96.0.2"].map(|vip| format!("{vip} {:?}", endpoints(state, vip)));
    let of_workload = |n: u8| {
        let at = state.workload_at([10, 0, 0, n].into());
        format!("{n} {:?} {:?}", at.map(|w| (&w.uid, w.health)), admits(state, &format!("w{n}")))
    };
    let routes = |source: &Workload| {
        let target = "10.0.0.1:80".parse().unwrap();
        let route =
            state.route(source, target, OutboundPolicy::default(), Moment::default(), |_| 0);
        format!("{:?}", route.map(|route| route.hops))
    };
    let routes = state.workload_at([10, 0, 0, 2].into()).map(|source| routes(source));
    let workloads = (1..5).map(of_workload);
    vips.into_iter()
        .chain(workloads)
        .chain(routes)
        .chain([format!("{:?}", state.counts())])
        .collect()
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Member(u8, u8),
    NoMember(u8),
    Service(u8),
    NoService,
    Policy(bool),
    NoPolicy,
}

impl Step {
    fn change(self) -> (&'static str, MeshChange) {
        match self {
            Self::Member(n, kind) => member(
                n,
                [
                    "",
                    ", status: UNHEALTHY",
                    ", authorization_policies: [shop/p]",
                    ", tunnel_protocol: HBONE",
                ][usize::from(kind)],
            ),
            Self::NoMember(n) => removed(ADDRESS_TYPE, &format!("c//Pod/shop/w{n}")),
            Self::Service(n) => service(&format!("10.96.0.{n}")),
            Self::NoService => removed(ADDRESS_TYPE, "shop/web"),
            Self::Policy(allow) => {
                policy("p", if allow { "ALLOW" } else { "DENY" }, "WORKLOAD_SELECTOR")
            }
            Self::NoPolicy => removed(AUTHORIZATION_TYPE, "shop/p"),
        }
    }

    /// What the step is about.
    fn subject(self) -> u8 {
        match self {
            Self::Member(n, _) | Self::NoMember(n) => n,
            Self::Service(_) | Self::NoService => 100,
            Self::Policy(_) | Self::NoPolicy => 101,
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1u8..5, 0u8..4).prop_map(|(n, kind)| Step::Member(n, kind)),
        2 => (1u8..5).prop_map(Step::NoMember),
        2 => (1u8..3).prop_map(Step::Service),
        1 => Just(Step::NoService),
        1 => any::<bool>().prop_map(Step::Policy),
        1 => Just(Step::NoPolicy),
    ]
}

proptest! {
    /// Only the last change of each resource counts, whatever was there before it and in which
    /// order the resources come.
    #[test]
    fn the_way_to_a_state_does_not_matter(
        steps in proptest::collection::vec(step(), 0..40),
        reversed in any::<bool>(),
    ) {
        let state = after(steps.iter().map(|step| step.change()));
        let mut last: BTreeMap<u8, Step> = BTreeMap::new();
        for step in &steps {
            last.insert(step.subject(), *step);
        }
        let mut fresh: Vec<_> = last.into_values().collect();
        if reversed {
            fresh.reverse();
        }
        let expected = after(fresh.into_iter().map(Step::change));
        prop_assert_eq!(visible(&state), visible(&expected));
    }
}
