use super::*;

fn detection() -> OutlierDetection {
    OutlierDetection {
        consecutive_errors: Some(1),
        consecutive_gateway_errors: None,
        consecutive_local_failures: None,
        interval: Duration::from_secs(10),
        base_ejection_time: Duration::from_secs(30),
        max_ejection_percent: 100,
        min_health_percent: 0,
        error_statuses: [].into(),
    }
}

/// Returns endpoints of which so many are here, and so many in another region.
fn near_and_far(near: u16, far: u16) -> Vec<Endpoint> {
    let place = |number| if number < near { "r/z/s" } else { "q/z/s" };
    (0..near + far).map(|number| endpoint(number, place(number), 1)).collect()
}

fn share_of_far(scene: &mut Scene, near: usize, far: usize) -> f64 {
    let counts = scene.counts(near + far, 5000);
    f64::from(counts[near..].iter().sum::<u32>()) / 5000.0
}

#[test]
fn other_regions_take_what_the_own_one_cannot() {
    for order in every_policy() {
        let policy = Policy { outlier: Some(detection()), ..order.clone() };
        let mut scene = Scene::new(policy, near_and_far(10, 10));
        let cases = [(0..0, 0.0), (0..2, 0.0), (2..5, 0.3), (5..10, 1.0)];
        for (failing, expected) in cases {
            scene.answer(&failing.clone().collect::<Vec<_>>(), 500, 1);
            let share = share_of_far(&mut scene, 10, 10);
            assert!((share - expected).abs() < 0.03, "{order:?} {failing:?}: {share}");
        }
        scene.now += Duration::from_secs(30);
        scene.cluster.tick(scene.now);
        assert_eq!(scene.counts(20, 1000)[10..], [0; 10]);
    }
}

#[test]
fn where_all_regions_suffer_ejected_endpoints_are_used_below_the_threshold() {
    let outlier = OutlierDetection { min_health_percent: 50, ..detection() };
    let policy = Policy { outlier: Some(outlier), ..algorithm(Algorithm::RoundRobin) };
    let mut scene = Scene::new(policy, near_and_far(10, 10));
    let failing: Vec<_> = (0..8).chain(10..18).collect();
    // Two errors more would be for those in panic.
    scene.answer(&failing, 500, 1);
    let counts = scene.counts(20, 2000);
    assert!(counts.iter().all(|count| *count > 50), "{counts:?}");
}

#[test]
fn localities_get_their_shares_as_far_as_their_endpoints_suffice() {
    let to = [("r", 80), ("q", 20)].map(|(to, weight)| (LocalityPattern::new(to), weight)).into();
    let distribution = Distribution { from: LocalityPattern::new("*"), to };
    let locality = Some(LocalityPolicy::Distribute(vec![distribution]));
    for order in every_policy() {
        let outlier = Some(detection());
        let policy = Policy { locality: locality.clone(), outlier, ..order.clone() };
        let mut scene = Scene::new(policy, near_and_far(4, 4));
        let share = share_of_far(&mut scene, 4, 4);
        assert!((share - 0.2).abs() < 0.03, "{order:?}: {share}");
        // Half of them take 70 percent of 80, of 76 in all.
        scene.answer(&[0, 1], 500, 1);
        let share = share_of_far(&mut scene, 4, 4);
        assert!((share - 20.0 / 76.0).abs() < 0.03, "{order:?}: {share}");
        scene.answer(&[2, 3], 500, 1);
        let share = share_of_far(&mut scene, 4, 4);
        assert!((share - 1.0).abs() < f64::EPSILON, "{order:?}: {share}");
    }
}

#[test]
fn a_retry_leaves_the_locality_after_two_tries_if_it_is_to() {
    let policy = Policy { outlier: Some(detection()), ..algorithm(Algorithm::RoundRobin) };
    let mut scene = Scene::new(policy, near_and_far(6, 2));
    for (other_localities, expected) in
        [(false, [true, true, true, true]), (true, [true, true, false, false])]
    {
        let mut tried = Vec::new();
        for near in expected {
            let context = Context { tried: &tried, other_localities, ..Default::default() };
            let picked = scene.choose(&context).unwrap();
            assert_eq!(number(picked.endpoint()) < 6, near, "{tried:?}");
            tried.push(picked.tried());
        }
    }
}

#[test]
fn a_retry_stays_where_there_is_no_other_locality() {
    let mut scene = Scene::new(algorithm(Algorithm::Random), near_and_far(3, 0));
    let tried: Vec<_> =
        (0..2).map(|_| scene.choose(&Context::default()).unwrap().tried()).collect();
    let context = Context { tried: &tried, other_localities: true, ..Default::default() };
    assert!(scene.choose(&context).is_ok());
}

#[test]
fn a_locality_of_which_all_were_tried_is_tried_again_before_a_worse_one() {
    let policy = Policy { outlier: Some(detection()), ..algorithm(Algorithm::LeastRequest) };
    let mut scene = Scene::new(policy, near_and_far(1, 3));
    let tried = [scene.choose(&Context::default()).unwrap().tried()];
    let again = scene.choose(&Context { tried: &tried, ..Default::default() }).unwrap();
    assert_eq!(number(again.endpoint()), 0);
}
