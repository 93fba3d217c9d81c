use super::*;

const DRAIN: Duration = Duration::from_secs(25);
const BOTH: [Role; 2] = [Role::Capture, Role::Proxy];

/// A plan and its clock.
struct Scene {
    plan: Plan,
    now: Instant,
}

impl Scene {
    /// Capture is process 1, the proxy process 2.
    fn new() -> Self {
        let (mut plan, now) = (Plan::new(DRAIN, false), Instant::now());
        let actions = plan.begin(now);
        assert_eq!(
            actions,
            [start(1, Role::Capture), start(2, Role::Proxy), link(1, 2)],
            "capture first, and both linked"
        );
        Self { plan, now }
    }

    /// The agent is process 3.
    fn with_agent() -> Self {
        let (mut plan, now) = (Plan::new(DRAIN, true), Instant::now());
        let linked = [start(2, Role::Proxy), link(1, 2), start(3, Role::Agent), link(1, 3)];
        let actions = plan.begin(now);
        assert_eq!(actions[0], start(1, Role::Capture));
        assert_eq!(actions[1..], linked, "proxy and agent are not linked with each other");
        Self { plan, now }
    }

    fn after(&mut self, seconds: u64) -> &mut Self {
        self.now += Duration::from_secs(seconds);
        self
    }

    fn step(&mut self, event: Event) -> Vec<Action> {
        self.plan.step(event, self.now)
    }

    fn ends(&mut self, id: u64, end: End) -> Vec<Action> {
        self.step(Event::Ended(ChildId(id), end))
    }

    /// Goes on to the time that the plan waits for; returns it in milliseconds from here, with what
    /// is done then.
    fn wait(&mut self) -> (u128, Vec<Action>) {
        let next = self.plan.next_time().expect("the plan waits for a time");
        let passed = next.duration_since(self.now).as_millis();
        self.now = next;
        (passed, self.step(Event::TimeIsUp))
    }

    fn outcome(&self) -> Option<Result<(), String>> {
        self.plan.outcome().map(|o| o.map_err(|e| e.to_string()))
    }
}

fn start(id: u64, role: Role) -> Action {
    Action::Start { child: ChildId(id), role, program: Program::Own }
}

fn start_from_disk(id: u64, role: Role) -> Action {
    Action::Start { child: ChildId(id), role, program: Program::OnDisk }
}

fn link(capture: u64, other: u64) -> Action {
    Action::Link { capture: ChildId(capture), other: ChildId(other) }
}

fn terminate(id: u64) -> Action {
    Action::Stop(ChildId(id), Stop::Terminate)
}

fn kill(id: u64) -> Action {
    Action::Stop(ChildId(id), Stop::Kill)
}

#[test]
fn a_process_that_dies_is_started_at_once_and_linked_with_the_survivor() {
    let mut scene = Scene::new();
    assert_eq!(scene.ends(1, End::Failure), [start(3, Role::Capture), link(3, 2)]);
    assert_eq!(scene.ends(2, End::Failure), [start(4, Role::Proxy), link(3, 4)]);
    assert_eq!(scene.plan.next_time(), None);
}

#[test]
fn a_process_that_keeps_dying_is_started_after_growing_pauses() {
    let mut scene = Scene::new();
    assert_eq!(scene.ends(2, End::Failure), [start(3, Role::Proxy), link(1, 3)]);
    for (id, pause) in [(3, 100), (4, 200), (5, 400)] {
        assert_eq!(scene.ends(id, End::Failure), []);
        assert_eq!(scene.wait(), (pause, vec![start(id + 1, Role::Proxy), link(1, id + 1)]));
    }
    assert_eq!(scene.after(10).ends(6, End::Failure), [start(7, Role::Proxy), link(1, 7)]);
}

#[test]
fn both_halves_dead_are_linked_when_the_second_is_back() {
    let mut scene = Scene::new();
    scene.ends(1, End::Failure);
    assert_eq!(scene.ends(3, End::Failure), []);
    assert_eq!(scene.ends(2, End::Failure), [start(4, Role::Proxy)]);
    assert_eq!(scene.wait(), (100, vec![start(5, Role::Capture), link(5, 4)]));
}

#[test]
fn a_proxy_that_ends_unasked_is_started_again() {
    let mut scene = Scene::new();
    assert_eq!(scene.ends(2, End::Success), [start(3, Role::Proxy), link(1, 3)]);
}

#[test]
fn a_first_process_that_refuses_at_start_ends_everything_and_any_other_is_tried_again() {
    for end in [End::Refused, End::NotStarted] {
        let mut scene = Scene::new();
        assert_eq!(scene.ends(2, end), [terminate(1)]);
        assert_eq!(scene.outcome(), None);
        scene.ends(1, End::Success);
        let error = scene.outcome().unwrap().unwrap_err();
        assert!(error.contains("proxy process cannot serve"), "{error}");

        let mut scene = Scene::new();
        assert_eq!(scene.ends(1, end), [terminate(2)], "nobody else can tell the proxy");

        let mut scene = Scene::new();
        assert_eq!(scene.after(10).ends(2, end), [start(3, Role::Proxy), link(1, 3)]);
        assert_eq!(scene.ends(3, end), []);
        assert_eq!(scene.wait().1, [start(4, Role::Proxy), link(1, 4)]);
    }
}

#[test]
fn a_drain_is_told_to_capture_only_and_ends_with_the_last_process() {
    let mut scene = Scene::new();
    assert_eq!(scene.step(Event::Terminate), [terminate(1)]);
    assert_eq!(scene.step(Event::Terminate), [], "once is enough");
    assert_eq!(scene.step(Event::Renew), []);
    assert_eq!(scene.after(20).ends(1, End::Success), []);
    assert_eq!(scene.outcome(), None);
    assert_eq!(scene.ends(2, End::Success), []);
    assert_eq!(scene.outcome(), Some(Ok(())));
}

#[test]
fn what_does_not_end_after_a_drain_is_ended_and_counts_as_unclean() {
    let mut scene = Scene::new();
    scene.step(Event::Terminate);
    scene.ends(1, End::Success);
    assert_eq!(scene.wait(), (27_000, vec![terminate(2)]));
    assert_eq!(scene.wait(), (1_000, vec![kill(2)]));
    assert_eq!(scene.plan.next_time(), None);
    scene.ends(2, End::Failure);
    assert!(matches!(scene.plan.outcome(), Some(Err(SuperviseError::Unclean))));
}

#[test]
fn a_drain_without_a_capture_is_told_to_the_proxy_and_starts_nothing() {
    let mut scene = Scene::new();
    scene.ends(1, End::Failure);
    scene.ends(3, End::Failure);
    assert_eq!(scene.step(Event::Terminate), [terminate(2)]);
    scene.ends(2, End::Success);
    assert_eq!(scene.plan.next_time(), None, "capture is not awaited");
    assert_eq!(scene.outcome(), Some(Ok(())));
}

#[test]
fn capture_that_was_handed_over_is_not_started_again_and_the_proxy_gets_time() {
    let mut scene = Scene::new();
    assert_eq!(scene.ends(1, End::Success), []);
    assert_eq!(scene.outcome(), None);
    assert_eq!(scene.step(Event::Terminate), [], "the successor has told it already");
    scene.ends(2, End::Success);
    assert_eq!(scene.outcome(), Some(Ok(())));

    let mut scene = Scene::new();
    scene.ends(1, End::Success);
    assert_eq!(scene.wait(), (87_000, vec![terminate(2)]), "the other may be slow to serve");
}

#[test]
fn capture_is_renewed_first_and_then_the_proxy() {
    let mut scene = Scene::new();
    assert_eq!(scene.step(Event::Renew), [start_from_disk(3, Role::Capture), link(3, 2)]);
    assert_eq!(scene.step(Event::Renew), [], "one at a time");
    assert_eq!(scene.ends(1, End::Success), [start_from_disk(4, Role::Proxy), link(3, 4)]);
    assert_eq!(scene.step(Event::Renew), [], "the old proxy drains");
    assert_eq!(scene.ends(2, End::Success), []);
    assert_eq!(scene.plan.next_time(), None);
    assert_eq!(scene.ends(4, End::Failure), [start_from_disk(5, Role::Proxy), link(3, 5)]);
    assert_eq!(scene.step(Event::Renew), [start_from_disk(6, Role::Capture), link(6, 5)]);
}

#[test]
fn a_capture_that_dies_while_it_takes_over_is_followed_by_the_program_that_worked() {
    for end in [End::Failure, End::Refused, End::NotStarted] {
        let mut scene = Scene::new();
        scene.step(Event::Renew);
        assert_eq!(scene.ends(3, end), [start(4, Role::Capture), link(4, 2)]);
        assert_eq!(scene.ends(1, End::Success), [], "the proxy is left alone");
        assert_eq!(scene.ends(4, End::Failure), []);
        assert_eq!(scene.wait(), (100, vec![start(5, Role::Capture), link(5, 2)]));
    }
}

#[test]
fn a_capture_that_hangs_while_it_takes_over_is_killed() {
    let mut scene = Scene::new();
    scene.step(Event::Renew);
    assert_eq!(scene.wait(), (60_000, vec![kill(3)]));
    assert_eq!(scene.ends(3, End::Failure), [start(4, Role::Capture), link(4, 2)]);
}

#[test]
fn an_old_capture_that_ends_while_the_new_one_waits_to_be_started_is_not_a_hand_over() {
    let mut scene = Scene::new();
    scene.step(Event::Renew);
    scene.ends(3, End::Failure);
    assert_eq!(scene.ends(4, End::Failure), []);
    assert_eq!(scene.ends(1, End::Success), []);
    assert_eq!(scene.wait(), (100, vec![start(5, Role::Capture), link(5, 2)]));
    assert_eq!(scene.outcome(), None);
}

#[test]
fn a_proxy_that_dies_while_the_old_one_drains_is_followed_by_the_program_that_worked() {
    let mut scene = Scene::new();
    scene.step(Event::Renew);
    scene.ends(1, End::Success);
    assert_eq!(scene.ends(4, End::Failure), [start(5, Role::Proxy), link(3, 5)]);
    assert_eq!(scene.ends(2, End::Success), []);
}

#[test]
fn an_old_proxy_that_does_not_drain_is_ended() {
    let mut scene = Scene::new();
    scene.step(Event::Renew);
    scene.ends(1, End::Success);
    assert_eq!(scene.wait(), (85_000, vec![terminate(2)]));
    assert_eq!(scene.wait(), (1_000, vec![kill(2)]));
    assert_eq!(scene.ends(2, End::Failure), []);
}

#[test]
fn a_signal_to_renew_while_capture_is_down_renews_both_at_once() {
    let mut scene = Scene::new();
    scene.ends(1, End::Failure);
    scene.ends(3, End::Failure);
    assert_eq!(
        scene.step(Event::Renew),
        [
            start_from_disk(4, Role::Capture),
            link(4, 2),
            start_from_disk(5, Role::Proxy),
            link(4, 5)
        ]
    );
    assert_eq!(scene.ends(2, End::Success), []);
    assert_eq!(scene.plan.next_time(), None);
}

#[test]
fn a_drain_in_the_middle_of_a_renewal_ends_old_and_new() {
    let mut scene = Scene::new();
    scene.step(Event::Renew);
    assert_eq!(scene.step(Event::Terminate), [terminate(1), terminate(3)]);
    for id in [1, 3, 2] {
        assert_eq!(scene.ends(id, End::Success), []);
    }
    assert_eq!(scene.outcome(), Some(Ok(())));
}

#[test]
fn an_agent_that_dies_disturbs_nothing_and_is_linked_with_each_capture() {
    let mut scene = Scene::with_agent();
    assert_eq!(scene.ends(3, End::Failure), [start(4, Role::Agent), link(1, 4)]);
    assert_eq!(scene.ends(1, End::Failure), [start(5, Role::Capture), link(5, 2), link(5, 4)]);
    assert_eq!(scene.ends(2, End::Failure), [start(6, Role::Proxy), link(5, 6)]);
    assert_eq!(scene.ends(4, End::Failure), []);
    assert_eq!(scene.wait(), (100, vec![start(7, Role::Agent), link(5, 7)]));
    let mut scene = Scene::with_agent();
    assert_eq!(scene.ends(3, End::Refused), [terminate(1)], "it cannot do what was asked for");
}

#[test]
fn an_agent_ends_with_the_others_and_when_capture_was_handed_over() {
    let mut scene = Scene::with_agent();
    assert_eq!(scene.step(Event::Terminate), [terminate(1), terminate(3)]);
    for id in [3, 1, 2] {
        assert_eq!(scene.outcome(), None);
        scene.ends(id, End::Success);
    }
    assert_eq!(scene.outcome(), Some(Ok(())));
    let mut scene = Scene::with_agent();
    assert_eq!(scene.ends(1, End::Success), [terminate(3)]);
}

#[test]
fn an_agent_is_renewed_last_and_one_that_fails_is_followed_by_the_program_that_worked() {
    let mut scene = Scene::with_agent();
    let renewed = [start_from_disk(4, Role::Capture), link(4, 2), link(4, 3)];
    assert_eq!(scene.after(20).step(Event::Renew), renewed);
    let renewed = [start_from_disk(5, Role::Proxy), link(4, 5), terminate(3)];
    assert_eq!(scene.ends(1, End::Success), renewed);
    assert_eq!(scene.ends(3, End::Success), [start_from_disk(6, Role::Agent), link(4, 6)]);
    assert_eq!(scene.ends(6, End::Failure), []);
    assert_eq!(scene.wait(), (100, vec![start(7, Role::Agent), link(4, 7)]));
    assert_eq!(scene.ends(2, End::Success), []);

    let mut scene = Scene::with_agent();
    scene.step(Event::Renew);
    scene.ends(1, End::Success);
    assert_eq!(scene.wait(), (1_000, vec![kill(3)]), "it does not end");
}

/// Whatever ends in whatever order, a node that is not ending always has a process of each half, or
/// a time at which it gets one.
#[test]
fn a_half_is_never_forgotten() {
    let ends = [End::Failure, End::Refused, End::Success, End::NotStarted];
    for seed in 0..20_000_u32 {
        let mut scene = Scene::new();
        let mut dice = seed;
        scene.after(10).ends(2, End::Failure);
        scene.ends(1, End::Failure);
        for _ in 0..8 {
            dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (what, which) = (dice >> 29, dice >> 16 & 0xff);
            match what {
                0 => drop(scene.step(Event::Renew)),
                1 if scene.plan.next_time().is_some() => drop(scene.wait()),
                _ if !scene.plan.children.is_empty() => {
                    let index = which as usize % scene.plan.children.len();
                    let id = scene.plan.children[index].id;
                    scene.step(Event::Ended(id, ends[what as usize % ends.len()]));
                }
                _ => {}
            }
            if scene.plan.phase != Phase::Running {
                break;
            }
            for role in BOTH {
                let runs = scene.plan.children.iter().any(|c| c.role == role);
                let waits = scene.plan.wanted(role).restart_at.is_some();
                assert!(runs || waits, "{role} is gone with seed {seed}");
            }
        }
    }
}
