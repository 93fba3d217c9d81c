use std::{sync::Arc, time::Duration};

use mesh_api::workload::Balancing;
use proptest::{collection::vec, prelude::*};

use super::{
    fixtures::{Scene, endpoint, endpoints, instance, number},
    *,
};

mod limits;
mod outlier;
mod places;

fn algorithm(algorithm: Algorithm) -> Policy {
    Policy { algorithm: Some(algorithm), ..Default::default() }
}

fn hashing(table: HashTable) -> Policy {
    algorithm(Algorithm::Hash(ConsistentHash { key: HashKey::SourceIp, table }))
}

fn every_policy() -> [Policy; 6] {
    [
        algorithm(Algorithm::LeastRequest),
        algorithm(Algorithm::RoundRobin),
        algorithm(Algorithm::Random),
        algorithm(Algorithm::Passthrough),
        hashing(HashTable::Ring { minimum: 1024 }),
        hashing(HashTable::Maglev { size: 10_007 }),
    ]
}

#[test]
fn without_endpoints_there_is_none() {
    for policy in every_policy() {
        let mut scene = Scene::new(policy, Vec::new());
        assert_eq!(scene.choose(&Context::default()).err(), Some(NoEndpoint::Ready));
    }
}

#[test]
fn what_is_not_ready_or_takes_no_share_or_is_not_of_the_subset_is_never_chosen() {
    for policy in every_policy() {
        let mut all = endpoints(&[1, 1, 0, 1]);
        all[1].ready = false;
        all[3].instance.labels = Arc::new([("version".to_owned(), "v2".to_owned())].into());
        let mut scene = Scene::new(policy.clone(), all.clone());
        let counts = scene.counts(4, 400);
        assert!(counts[0] > 0 && counts[3] > 0 && counts[1] + counts[2] == 0, "{counts:?}");
        let subset = [("version".to_owned(), "v2".to_owned())].into();
        let mut scene = Scene::new(Policy { subset, ..policy }, all);
        assert_eq!(scene.counts(4, 100), [0, 0, 0, 100]);
    }
}

#[test]
fn by_turns_everybody_has_exactly_their_share() {
    let mut scene = Scene::new(algorithm(Algorithm::RoundRobin), endpoints(&[1, 2, 3, 4]));
    assert_eq!(scene.counts(4, 100), [10, 20, 30, 40]);
    let mut scene = Scene::new(algorithm(Algorithm::RoundRobin), endpoints(&[1; 5]));
    assert_eq!(scene.counts(5, 52), [11, 11, 10, 10, 10]);
    // An update does not begin from the start.
    scene.update(algorithm(Algorithm::RoundRobin), endpoints(&[1; 5]));
    assert_eq!(scene.counts(5, 3), [0, 0, 1, 1, 1]);
}

#[test]
fn the_less_busy_of_two_is_taken() {
    let mut scene = Scene::new(algorithm(Algorithm::LeastRequest), endpoints(&[1, 1]));
    let mut busy = Vec::new();
    while !busy.iter().any(|picked: &Picked| number(picked.endpoint()) == 1) {
        busy.push(scene.choose(&Context::default()).unwrap());
    }
    // Whatever was drawn, nobody has more than one more than the other.
    assert!(busy.len() <= 2);
    let spare = 1 - number(busy.pop().unwrap().endpoint());
    let kept: Vec<_> = (0..20).map(|_| scene.choose(&Context::default()).unwrap()).collect();
    let counts = [0, 1].map(|wanted| {
        kept.iter().chain(&busy).filter(|picked| number(picked.endpoint()) == wanted).count()
    });
    assert!(counts[0].abs_diff(counts[1]) <= 1, "{counts:?} with {spare} spare");
}

#[test]
fn busy_endpoints_get_requests_by_weight() {
    let mut scene = Scene::new(algorithm(Algorithm::LeastRequest), endpoints(&[1, 3]));
    let kept: Vec<_> = (0..400).map(|_| scene.choose(&Context::default()).unwrap()).collect();
    let heavy = kept.iter().filter(|picked| number(picked.endpoint()) == 1).count();
    assert!((290..=310).contains(&heavy), "{heavy} of 400");
}

#[test]
fn the_same_key_goes_to_the_same_endpoint_and_no_key_to_any() {
    for policy in every_policy().into_iter().skip(4) {
        let mut scene = Scene::new(policy, endpoints(&[1; 20]));
        let mut chosen = std::collections::BTreeSet::new();
        for key in 0..200_u32 {
            let hash = Some(hash(&key.to_le_bytes()));
            let context = Context { hash, ..Default::default() };
            let first = number(scene.choose(&context).unwrap().endpoint());
            assert_eq!(number(scene.choose(&context).unwrap().endpoint()), first);
            chosen.insert(first);
        }
        assert_eq!(chosen.len(), 20);
        assert!(scene.counts(20, 2000).iter().all(|count| *count > 20));
    }
}

#[test]
fn whoever_addresses_an_endpoint_gets_it() {
    let mut all = endpoints(&[1; 10]);
    all[7].ready = false;
    let addresses: Vec<_> = all.iter().map(|endpoint| endpoint.address).collect();
    let mut scene = Scene::new(algorithm(Algorithm::Passthrough), all.clone());
    for index in [3, 5, 9] {
        let context = Context { target: Some(addresses[index]), ..Default::default() };
        assert_eq!(number(scene.choose(&context).unwrap().endpoint()), index);
    }
    let context = Context { target: Some(addresses[7]), ..Default::default() };
    assert_ne!(number(scene.choose(&context).unwrap().endpoint()), 7);
    // That is so if only the service says it, and not if the policy says otherwise.
    let context = Context { target: Some(addresses[3]), ..Default::default() };
    for (policy, expected) in [(Policy::default(), true), (algorithm(Algorithm::Random), false)] {
        let (waypoint, now) = (instance("waypoint", "", &[]), std::time::Instant::now());
        let balancing = Balancing::Passthrough;
        let policy = Arc::new(policy);
        let cluster = Cluster::new(policy, &balancing, &waypoint, all.clone(), None, now);
        let chosen = (0..50_u64).map(|random| cluster.choose(&context, random, now).unwrap());
        let always = chosen.into_iter().all(|picked| number(picked.endpoint()) == 3);
        assert_eq!(always, expected);
    }
}

#[test]
fn a_retry_goes_elsewhere_as_long_as_there_is_another() {
    for policy in every_policy().into_iter().take(4) {
        let mut scene = Scene::new(policy, endpoints(&[1, 9, 1]));
        let mut tried = Vec::new();
        let mut order = Vec::new();
        for _ in 0..3 {
            let picked = scene.choose(&Context { tried: &tried, ..Default::default() }).unwrap();
            tried.push(picked.tried());
            order.push(number(picked.endpoint()));
        }
        // There is no other: one is tried again.
        assert!(scene.choose(&Context { tried: &tried, ..Default::default() }).is_ok());
        order.sort_unstable();
        assert_eq!(order, [0, 1, 2]);
    }
}

#[test]
fn a_retry_of_what_has_a_hash_goes_to_the_same_endpoint() {
    for policy in every_policy().into_iter().skip(4) {
        let mut scene = Scene::new(policy, endpoints(&[1; 5]));
        let picked = scene.choose(&Context { hash: Some(7), ..Default::default() }).unwrap();
        let tried = [picked.tried()];
        let context = Context { hash: Some(7), tried: &tried, ..Default::default() };
        let again = scene.choose(&context).unwrap();
        assert_eq!(again.endpoint().address, picked.endpoint().address);
    }
}

#[test]
fn a_new_endpoint_gets_its_share_little_by_little() {
    for order in [Algorithm::RoundRobin, Algorithm::LeastRequest] {
        let warmup = Warmup { duration: Duration::from_secs(100), minimum: 0.1, aggression: 1.0 };
        let policy = || Policy { warmup: Some(warmup), ..algorithm(order.clone()) };
        let mut scene = Scene::new(policy(), endpoints(&[1]));
        scene.now += Duration::from_secs(1000);
        scene.update(policy(), endpoints(&[1, 1]));
        for (age, least, most) in [(0, 0.07, 0.12), (50, 0.29, 0.37), (100, 0.47, 0.53)] {
            let mut later = scene.now + Duration::from_secs(age);
            std::mem::swap(&mut scene.now, &mut later);
            let counts = scene.counts(2, 10_000);
            std::mem::swap(&mut scene.now, &mut later);
            let share = f64::from(counts[1]) / 10_000.0;
            assert!((least..=most).contains(&share), "{order:?} at {age}: {share}");
        }
    }
}

#[test]
fn all_new_endpoints_share_evenly() {
    let warmup = Warmup { duration: Duration::from_secs(100), minimum: 0.01, aggression: 1.0 };
    let policy = Policy { warmup: Some(warmup), ..algorithm(Algorithm::LeastRequest) };
    let counts = Scene::new(policy, endpoints(&[1; 4])).counts(4, 4000);
    assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
}

#[test]
fn requests_in_flight_are_known_after_an_update() {
    let policy = || algorithm(Algorithm::LeastRequest);
    let mut scene = Scene::new(policy(), endpoints(&[1]));
    let busy = scene.choose(&Context::default()).unwrap();
    scene.update(policy(), endpoints(&[1, 1]));
    assert_eq!(scene.counts(2, 100), [0, 100]);
    drop(busy);
    let counts = scene.counts(2, 1000);
    assert!(counts[0] > 400, "{counts:?}");
}

#[test]
fn a_request_outlives_its_cluster() {
    let mut scene = Scene::new(algorithm(Algorithm::Random), endpoints(&[1]));
    let picked = scene.choose(&Context::default()).unwrap();
    scene.update(algorithm(Algorithm::Random), Vec::new());
    assert_eq!(number(picked.endpoint()), 0);
    assert_eq!(picked.finish(Outcome::Response(200), scene.now), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn idle_endpoints_are_chosen_by_weight(weights in vec(1..10_u32, 1..8), seed in any::<u64>()) {
        let total: f64 = weights.iter().copied().map(f64::from).sum();
        for policy in every_policy().into_iter().take(3) {
            let mut scene = Scene::new(policy.clone(), endpoints(&weights));
            scene.random = seed;
            let counts = scene.counts(weights.len(), 5000);
            for (count, weight) in counts.iter().zip(&weights) {
                let expected = f64::from(*weight) / total * 5000.0;
                // Seven standard deviations.
                let bound = 7.0 * expected.sqrt() + 1.0;
                let off = (f64::from(*count) - expected).abs();
                prop_assert!(off < bound, "{policy:?}: {counts:?} for {weights:?}");
            }
        }
    }

    #[test]
    fn the_ready_ones_that_were_not_tried_are_chosen(
        ready in vec(any::<bool>(), 1..100),
        tries in vec(any::<u64>(), 0..5),
    ) {
        for policy in every_policy() {
            let is_hashed = policy.hash_key().is_some();
            let mut all = endpoints(&vec![1; ready.len()]);
            for (endpoint, ready) in all.iter_mut().zip(&ready) {
                endpoint.ready = *ready;
            }
            let scene = Scene::new(policy, all);
            let count = ready.iter().filter(|ready| **ready).count();
            prop_assert_eq!(scene.cluster.len(), count);
            let mut tried: Vec<Tried> = Vec::new();
            let mut numbers = Vec::new();
            for random in &tries {
                let context = Context { tried: &tried, ..Default::default() };
                let picked = scene.cluster.choose(&context, *random, scene.now);
                prop_assert_eq!(picked.is_ok(), count > 0);
                let Ok(picked) = picked else { break };
                let number = number(picked.endpoint());
                prop_assert!(ready[number]);
                prop_assert!(is_hashed || numbers.len() >= count || !numbers.contains(&number));
                numbers.push(number);
                tried.push(picked.tried());
            }
        }
    }
}

#[test]
fn numbers_of_endpoints_do_not_matter() {
    for policy in every_policy() {
        let all = (0..3000).map(|number| endpoint(number, "r/z/s", 1 + u32::from(number % 3)));
        let mut scene = Scene::new(policy, all.collect());
        let counts = scene.counts(3000, 6000);
        assert_eq!(counts.iter().sum::<u32>(), 6000);
    }
}
