use super::*;

fn detection() -> OutlierDetection {
    OutlierDetection {
        consecutive_errors: Some(3),
        consecutive_gateway_errors: None,
        consecutive_local_failures: None,
        interval: Duration::from_secs(10),
        base_ejection_time: Duration::from_secs(30),
        max_ejection_percent: 100,
        min_health_percent: 0,
        error_statuses: [].into(),
    }
}

fn policy(outlier: OutlierDetection) -> Policy {
    Policy { outlier: Some(outlier), ..algorithm(Algorithm::RoundRobin) }
}

/// What is detected, what happens, and for how many seconds which of it ejects.
type Case<'a> = (&'a OutlierDetection, &'a [Outcome], &'a [Option<u64>]);

/// Has the only endpoint see these outcomes, and returns for how long it is ejected by which.
fn ejections(outlier: OutlierDetection, outcomes: &[Outcome]) -> Vec<Option<u64>> {
    let mut scene = Scene::new(policy(outlier), endpoints(&[1]));
    let picked: Vec<_> =
        outcomes.iter().map(|_| scene.choose(&Context::default()).unwrap()).collect();
    let ejections = picked
        .into_iter()
        .zip(outcomes)
        .map(|(picked, outcome)| picked.finish(*outcome, scene.now).map(|time| time.as_secs()));
    ejections.collect()
}

/// Ejects the only endpoint, and returns for how long.
fn eject(scene: &mut Scene) -> u64 {
    for _ in 0..10 {
        let picked = scene.choose(&Context::default()).unwrap();
        if let Some(time) = picked.finish(Outcome::Response(500), scene.now) {
            return time.as_secs();
        }
    }
    panic!("it is not ejected");
}

#[test]
fn errors_in_a_row_eject() {
    use Outcome::{Abandoned, ConnectFailure, Connected, Reset, Response, Timeout};
    let some = Some(30);
    let with = |change: fn(&mut OutlierDetection)| {
        let mut detection = detection();
        change(&mut detection);
        detection
    };
    let gateway = with(|detection| {
        (detection.consecutive_errors, detection.consecutive_gateway_errors) = (None, Some(2));
    });
    let split = with(|detection| detection.consecutive_local_failures = Some(2));
    let custom = with(|detection| detection.error_statuses = [429, 503].into());
    let none = with(|detection| detection.consecutive_errors = None);
    let cases: [Case<'_>; 13] = [
        (&detection(), &[Response(500), Response(503), Response(599)], &[None, None, some]),
        (&detection(), &[Response(500); 2], &[None; 2]),
        (&detection(), &[Response(499); 4], &[None; 4]),
        // A success in between begins anew; one that nobody waited for does not.
        (
            &detection(),
            &[Response(500), Response(500), Response(200), Response(500), Response(500)],
            &[None; 5],
        ),
        (
            &detection(),
            &[Response(500), Abandoned, Response(500), Abandoned, Response(500)],
            &[None, None, None, None, some],
        ),
        (&detection(), &[ConnectFailure, Timeout, Reset], &[None, None, some]),
        (&detection(), &[Reset, Reset, Connected, Reset], &[None; 4]),
        // Those of gateways alone.
        (
            &gateway,
            &[Response(502), Response(500), Response(504), Reset],
            &[None, None, None, some],
        ),
        (&gateway, &[Response(500); 4], &[None; 4]),
        // What got no answer counts on its own.
        (
            &split,
            &[Reset, Response(500), Reset, Response(500), Reset, Reset],
            &[None, None, None, None, None, some],
        ),
        (
            &split,
            &[Response(500), Connected, Response(500), Response(500)],
            &[None, None, None, some],
        ),
        (&custom, &[Response(429), Response(503), Response(429)], &[None, None, some]),
        (&none, &[Response(500); 5], &[None; 5]),
    ];
    for (detection, outcomes, expected) in cases {
        let ejections = ejections(detection.clone(), outcomes);
        assert_eq!(ejections, expected, "{outcomes:?} with {detection:?}");
    }
    assert_eq!(ejections(custom, &[Response(500); 4]), [None; 4]);
}

#[test]
fn an_ejected_endpoint_gets_nothing_until_its_time_is_over() {
    for order in every_policy() {
        let policy = Policy { outlier: Some(detection()), ..order };
        let mut scene = Scene::new(policy, endpoints(&[1; 3]));
        scene.answer(&[1], 500, 3);
        let spared = scene.counts(3, 300);
        assert!(spared[0] > 0 && spared[1] == 0 && spared[2] > 0, "{spared:?}");
        scene.now += Duration::from_secs(29);
        scene.cluster.tick(scene.now);
        assert_eq!(scene.counts(3, 300)[1], 0);
        scene.now += Duration::from_secs(1);
        scene.cluster.tick(scene.now);
        assert!(scene.counts(3, 300)[1] > 0);
    }
}

#[test]
fn each_ejection_is_longer_and_good_times_make_it_shorter() {
    let mut scene = Scene::new(policy(detection()), endpoints(&[1]));
    let mut times = Vec::new();
    for _ in 0..12 {
        let time = eject(&mut scene);
        times.push(time);
        scene.now += Duration::from_secs(time);
        scene.cluster.tick(scene.now);
    }
    assert_eq!(times, [30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300, 300]);
    // One less for each interval, however often anybody looks.
    for _ in 0..30 {
        scene.now += Duration::from_secs(1);
        scene.cluster.tick(scene.now);
    }
    assert_eq!(eject(&mut scene), 240);
    let outlier = OutlierDetection { base_ejection_time: Duration::from_secs(400), ..detection() };
    let mut scene = Scene::new(policy(outlier), endpoints(&[1]));
    for _ in 0..2 {
        assert_eq!(eject(&mut scene), 400);
        scene.now += Duration::from_secs(400);
        scene.cluster.tick(scene.now);
    }
}

#[test]
fn after_an_ejection_it_takes_as_many_errors_again() {
    let mut scene = Scene::new(policy(detection()), endpoints(&[1]));
    let late = [(); 4].map(|()| scene.choose(&Context::default()).unwrap());
    eject(&mut scene);
    // Requests that were on their way: they neither eject it again nor count later.
    for picked in late.into_iter().take(2) {
        assert_eq!(picked.finish(Outcome::Response(500), scene.now), None);
    }
    scene.now += Duration::from_secs(30);
    scene.cluster.tick(scene.now);
    for _ in 0..2 {
        let picked = scene.choose(&Context::default()).unwrap();
        assert_eq!(picked.finish(Outcome::Response(500), scene.now), None);
    }
    assert_eq!(eject(&mut scene), 60);
}

#[test]
fn no_more_are_ejected_than_may_be_but_one_always_may() {
    for (endpoint_count, percent, expected) in
        [(10, 10, 1), (10, 30, 3), (10, 39, 3), (3, 10, 1), (10, 0, 1), (10, 100, 10)]
    {
        let outlier = OutlierDetection { max_ejection_percent: percent, ..detection() };
        let mut scene = Scene::new(policy(outlier), endpoints(&vec![1; endpoint_count]));
        scene.answer(&(0..endpoint_count).collect::<Vec<_>>(), 500, 3);
        let statistics = scene.cluster.statistics();
        assert_eq!(statistics.ejections_active, expected, "{percent} of {endpoint_count}");
        assert_eq!(statistics.ejections_for_errors, u64::from(expected));
        let spared = u64::try_from(endpoint_count).unwrap() - u64::from(expected);
        assert_eq!(statistics.ejections_overflow, spared);
        scene.now += Duration::from_secs(30);
        scene.cluster.tick(scene.now);
        assert_eq!(scene.cluster.statistics().ejections_active, 0);
    }
}

#[test]
fn if_all_are_ejected_there_is_none_unless_panic_says_otherwise() {
    for order in every_policy() {
        for (min_health_percent, expected) in [(0, Some(NoEndpoint::Usable)), (1, None)] {
            let outlier = OutlierDetection { min_health_percent, ..detection() };
            let policy = Policy { outlier: Some(outlier), ..order.clone() };
            let mut scene = Scene::new(policy, endpoints(&[1; 70]));
            scene.answer(&(0..70).collect::<Vec<_>>(), 500, 3);
            assert_eq!(scene.cluster.statistics().ejections_active, 70);
            assert_eq!(scene.choose(&Context::default()).err(), expected);
        }
    }
}

#[test]
fn the_only_one_that_is_left_is_found_among_many() {
    for order in every_policy() {
        let policy = Policy { outlier: Some(detection()), ..order };
        let mut scene = Scene::new(policy, endpoints(&[1; 500]));
        let others: Vec<_> = (0..500).filter(|number| *number != 333).collect();
        scene.answer(&others, 500, 3);
        assert_eq!(scene.cluster.statistics().ejections_active, 499);
        assert_eq!(scene.counts(500, 50)[333], 50);
    }
}

#[test]
fn ejections_outlive_an_update_as_long_as_the_endpoint() {
    let mut scene = Scene::new(policy(detection()), endpoints(&[1; 3]));
    scene.answer(&[1, 2], 500, 3);
    scene.update(policy(detection()), endpoints(&[1; 4]));
    assert_eq!(scene.cluster.statistics().ejections_active, 2);
    let counts = scene.counts(4, 100);
    assert!(counts[1] + counts[2] == 0 && counts[3] > 0, "{counts:?}");
    // One that goes takes its ejection with it.
    scene.update(policy(detection()), endpoints(&[1; 2]));
    assert_eq!(scene.cluster.statistics().ejections_active, 1);
    assert_eq!(scene.counts(2, 10), [10, 0]);
    // Without detection nobody is ejected.
    scene.update(algorithm(Algorithm::RoundRobin), endpoints(&[1; 2]));
    assert_eq!(scene.cluster.statistics().ejections_active, 0);
    assert_eq!(scene.counts(2, 10), [5, 5]);
}

#[test]
fn what_fails_for_a_request_from_before_an_update_is_noticed_after_it() {
    let mut scene = Scene::new(policy(detection()), endpoints(&[1, 1]));
    let late: Vec<_> = (0..6).map(|_| scene.choose(&Context::default()).unwrap()).collect();
    scene.update(policy(detection()), endpoints(&[1, 1]));
    for picked in late.into_iter().filter(|picked| number(picked.endpoint()) == 0) {
        picked.finish(Outcome::Timeout, scene.now);
    }
    assert_eq!(scene.counts(2, 10), [0, 10]);
}

#[test]
fn threads_together_eject_an_endpoint_once() {
    let outlier = OutlierDetection { max_ejection_percent: 50, ..detection() };
    let scene = Scene::new(policy(outlier), endpoints(&[1; 8]));
    let (cluster, now) = (&scene.cluster, scene.now);
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            scope.spawn(move || {
                for random in 0..1000 {
                    let context = Context::default();
                    if let Ok(picked) = cluster.choose(&context, random * 4 + thread, now) {
                        picked.finish(Outcome::Response(500), now);
                    }
                }
            });
        }
    });
    let statistics = cluster.statistics();
    assert_eq!((statistics.ejections_active, statistics.ejections_for_errors), (4, 4));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever happens in whatever order, the counts are those of the endpoints.
    #[test]
    fn no_more_than_the_share_is_ejected_and_none_of_those_is_chosen(
        percent in 0..=100_u32,
        steps in vec((0..4_u8, any::<u64>()), 0..300),
    ) {
        let outlier = OutlierDetection {
            consecutive_errors: Some(1),
            max_ejection_percent: percent,
            ..detection()
        };
        let mut count = 10_usize;
        let mut scene = Scene::new(policy(outlier.clone()), endpoints(&vec![1; count]));
        let mut ejected = std::collections::BTreeMap::new();
        for (step, random) in steps {
            match step {
                0 | 1 => {
                    let picked = scene.cluster.choose(&Context::default(), random, scene.now);
                    prop_assert_eq!(picked.is_ok(), ejected.len() < count);
                    let Ok(picked) = picked else { continue };
                    let number = number(picked.endpoint());
                    prop_assert!(!ejected.contains_key(&number));
                    let status = if random % 2 == 0 { 500 } else { 200 };
                    let ejection = picked.finish(Outcome::Response(status), scene.now);
                    let allowed = (count * percent as usize / 100).max(1);
                    prop_assert_eq!(ejection.is_some(), status == 500 && ejected.len() < allowed);
                    if let Some(time) = ejection {
                        ejected.insert(number, scene.now + time);
                    }
                }
                2 => {
                    scene.now += Duration::from_secs(random % 40);
                    scene.cluster.tick(scene.now);
                    ejected.retain(|_, until| *until > scene.now);
                }
                _ => {
                    count = usize::try_from(random % 10).unwrap() + 1;
                    scene.update(policy(outlier.clone()), endpoints(&vec![1; count]));
                    ejected.retain(|number, _| *number < count);
                }
            }
            prop_assert_eq!(scene.cluster.statistics().ejections_active as usize, ejected.len());
        }
    }
}
