use super::*;

/// Takes a place.
type Take = fn(&Cluster) -> Result<Permit, Overflow>;

fn limited(pool: ConnectionPool) -> Scene {
    Scene::new(Policy { pool, ..Default::default() }, endpoints(&[1]))
}

#[test]
fn there_are_no_more_than_there_may_be() {
    let scene = limited(ConnectionPool {
        max_connections: 1,
        max_pending_requests: 2,
        max_requests: 3,
        max_retries: 4,
        ..Default::default()
    });
    let cluster = &scene.cluster;
    let cases: [(Take, u32, Overflow); 4] = [
        (Cluster::connection, 1, Overflow::Connections),
        (Cluster::pending, 2, Overflow::Pending),
        (Cluster::request, 3, Overflow::Requests),
        (Cluster::retry, 4, Overflow::Retries),
    ];
    let mut kept = Vec::new();
    for (take, limit, overflow) in cases {
        kept.extend((0..limit).map(|_| take(cluster).unwrap()));
        assert_eq!(take(cluster).err(), Some(overflow));
        // Who leaves makes room for one.
        kept.pop();
        kept.push(take(cluster).unwrap());
        assert_eq!(take(cluster).err(), Some(overflow));
    }
    let expected = Statistics {
        connections: 1,
        pending: 2,
        requests: 3,
        retries: 4,
        connection_overflow: 2,
        // Of those that wait and those that do not.
        request_overflow: 4,
        retry_overflow: 2,
        ..Default::default()
    };
    assert_eq!(cluster.statistics(), expected);
    drop(kept);
    let Statistics { connections, pending, requests, retries, .. } = cluster.statistics();
    assert_eq!((connections, pending, requests, retries), (0, 0, 0, 0));
}

#[test]
fn what_is_in_use_is_known_after_an_update() {
    let mut scene = limited(ConnectionPool::default());
    let kept = [scene.cluster.request().unwrap(), scene.cluster.request().unwrap()];
    let pool = ConnectionPool { max_requests: 2, ..Default::default() };
    scene.update(Policy { pool, ..Default::default() }, endpoints(&[1]));
    assert_eq!(scene.cluster.request().err(), Some(Overflow::Requests));
    drop(kept);
    assert!(scene.cluster.request().is_ok());
}

#[test]
fn retries_have_a_budget_that_grows_with_the_requests() {
    let budget = RetryBudget { percent: 20.0, min_concurrency: 3 };
    let pool = ConnectionPool { max_retries: 1, ..Default::default() };
    let policy = Policy { pool, retry_budget: Some(budget), ..Default::default() };
    let scene = Scene::new(policy, endpoints(&[1]));
    let retries = || {
        let retries: Vec<_> = std::iter::from_fn(|| scene.cluster.retry().ok()).collect();
        retries.len()
    };
    assert_eq!(retries(), 3);
    let mut kept: Vec<_> = (0..15).map(|_| scene.cluster.request().unwrap()).collect();
    assert_eq!(retries(), 3);
    kept.extend((0..15).map(|_| scene.cluster.pending().unwrap()));
    assert_eq!(retries(), 6);
}

#[test]
fn without_a_rule_retries_are_a_fifth_of_the_other_requests_or_three() {
    for (max_retries, expected) in [(u32::MAX, [3, 20]), (7, [7, 7])] {
        let scene = limited(ConnectionPool { max_retries, ..Default::default() });
        let retries =
            || std::iter::from_fn(|| scene.cluster.retry().ok()).collect::<Vec<_>>().len();
        assert_eq!(retries(), expected[0]);
        // Retries are requests, too.
        let _kept: Vec<_> = (0..120).map(|_| scene.cluster.request().unwrap()).collect();
        assert_eq!(retries(), expected[1]);
    }
}

#[test]
fn threads_together_take_no_more_than_there_may_be() {
    let scene = limited(ConnectionPool { max_requests: 10, ..Default::default() });
    let cluster = &scene.cluster;
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..1000 {
                    let kept: Vec<_> = (0..4).map(|_| cluster.request()).collect();
                    assert!(cluster.statistics().requests <= 10);
                    drop(kept);
                }
            });
        }
    });
    assert_eq!(cluster.statistics().requests, 0);
}
