use super::*;
use crate::balance::{
    fixtures::{endpoint, instance, labelled, number},
    policy::{LocalityPattern, OutlierDetection},
};

const PLACES: [&str; 6] = ["r/z/s", "r/z/t", "r/y/s", "r/y/t", "q/z/s", "p/z/s"];

fn endpoints(places: &[&str]) -> Vec<Endpoint> {
    (0..).zip(places).map(|(number, place)| endpoint(number, place, 1)).collect()
}

fn policy(locality: Option<LocalityPolicy>, detects: bool) -> Policy {
    let outlier = OutlierDetection {
        consecutive_errors: Some(5),
        consecutive_gateway_errors: None,
        consecutive_local_failures: None,
        interval: std::time::Duration::from_secs(10),
        base_ejection_time: std::time::Duration::from_secs(30),
        max_ejection_percent: 10,
        min_health_percent: 0,
        error_statuses: [].into(),
    };
    Policy { locality, outlier: detects.then_some(outlier), ..Default::default() }
}

/// Returns the numbers of the endpoints in each tier.
fn tiers(
    policy: &Policy,
    balancing: &Balancing,
    waypoint: &Instance,
    endpoints: Vec<Endpoint>,
) -> Vec<Vec<usize>> {
    let tiers = arrange(policy, balancing, waypoint, endpoints).into_iter().map(|shares| {
        let endpoints = shares.iter().flat_map(|share| &share.endpoints);
        endpoints.map(number).collect()
    });
    tiers.collect()
}

fn failover(regions: &[(&str, &str)], labels: &[&str]) -> LocalityPolicy {
    let region =
        |(from, to): &(&str, &str)| RegionFailover { from: (*from).into(), to: (*to).into() };
    let label = |label: &&str| match label.split_once('=') {
        Some((key, value)) => PreferredLabel { key: key.into(), value: Some(value.into()) },
        None => PreferredLabel { key: (*label).into(), value: None },
    };
    LocalityPolicy::Failover {
        regions: regions.iter().map(region).collect(),
        labels: labels.iter().map(label).collect(),
    }
}

#[test]
fn the_nearest_locality_comes_first_where_failures_are_detected() {
    let all = vec![vec![0, 1, 2, 3, 4, 5]];
    let near = vec![vec![0], vec![1], vec![2, 3], vec![4, 5]];
    let cases = [
        (policy(None, true), near.clone()),
        (policy(None, false), all.clone()),
        (policy(Some(failover(&[], &[])), true), near.clone()),
        (policy(Some(failover(&[], &[])), false), all.clone()),
        (policy(Some(LocalityPolicy::Off), true), all),
        (
            policy(Some(failover(&[("r", "p")], &[])), true),
            vec![vec![0], vec![1], vec![2, 3], vec![5], vec![4]],
        ),
        // What holds for another region.
        (policy(Some(failover(&[("q", "p")], &[])), true), near),
    ];
    let waypoint = instance("waypoint", "r/z/s", &[]);
    for (policy, expected) in cases {
        let tiers = tiers(&policy, &Balancing::Even, &waypoint, endpoints(&PLACES));
        assert_eq!(tiers, expected, "{policy:?}");
    }
}

#[test]
fn the_nearest_that_there_are_come_first() {
    let waypoint = instance("waypoint", "x/z/s", &[]);
    let policy = policy(None, true);
    let tiers = tiers(&policy, &Balancing::Even, &waypoint, endpoints(&PLACES));
    assert_eq!(tiers, [[0, 1, 2, 3, 4, 5]]);
}

#[test]
fn a_service_prefers_what_is_near_without_detection_unless_the_policy_says_otherwise() {
    let waypoint = instance("waypoint", "r/z/s", &[]);
    let scopes: Arc<[_]> = [Scope::Network, Scope::Region, Scope::Zone].into();
    let near = Balancing::Failover(scopes.clone());
    let strict = Balancing::Strict(scopes);
    let cases = [
        (policy(None, false), &near, vec![vec![0, 1], vec![2, 3], vec![4, 5]]),
        (policy(None, true), &near, vec![vec![0, 1], vec![2, 3], vec![4, 5]]),
        (policy(None, false), &strict, vec![vec![0, 1]]),
        (policy(Some(LocalityPolicy::Off), false), &near, vec![vec![0, 1, 2, 3, 4, 5]]),
        (policy(Some(failover(&[], &[])), false), &near, vec![vec![0, 1, 2, 3, 4, 5]]),
    ];
    for (policy, balancing, expected) in cases {
        let tiers = tiers(&policy, balancing, &waypoint, endpoints(&PLACES));
        assert_eq!(tiers, expected, "{policy:?} {balancing:?}");
    }
}

/// Preferred regions and labels, and the tiers that they lead to.
type Case<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str], Vec<Vec<usize>>);

#[test]
fn labels_in_common_count_up_to_the_first_that_differs() {
    let waypoint = instance("waypoint", "r/z/s", &[("version", "v1"), ("team", "a")]);
    let labels: [&[(&str, &str)]; 4] = [
        &[("version", "v1"), ("team", "a")],
        &[("version", "v1"), ("team", "b")],
        &[("version", "v2"), ("team", "a")],
        &[],
    ];
    let labelled_endpoints = || {
        let mut endpoints = endpoints(&["r/z/s", "r/y/s", "r/z/s", "q/z/s"]);
        for (endpoint, labels) in endpoints.iter_mut().zip(labels) {
            endpoint.instance.labels = labelled(labels);
        }
        endpoints
    };
    let cases: [Case<'_>; 6] = [
        (&[], &["version", "team"], vec![vec![0], vec![1], vec![2, 3]]),
        (&[], &["team", "version"], vec![vec![0], vec![2], vec![1, 3]]),
        (&[], &["version=v2"], vec![vec![2], vec![0, 1, 3]]),
        // Neither has it: that is in common.
        (&[], &["color"], vec![vec![0, 1, 2, 3]]),
        (&[], &["topology.kubernetes.io/region"], vec![vec![0, 1, 2], vec![3]]),
        // Where labels are equal, localities count if regions are named.
        (&[("r", "q")], &["version"], vec![vec![0], vec![1], vec![2], vec![3]]),
    ];
    for (regions, labels, expected) in cases {
        let policy = policy(Some(failover(regions, labels)), true);
        let tiers = tiers(&policy, &Balancing::Even, &waypoint, labelled_endpoints());
        assert_eq!(tiers, expected, "{regions:?} {labels:?}");
    }
}

#[test]
fn a_network_that_comes_first_counts_more_than_all_else() {
    let waypoint = instance("waypoint", "r/z/s", &[("topology.istio.io/network", "n1")]);
    let mut endpoints = endpoints(&["r/z/s", "q/z/s", "r/z/s", "q/z/s"]);
    for (endpoint, network) in endpoints.iter_mut().zip(["n2", "n1", "n1", "n2"]) {
        endpoint.instance.labels = labelled(&[("topology.istio.io/network", network)]);
    }
    let labels = ["topology.istio.io/network", "topology.kubernetes.io/region"];
    let policy = policy(Some(failover(&[], &labels)), true);
    let tiers = tiers(&policy, &Balancing::Even, &waypoint, endpoints);
    assert_eq!(tiers, [[2], [1], [0], [3]]);
}

#[test]
fn shares_are_those_of_the_first_entry_for_the_own_locality() {
    let pattern = LocalityPattern::new;
    let distribute = Some(LocalityPolicy::Distribute(vec![
        Distribution { from: pattern("q/*"), to: vec![(pattern("q"), 100)] },
        Distribution {
            from: pattern("r/z/*"),
            to: vec![(pattern("r/z/s"), 70), (pattern("r/*"), 20), (pattern("x"), 10)],
        },
        Distribution { from: pattern("*"), to: vec![(pattern("p"), 100)] },
    ]));
    let shares = |place: &str, distribute: Option<LocalityPolicy>| {
        let waypoint = instance("waypoint", place, &[]);
        let policy = policy(distribute, false);
        let arranged = arrange(&policy, &Balancing::Even, &waypoint, endpoints(&PLACES));
        let shares = |shares: Vec<Share>| {
            let of = |share: Share| (share.weight, share.endpoints.iter().map(number).collect());
            shares.into_iter().map(of).collect::<Vec<(u32, Vec<usize>)>>()
        };
        arranged.into_iter().map(shares).collect::<Vec<_>>()
    };
    // What nothing is said of gets nothing.
    assert_eq!(shares("r/z/s", distribute.clone()), [[(70, vec![0]), (20, vec![1, 2, 3])]]);
    assert_eq!(shares("q/z/s", distribute.clone()), [[(100, vec![4])]]);
    assert_eq!(shares("elsewhere", distribute), [[(100, vec![5])]]);
    let for_others = Distribution { from: pattern("q"), to: vec![(pattern("q"), 100)] };
    let for_others = Some(LocalityPolicy::Distribute(vec![for_others]));
    assert_eq!(shares("r/z/s", for_others), [[(1, vec![0, 1, 2, 3, 4, 5])]]);
    let nowhere = Distribution { from: pattern("*"), to: vec![(pattern("x"), 100)] };
    assert_eq!(shares("r/z/s", Some(LocalityPolicy::Distribute(vec![nowhere]))).len(), 0);
}
