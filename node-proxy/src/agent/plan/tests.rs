use std::slice;

use proptest::prelude::*;

use super::*;

fn key(name: &str) -> PodKey {
    PodKey { namespace: "shop".parse().unwrap(), name: name.parse().unwrap() }
}

fn spec(name: &str, uid: &str) -> PodSpec {
    let PodKey { namespace, name } = key(name);
    PodSpec {
        uid: Some(uid.to_owned()),
        namespace,
        name,
        service_account: "cart".parse().unwrap(),
        netns: None,
        addresses: vec!["10.0.0.1".parse().unwrap()],
    }
}

/// What capture says of a pod that it has enrolled.
fn status(spec: &PodSpec, origin: Origin, state: PodState) -> PodStatus {
    PodStatus {
        namespace: spec.namespace.clone(),
        name: spec.name.clone(),
        uid: spec.uid.clone(),
        origin,
        service_account: Some(spec.service_account.clone()),
        netns: None,
        addresses: Vec::new(),
        state,
        problem: None,
        identity: None,
        connections: 0,
        enrolled_in_ms: 0.0,
    }
}

fn later(uid: &str) -> Fate {
    Fate::Later { uid: uid.to_owned(), reason: "soon".to_owned() }
}

fn out() -> Fate {
    Fate::Out { reason: "not opted in".to_owned() }
}

#[test]
fn what_is_asked_of_capture_follows_from_what_is_wanted_and_what_it_has() {
    use Origin::{Agent, Operator};
    use PodState::{Draining, Out, Pending, Ready, Waiting};
    let (a, b) = (spec("a", "1"), spec("a", "2"));
    let enrol = || Some(Action::Enrol(a.clone()));
    let release = || Some(Action::Release(key("a")));
    let is = |spec: &PodSpec, origin, state| Some(status(spec, origin, state));
    let unreadable = PodStatus { service_account: None, ..status(&a, Operator, Pending) };
    let other_account =
        PodStatus { service_account: Some("till".parse().unwrap()), ..status(&a, Agent, Ready) };
    let wanted = || Some(Fate::In(a.clone()));
    for (case, fate, status, expected) in [
        ("new", wanted(), None, enrol()),
        ("waiting", wanted(), is(&a, Operator, Waiting), enrol()),
        ("was out", wanted(), is(&a, Operator, Out), enrol()),
        ("released a moment ago", wanted(), is(&a, Agent, Draining), enrol()),
        ("enrolled", wanted(), is(&a, Agent, Ready), None),
        ("enrolled, without certificate", wanted(), is(&a, Agent, Pending), None),
        ("enrolled by an operator", wanted(), is(&b, Operator, Ready), None),
        ("a predecessor of the same name", wanted(), is(&b, Agent, Ready), release()),
        ("another account", wanted(), Some(other_account), release()),
        ("record is broken", wanted(), Some(unreadable.clone()), enrol()),
        ("cannot be enrolled, and is not", Some(later("1")), None, None),
        ("cannot be enrolled anew", Some(later("1")), is(&a, Agent, Ready), None),
        ("successor has no address", Some(later("2")), is(&a, Agent, Ready), release()),
        ("likewise, by an operator", Some(later("2")), is(&a, Operator, Ready), None),
        ("opted out", Some(out()), is(&a, Agent, Ready), release()),
        ("opted out, released", Some(out()), is(&a, Agent, Draining), None),
        ("opted out, by an operator", Some(out()), is(&a, Operator, Ready), None),
        ("gone", None, is(&a, Agent, Pending), release()),
        ("gone, by an operator", None, is(&a, Operator, Ready), None),
        ("gone, record is broken", None, Some(unreadable), None),
    ] {
        assert_eq!(change(&key("a"), fate.as_ref(), status.as_ref()), expected, "{case}");
    }
}

#[test]
fn what_is_reported_follows_capture_and_does_not_waver() {
    use Redirection::{Enabled, Pending as Awaited};
    let (a, b) = (spec("a", "1"), spec("a", "2"));
    let wanted = || Some(Fate::In(a.clone()));
    let is = |spec: &PodSpec, state| Some(status(spec, Origin::Agent, state));
    let (ready, pending) = (is(&a, PodState::Ready), is(&a, PodState::Pending));
    let other = is(&b, PodState::Ready);
    for (case, fate, status, before, failed, expected) in [
        ("captured", wanted(), ready.clone(), None, false, Some(Enabled)),
        ("captured at last", wanted(), ready.clone(), Some(Awaited), false, Some(Enabled)),
        ("no certificate yet", wanted(), pending.clone(), None, false, Some(Awaited)),
        ("proxy is replaced", wanted(), pending, Some(Enabled), false, Some(Enabled)),
        ("not tried yet", wanted(), None, None, false, None),
        ("failed", wanted(), None, None, true, Some(Awaited)),
        ("failed after a restart", wanted(), None, Some(Enabled), true, Some(Awaited)),
        ("being taken up", wanted(), None, Some(Enabled), false, Some(Enabled)),
        ("of another pod", wanted(), other, None, false, None),
        ("still captured", Some(later("1")), ready.clone(), Some(Enabled), false, Some(Enabled)),
        ("has no address", Some(later("1")), None, None, false, None),
        ("opted out", None, ready, Some(Enabled), false, None),
        ("opted out, failed", Some(out()), None, Some(Awaited), true, None),
    ] {
        let mark = Mark { uid: "1".to_owned(), value: before };
        let found = redirection(fate.as_ref(), status.as_ref(), &mark, failed);
        assert_eq!(found, expected, "{case}");
    }
}

/// A plan, what is wanted of it, and its clock.
struct Scene {
    plan: Plan,
    wanted: Wanted,
    pods: Pods,
    now: Instant,
}

impl Scene {
    fn new() -> Self {
        let (plan, wanted, pods) = (Plan::default(), Wanted::default(), Pods::new());
        Self { plan, wanted, pods, now: Instant::now() }
    }

    fn want(&mut self, name: &str, uid: &str) {
        self.wanted.pods.insert(key(name), Fate::In(spec(name, uid)));
        let mark = self.wanted.marks.get(&key(name)).filter(|mark| mark.uid == uid).cloned();
        let mark = mark.unwrap_or_else(|| Mark { uid: uid.to_owned(), value: None });
        self.wanted.marks.insert(key(name), mark);
    }

    fn next(&mut self) -> Vec<Action> {
        self.plan.next(self.now, &self.wanted, &self.pods)
    }

    fn done(&mut self, action: &Action, result: Result<(), &str>) -> bool {
        self.plan.done(action, result.map_err(str::to_owned), self.now, 0.0)
    }
}

#[test]
fn what_fails_is_tried_again_after_growing_pauses_and_says_why() {
    let mut scene = Scene::new();
    scene.want("a", "1");
    let enrol = Action::Enrol(spec("a", "1"));
    assert_eq!(scene.next(), slice::from_ref(&enrol));
    assert_eq!(scene.next(), [], "it is under way");
    assert_eq!(scene.plan.notes(&scene.wanted), []);
    let mut pauses = Vec::new();
    for attempt in 0..4 {
        let is_news = scene.done(&enrol, Err("no process"));
        assert_eq!(is_news, attempt == 0);
        let mark = Mark { uid: "1".to_owned(), value: Some(Redirection::Pending) };
        let due = scene.next();
        assert_eq!(due.is_empty(), attempt > 0, "it is reported once: {due:?}");
        if let [Action::Mark(_, found)] = &*due {
            assert_eq!(*found, mark);
            let action = due[0].clone();
            scene.done(&action, Ok(()));
            scene.wanted.marks.insert(key("a"), mark);
        }
        let notes = scene.plan.notes(&scene.wanted);
        assert_eq!(notes.len(), 1);
        assert_eq!((notes[0].waiting, notes[0].reason.as_str()), (true, "no process"));
        let next = scene.plan.next_time().unwrap();
        pauses.push((next - scene.now).as_millis());
        scene.now = next;
        assert_eq!(scene.next(), slice::from_ref(&enrol));
    }
    assert_eq!(pauses, [10, 20, 40, 80]);
    assert!(scene.done(&enrol, Ok(())));
    assert_eq!(scene.plan.notes(&scene.wanted), []);
}

#[test]
fn what_is_no_longer_wanted_is_not_tried_again_and_what_changed_is_tried_at_once() {
    let mut scene = Scene::new();
    scene.want("a", "1");
    let first = scene.next().remove(0);
    scene.done(&first, Err("no process"));
    scene.want("a", "2");
    let second = Action::Enrol(spec("a", "2"));
    assert_eq!(scene.next(), slice::from_ref(&second));
    scene.wanted = Wanted::default();
    assert_eq!(scene.next(), [], "it is under way");
    scene.done(&second, Err("no process"));
    assert_eq!(scene.next(), []);
    assert_eq!(scene.plan.next_time(), None);
}

#[test]
fn a_report_that_hangs_does_not_keep_a_pod_from_being_released() {
    let mut scene = Scene::new();
    scene.want("a", "1");
    scene.pods.insert(key("a"), status(&spec("a", "1"), Origin::Agent, PodState::Ready));
    assert!(matches!(&*scene.next(), [Action::Mark(..)]));
    scene.wanted.pods.clear();
    assert_eq!(scene.next(), [Action::Release(key("a"))]);
}

#[test]
fn pods_that_are_not_captured_are_explained() {
    let mut scene = Scene::new();
    scene.wanted.pods.insert(key("b"), later("1"));
    scene.wanted.pods.insert(key("c"), out());
    let notes = scene.plan.notes(&scene.wanted);
    let said: Vec<_> = notes.iter().map(|n| (n.name.as_str(), n.waiting, &*n.reason)).collect();
    assert_eq!(said, [("b", true, "soon"), ("c", false, "not opted in")]);
}

/// What may happen to one of a few pods.
#[derive(Clone, Copy, Debug)]
enum Happening {
    /// It is opted in, as this incarnation.
    In(u8),
    Later(u8),
    Out,
    Gone,
    /// An operator enrols or releases it.
    ByOperator(bool),
    /// Its network namespace vanishes.
    Vanishes,
    /// Nothing but time.
    Time,
}

fn happenings() -> impl Strategy<Value = Vec<(usize, Happening, bool)>> {
    let happening = prop_oneof![
        (0..3_u8).prop_map(Happening::In),
        (0..3_u8).prop_map(Happening::Later),
        Just(Happening::Out),
        Just(Happening::Gone),
        any::<bool>().prop_map(Happening::ByOperator),
        Just(Happening::Vanishes),
        Just(Happening::Time),
    ];
    // Which pod, what, and whether what is done then fails.
    prop::collection::vec((0..3_usize, happening, any::<bool>()), 0..40)
}

const NAMES: [&str; 3] = ["a", "b", "c"];

impl Scene {
    fn happens(&mut self, name: &str, happening: Happening) {
        match happening {
            Happening::In(uid) => self.want(name, &uid.to_string()),
            Happening::Later(uid) => {
                self.want(name, &uid.to_string());
                self.wanted.pods.insert(key(name), later(&uid.to_string()));
            }
            Happening::Out => drop(self.wanted.pods.insert(key(name), out())),
            Happening::Gone => {
                self.wanted.pods.remove(&key(name));
                self.wanted.marks.remove(&key(name));
            }
            Happening::ByOperator(true) if !self.is_captured(name) => {
                let status = status(&spec(name, "0"), Origin::Operator, PodState::Ready);
                self.pods.insert(key(name), status);
            }
            Happening::ByOperator(false) | Happening::Vanishes => {
                self.pods.remove(&key(name));
            }
            Happening::ByOperator(true) => {}
            Happening::Time => self.now += Duration::from_millis(15),
        }
    }

    fn is_captured(&self, name: &str) -> bool {
        self.pods.get(&key(name)).is_some_and(|status| status.state.is_captured())
    }

    /// Carries everything out that is due, in the world of the scene.
    fn carry_out(&mut self, fails: bool) {
        for action in self.next() {
            if fails {
                self.done(&action, Err("it failed"));
                continue;
            }
            match &action {
                Action::Enrol(spec) => {
                    assert!(!self.is_captured(spec.name.as_str()), "enrolled twice: {action:?}");
                    let status = status(spec, Origin::Agent, PodState::Ready);
                    self.pods.insert(spec.key(), status);
                }
                Action::Release(pod) => {
                    let released = self.pods.remove(pod);
                    let origin = released.expect("is captured").origin;
                    assert_eq!(origin, Origin::Agent, "an operator's was released");
                }
                Action::Mark(pod, mark) => {
                    let known = self.wanted.marks.get_mut(pod).expect("is asked about");
                    assert_ne!(known, mark, "reported twice");
                    *known = mark.clone();
                }
            }
            self.done(&action, Ok(()));
        }
    }

    /// Whether everything is as it is wanted.
    fn assert_settled(&self) {
        for name in NAMES {
            let (key, captured) = (key(name), self.is_captured(name));
            let status = self.pods.get(&key);
            match self.wanted.pods.get(&key) {
                Some(Fate::In(spec)) => {
                    let status = status.expect("is wanted");
                    let is_right = status.origin == Origin::Operator || status.uid == spec.uid;
                    assert!(captured && is_right, "{name}: {status:?}");
                }
                Some(Fate::Later { uid, .. }) => {
                    let is_right =
                        |s: &PodStatus| s.origin == Origin::Operator || s.uid.as_ref() == Some(uid);
                    assert!(status.is_none_or(is_right), "{name}: {status:?}");
                }
                Some(Fate::Out { .. }) | None => {
                    assert!(status.is_none_or(|s| s.origin == Origin::Operator), "{name}");
                }
            }
            let reported = self.wanted.marks.get(&key).and_then(|mark| mark.value);
            let is_in = matches!(self.wanted.pods.get(&key), Some(Fate::In(_)));
            if is_in {
                assert_eq!(reported, Some(Redirection::Enabled), "{name}");
            }
            if !self.wanted.pods.contains_key(&key) {
                assert_eq!(reported, None, "{name}");
            }
        }
        assert_eq!(self.plan.next_time(), None, "nothing is left to do");
    }
}

proptest! {
    /// Whatever happens in whatever order, and whatever fails meanwhile: when nothing fails any
    /// more, every pod ends up as it is wanted, operators' pods untouched, and so does a new agent
    /// that finds what is there.
    #[test]
    fn every_pod_ends_up_as_it_is_wanted(happenings in happenings(), restart in any::<bool>()) {
        let mut scene = Scene::new();
        for (which, happening, fails) in happenings {
            scene.happens(NAMES[which], happening);
            scene.carry_out(fails);
        }
        if restart {
            scene.plan = Plan::default();
        }
        // Longer than any pause; a pod is released before its successor is enrolled and reported.
        for _ in 0..4 {
            scene.now += Duration::from_secs(20);
            scene.carry_out(false);
        }
        scene.assert_settled();
    }
}
