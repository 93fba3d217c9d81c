use proptest::prelude::*;
use prost_types::Any;

use super::*;

const LETTERS: &str = "type/letters";
const NUMBERS: &str = "type/numbers";

/// Reads a text; what is no number or letter is refused.
fn subscriptions() -> [Subscription<String>; 2] {
    let letters = |_: &str, content: &[u8]| match std::str::from_utf8(content) {
        Ok(text) if text.chars().all(char::is_alphabetic) => Ok(text.to_owned()),
        _ => Err("not letters".to_owned()),
    };
    let numbers = |_: &str, content: &[u8]| Ok(content.len().to_string());
    [
        Subscription { type_url: LETTERS, interest: Interest::Everything, read: letters },
        Subscription { type_url: NUMBERS, interest: Interest::Everything, read: numbers },
    ]
}

fn session() -> Session<String> {
    let node = Node { id: "ztunnel~1.1.1.1~p.n~n.svc.cluster.local".into(), ..Node::default() };
    Session::new(node, subscriptions())
}

fn resource(name: &str, version: &str, content: &str) -> Resource {
    Resource {
        version: version.into(),
        resource: Some(Any { type_url: LETTERS.into(), value: content.into() }),
        name: name.into(),
        aliases: Vec::new(),
    }
}

fn response(nonce: &str, resources: Vec<Resource>, removed: &[&str]) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse {
        type_url: LETTERS.into(),
        nonce: nonce.into(),
        resources,
        removed_resources: removed.iter().map(|name| (*name).to_owned()).collect(),
        ..DeltaDiscoveryResponse::default()
    }
}

fn retained(session: &Session<String>) -> Vec<(String, String)> {
    session.first_requests()[0].initial_resource_versions.clone().into_iter().collect()
}

fn pair(name: &str, version: &str) -> (String, String) {
    (name.to_owned(), version.to_owned())
}

#[test]
fn a_state_in_several_responses_is_there_with_the_last() {
    let mut session = session();
    let numbers = DeltaDiscoveryResponse { type_url: NUMBERS.into(), ..response("1", vec![], &[]) };
    assert!(!session.receive(numbers).unwrap().update.synced);
    for (marker, synced) in [(INCOMPLETE, false), ("", true)] {
        let system_version_info = marker.to_owned();
        let part = DeltaDiscoveryResponse { system_version_info, ..response("2", vec![], &[]) };
        assert_eq!(session.receive(part).unwrap().update.synced, synced, "{marker:?}");
    }
}

#[test]
fn a_stream_begins_with_everything_of_each_type_and_says_who_asks() {
    let requests = session().first_requests();
    let types: Vec<_> = requests.iter().map(|request| request.type_url.as_str()).collect();
    assert_eq!(types, [LETTERS, NUMBERS]);
    for request in requests {
        assert!(request.node.unwrap().id.starts_with("ztunnel~"));
        assert!(request.resource_names_subscribe.is_empty());
        assert!(request.initial_resource_versions.is_empty());
        assert!(request.response_nonce.is_empty());
    }
}

#[test]
fn names_are_asked_for_on_every_stream_with_what_is_retained_of_them() {
    let mut subscriptions = subscriptions();
    for names in [&["own", "all"][..], &[]] {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        subscriptions[0].interest = Interest::Names(names.clone());
        let mut session = Session::new(Node::default(), subscriptions.clone());
        for known in [vec![], vec![pair("a", "1")]] {
            let requests = session.first_requests();
            assert_eq!(requests[0].resource_names_subscribe, names);
            assert_eq!(requests[0].resource_names_unsubscribe, ["*"], "or it were everything");
            assert!(requests[1].resource_names_subscribe.is_empty());
            assert!(requests[1].resource_names_unsubscribe.is_empty());
            assert_eq!(retained(&session), known);
            let resources = vec![resource("a", "1", "x")];
            let answer = session.receive(response("n", resources, &["all"])).unwrap();
            assert!(!answer.update.synced, "the other type is not answered");
            assert!(answer.request.resource_names_subscribe.is_empty());
        }
    }
}

#[test]
fn a_response_is_acknowledged_and_the_next_stream_asks_for_what_differs() {
    let mut session = session();
    let resources = vec![resource("a", "1", "x"), resource("b", "1", "y")];
    let Answer { update, request } = session.receive(response("n1", resources, &[])).unwrap();
    let updated = |name: &str, content: &str| Change::Updated(name.into(), content.to_owned());
    assert_eq!(update.changes, [updated("a", "x"), updated("b", "y")]);
    assert_eq!((update.type_url, update.bytes), (LETTERS, 2));
    assert_eq!((request.type_url.as_str(), request.response_nonce.as_str()), (LETTERS, "n1"));
    assert!(request.error_detail.is_none() && request.node.is_none());
    assert_eq!(retained(&session), [pair("a", "1"), pair("b", "1")]);

    let answer = session.receive(response("n2", vec![resource("a", "2", "z")], &["b", "c"]));
    let removed = |name: &str| Change::Removed(name.into());
    assert_eq!(answer.unwrap().update.changes, [updated("a", "z"), removed("b"), removed("c")]);
    assert_eq!(retained(&session), [pair("a", "2")]);
}

#[test]
fn a_refused_resource_is_named_and_the_others_of_its_response_count() {
    let mut session = session();
    let mut empty = resource("empty", "1", "x");
    empty.resource = None;
    let mut foreign = resource("foreign", "1", "x");
    foreign.resource.as_mut().unwrap().type_url = "type/other".into();
    let resources = vec![resource("bad", "1", "7"), empty, resource("good", "1", "x"), foreign];
    let Answer { update, request } = session.receive(response("n", resources, &[])).unwrap();
    assert_eq!(update.changes, [Change::Updated("good".into(), "x".to_owned())]);
    assert_eq!(update.rejections.len(), 3);
    let detail = request.error_detail.unwrap();
    assert_eq!(
        detail.message,
        "bad: not letters; empty: has no content; foreign: is of the type type/other"
    );
    assert_eq!(detail.code, INVALID_ARGUMENT);
    assert_eq!(request.response_nonce, "n");
    assert_eq!(retained(&session), [pair("good", "1")]);
}

#[test]
fn of_a_resource_that_is_refused_later_the_version_before_is_retained() {
    let mut session = session();
    session.receive(response("1", vec![resource("a", "1", "x")], &[])).unwrap();
    let answer = session.receive(response("2", vec![resource("a", "2", "7")], &[])).unwrap();
    assert!(answer.update.changes.is_empty());
    assert_eq!(retained(&session), [pair("a", "1")]);
}

#[test]
fn an_answer_names_a_bounded_number_of_refusals() {
    let resources: Vec<_> = (0..150).map(|n| resource(&format!("r{n}"), "1", "7")).collect();
    let answer = session().receive(response("n", resources, &[])).unwrap();
    let message = answer.request.error_detail.unwrap().message;
    assert_eq!(message.matches("not letters").count(), MAX_NAMED_REJECTIONS);
    assert!(message.ends_with("; and 50 more"), "{message}");
    assert_eq!(answer.update.rejections.len(), 150);
}

#[test]
fn a_session_is_synced_once_every_type_was_answered_whatever_it_holds() {
    let mut session = session();
    assert!(!session.receive(response("1", Vec::new(), &[])).unwrap().update.synced);
    assert!(!session.is_synced());
    let numbers =
        DeltaDiscoveryResponse { type_url: NUMBERS.into(), ..DeltaDiscoveryResponse::default() };
    assert!(session.receive(numbers).unwrap().update.synced);
    assert!(session.receive(response("2", Vec::new(), &[])).unwrap().update.synced);
}

#[test]
fn a_type_that_was_not_asked_for_is_an_error() {
    let unasked = DeltaDiscoveryResponse {
        type_url: "type/other".into(),
        ..DeltaDiscoveryResponse::default()
    };
    assert_eq!(session().receive(unasked), Err(UnknownType("type/other".into())));
}

proptest! {
    /// A control plane that sends what differs from what it is told, whenever streams break, ends
    /// with a client that has what it has.
    #[test]
    fn a_client_has_what_the_control_plane_has_after_any_number_of_streams(
        states in proptest::collection::vec(
            proptest::collection::btree_map(0u8..8, (0u8..4, any::<bool>()), 0..8), 1..12
        ),
        lost in proptest::collection::vec(any::<bool>(), 12),
    ) {
        let mut session = session();
        let mut view: BTreeMap<Arc<str>, String> = BTreeMap::new();
        let last = states.len() - 1;
        for (n, state) in states.into_iter().enumerate() {
            let known: BTreeMap<_, _> = retained(&session).into_iter().collect();
            let name = |key: u8| format!("r{key}");
            let content = |value: u8, good: bool| if good { "abcd"[..=usize::from(value)].to_owned() } else { "7".to_owned() };
            let version = |value: u8, good: bool| format!("{value}{good}");
            let resources = state
                .iter()
                .filter(|(key, (value, good))| known.get(&name(**key)) != Some(&version(*value, *good)))
                .map(|(key, (value, good))| resource(&name(*key), &version(*value, *good), &content(*value, *good)))
                .collect();
            let removed: Vec<_> = known.keys().filter(|k| !state.keys().any(|key| name(*key) == **k)).collect();
            let removed: Vec<&str> = removed.into_iter().map(String::as_str).collect();
            if lost[n] && n < last {
                // The response never arrives.
                continue;
            }
            for change in session.receive(response("n", resources, &removed)).unwrap().update.changes {
                match change {
                    Change::Updated(name, content) => drop(view.insert(name, content)),
                    Change::Removed(name) => drop(view.remove(&name)),
                }
            }
            for (key, (value, good)) in &state {
                if *good {
                    prop_assert_eq!(view.get(name(*key).as_str()), Some(&content(*value, true)));
                }
            }
            let names: Vec<_> = state.keys().map(|key| name(*key)).collect();
            prop_assert!(view.keys().all(|known| names.contains(&known.to_string())));
            prop_assert_eq!(view.len(), retained(&session).len());
        }
    }
}
