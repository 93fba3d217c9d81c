use prost::Message as _;

use super::*;
use crate::{
    resource::Change,
    xds::{
        fixtures::{endpoint, gone, policy, received, reply, request, service, workload},
        store::Store,
    },
};

const ADDRESS: ResourceType = ResourceType::Address;

/// A server and one client of it.
struct Setting {
    store: Store,
    subscription: Option<Subscription>,
    nonce: String,
}

impl Setting {
    fn new(changes: impl IntoIterator<Item = Change>) -> Self {
        let mut store = Store::default();
        for change in changes {
            store.apply(change);
        }
        Self { store, subscription: None, nonce: String::new() }
    }

    fn apply(&mut self, changes: impl IntoIterator<Item = Change>) {
        for change in changes {
            self.store.apply(change);
        }
    }

    fn request(&mut self, request: &DeltaDiscoveryRequest) -> Reply {
        let collection = self.store.of(ADDRESS);
        if let Some(subscription) = &mut self.subscription {
            return subscription.request(request, collection).unwrap();
        }
        self.subscription =
            Some(Subscription::open(ADDRESS, 7, &received(request), collection).unwrap());
        Reply::Nothing
    }

    /// Subscribes to and unsubscribes from names.
    fn subscribe(&mut self, subscribe: &[&str], unsubscribe: &[&str]) {
        let mut request = request(ADDRESS, subscribe);
        request.resource_names_unsubscribe =
            unsubscribe.iter().map(|name| (*name).to_owned()).collect();
        self.request(&request);
    }

    fn connect(&mut self, subscribe: &[&str], unsubscribe: &[&str], had: &[(&str, String)]) {
        let mut request = request(ADDRESS, subscribe);
        request.resource_names_unsubscribe =
            unsubscribe.iter().map(|name| (*name).to_owned()).collect();
        let had = had.iter().map(|(name, version)| ((*name).to_owned(), version.clone()));
        request.initial_resource_versions = had.collect();
        self.subscription = None;
        self.request(&request);
    }

    fn version(&self, name: &str) -> String {
        self.store.of(ADDRESS).get(name).unwrap().1.resource().version.to_string()
    }

    fn next_of(&mut self, limit: usize) -> Option<Vec<String>> {
        let subscription = self.subscription.as_mut().unwrap();
        let news = subscription.next(self.store.of(ADDRESS), limit).unwrap()?;
        self.nonce = news.nonce;
        let mut told: Vec<_> = news.removed.iter().map(|name| format!("-{name}")).collect();
        told.extend(news.entries.iter().map(|entry| entry.resource().name.to_string()));
        if news.incomplete {
            told.push("...".into());
        }
        Some(told)
    }

    /// Returns what the client is told next.
    fn next(&mut self) -> Option<Vec<String>> {
        self.next_of(usize::MAX)
    }

    /// Returns what the client is told next, and acknowledges it.
    fn told(&mut self) -> Vec<String> {
        let told = self.next().expect("news");
        assert_eq!(self.request(&reply(ADDRESS, &self.nonce.clone(), None)), Reply::Acknowledged);
        told
    }

    fn is_silent(&mut self) -> bool {
        self.next().is_none()
    }
}

#[test]
fn without_names_a_client_is_told_everything_then_what_changes() {
    let mut setting =
        Setting::new([workload("a", 1), service("s", "h", 1, &[]), policy("s", "p", 1)]);
    setting.connect(&[], &[], &[]);
    assert_eq!(setting.told(), ["a", "s/h"]);
    assert!(setting.is_silent());
    setting.apply([workload("b", 1), workload("a", 2), workload("a", 3)]);
    assert_eq!(setting.told(), ["b", "a"]);
    setting.apply([gone(Kind::Workload, "b"), workload("c", 1)]);
    assert_eq!(setting.told(), ["-b", "c"]);
    assert!(setting.is_silent());
}

#[test]
fn a_first_subscription_to_everything_is_answered_even_if_there_is_nothing() {
    let mut setting = Setting::new([]);
    setting.connect(&["*"], &[], &[]);
    assert!(setting.told().is_empty());
    assert!(setting.is_silent());
}

#[test]
fn types_of_one_kind_carry_that_kind_only() {
    let mut store = Store::default();
    for change in [workload("a", 1), service("s", "h", 1, &[])] {
        store.apply(change);
    }
    for (resource_type, expected) in [(ResourceType::Workload, "a"), (ResourceType::Service, "s/h")]
    {
        let collection = store.of(resource_type);
        let request = request(resource_type, &[]);
        let mut subscription =
            Subscription::open(resource_type, 7, &received(&request), collection).unwrap();
        let news = subscription.next(collection, usize::MAX).unwrap().unwrap();
        let [entry] = &news.entries[..] else { panic!("{news:?}") };
        assert_eq!(entry.resource().name.as_str(), expected);
    }
}

#[test]
fn a_returning_client_is_told_only_what_changed() {
    let mut setting = Setting::new([workload("a", 1), workload("b", 1), workload("c", 1)]);
    let had = ["a", "b", "c"].map(|name| (name, setting.version(name)));
    setting.connect(&[], &[], &had);
    assert!(setting.told().is_empty(), "an answer, without content");
    setting.apply([workload("b", 2), gone(Kind::Workload, "c"), workload("d", 1)]);
    setting.connect(&[], &[], &had);
    assert_eq!(setting.told(), ["-c", "b", "d"]);
    assert!(setting.is_silent());
}

#[test]
fn a_removal_before_a_clients_time_does_not_concern_it() {
    let mut setting = Setting::new([workload("a", 1), workload("b", 1)]);
    setting.apply([gone(Kind::Workload, "a")]);
    setting.connect(&[], &[], &[]);
    assert_eq!(setting.told(), ["b"]);
}

#[test]
fn a_client_that_subscribes_and_unsubscribes_everything_at_once_is_told_what_it_asks_for() {
    let mut setting = Setting::new([
        endpoint("a", 1, &["n/1.1.1.1"], &[]),
        endpoint("b", 1, &["n/1.1.1.2"], &[]),
    ]);
    setting.connect(&["*"], &["*"], &[]);
    assert!(setting.is_silent());
    setting.subscribe(&["n/1.1.1.1"], &[]);
    assert_eq!(setting.told(), ["a"]);
    setting.apply([workload("b", 2)]);
    assert!(setting.is_silent(), "nobody asked for it");
    setting.subscribe(&["b"], &[]);
    assert_eq!(setting.told(), ["b"]);
    setting.apply([workload("a", 2)]);
    assert_eq!(setting.told(), ["a"], "it lost the alias, but the client holds it");
    setting.apply([gone(Kind::Workload, "a")]);
    assert_eq!(setting.told(), ["-a"]);
}

#[test]
fn a_name_that_nothing_has_is_answered_and_remembered() {
    let mut setting = Setting::new([]);
    setting.connect(&["n/1.1.1.1"], &[], &[]);
    assert_eq!(setting.told(), ["-n/1.1.1.1"]);
    setting.apply([endpoint("a", 1, &["n/1.1.1.1"], &[])]);
    assert_eq!(setting.told(), ["a"]);
}

#[test]
fn who_asks_for_a_service_is_told_its_endpoints() {
    let mut setting = Setting::new([
        endpoint("a", 1, &[], &["s/h"]),
        service("s", "h", 1, &["n/10.0.0.1"]),
        workload("b", 1),
    ]);
    setting.connect(&["n/10.0.0.1"], &[], &[]);
    assert_eq!(setting.told(), ["s/h", "a"]);
    setting.apply([endpoint("b", 2, &[], &["s/h"])]);
    assert_eq!(setting.told(), ["b"]);
    setting.subscribe(&[], &["n/10.0.0.1"]);
    let mut told = setting.told();
    told.sort();
    assert_eq!(told, ["-a", "-b", "-s/h"], "nobody asks for them any longer");
    setting.apply([workload("a", 3)]);
    assert!(setting.is_silent());
}

#[test]
fn a_returning_client_with_names_is_told_of_new_endpoints_too() {
    let mut setting = Setting::new([service("s", "h", 1, &[]), endpoint("a", 1, &[], &["s/h"])]);
    let had = ["s/h", "a"].map(|name| (name, setting.version(name)));
    setting.apply([endpoint("b", 1, &[], &["s/h"])]);
    setting.connect(&["s/h"], &[], &had);
    assert_eq!(setting.told(), ["b"]);
    assert!(setting.is_silent());
}

#[test]
fn a_name_asked_for_again_is_sent_again() {
    let mut setting = Setting::new([workload("a", 1)]);
    setting.connect(&["a"], &[], &[]);
    assert_eq!(setting.told(), ["a"]);
    setting.subscribe(&["a"], &[]);
    assert_eq!(setting.told(), ["a"]);
}

#[test]
fn a_client_may_widen_to_everything_and_narrow_again() {
    let mut setting = Setting::new([workload("a", 1), workload("b", 1)]);
    setting.connect(&["a"], &[], &[]);
    assert_eq!(setting.told(), ["a"]);
    setting.subscribe(&["*"], &[]);
    assert_eq!(setting.told(), ["b"]);
    setting.subscribe(&[], &["*"]);
    assert_eq!(setting.told(), ["-b"]);
    setting.apply([workload("a", 2), workload("b", 2)]);
    assert_eq!(setting.told(), ["a"]);
}

#[test]
fn the_next_response_waits_for_the_acknowledgement_and_holds_the_merged_state() {
    let mut setting = Setting::new([workload("a", 1)]);
    setting.connect(&[], &[], &[]);
    assert!(setting.next().is_some());
    for content in 2..100 {
        setting.apply([workload("a", content), workload("b", content)]);
    }
    setting.apply([gone(Kind::Workload, "a")]);
    assert!(setting.is_silent(), "the first response is still in flight");
    let reply = reply(ADDRESS, &setting.nonce.clone(), None);
    assert_eq!(setting.request(&reply), Reply::Acknowledged);
    assert_eq!(setting.told(), ["b", "-a"].map(String::from).into_iter().rev().collect::<Vec<_>>());
}

#[test]
fn a_rejection_is_recorded_and_the_rest_goes_on() {
    let mut setting = Setting::new([workload("a", 1)]);
    setting.connect(&[], &[], &[]);
    assert!(setting.next().is_some());
    let reply = reply(ADDRESS, &setting.nonce.clone(), Some("a: \u{1b}bad"));
    assert_eq!(setting.request(&reply), Reply::Rejected);
    let progress = setting.subscription.as_ref().unwrap().progress();
    assert_eq!((progress.sent, progress.acknowledged, progress.rejected), (1, 0, 1));
    assert_eq!(progress.last_rejection.as_deref(), Some("a: \\u{1b}bad"));
    setting.apply([workload("b", 1)]);
    assert_eq!(setting.told(), ["b"]);
}

#[test]
fn a_stale_nonce_acknowledges_nothing_but_its_names_count() {
    let mut setting = Setting::new([workload("a", 1), workload("b", 1)]);
    setting.connect(&["a"], &[], &[]);
    assert!(setting.next().is_some());
    let nonce = setting.nonce.clone();
    let stale = DeltaDiscoveryRequest {
        response_nonce: "of another stream".into(),
        ..request(ADDRESS, &["b"])
    };
    assert_eq!(setting.request(&stale), Reply::Stale);
    assert!(setting.is_silent());
    assert_eq!(setting.request(&reply(ADDRESS, &nonce, None)), Reply::Acknowledged);
    assert_eq!(setting.request(&reply(ADDRESS, &nonce, None)), Reply::Stale, "twice");
    assert_eq!(setting.told(), ["b"]);
}

#[test]
fn a_large_state_goes_in_several_responses_of_which_the_last_says_so() {
    let mut setting = Setting::new(["a", "b", "c"].map(|name| workload(name, 1)));
    setting.connect(&[], &[], &[]);
    let mut all = Vec::new();
    while let Some(told) = setting.next_of(1) {
        all.push(told.join(" "));
        setting.request(&reply(ADDRESS, &setting.nonce.clone(), None));
    }
    assert_eq!(all, ["a ...", "b ...", "c"]);
}

#[test]
fn an_announced_rest_that_vanishes_is_answered_all_the_same() {
    let mut setting = Setting::new([workload("a", 1), workload("b", 1)]);
    setting.connect(&["a", "b"], &[], &[]);
    let first = setting.next_of(1).unwrap();
    assert_eq!(first, ["a", "..."]);
    setting.apply([gone(Kind::Workload, "b")]);
    setting.request(&reply(ADDRESS, &setting.nonce.clone(), None));
    assert!(setting.told().is_empty(), "it never had b, but waits for the end");
}

#[test]
fn a_removal_is_not_lost_when_what_overtook_it_vanishes() {
    let mut setting =
        Setting::new([workload("a", 1), endpoint("b", 1, &[], &[]), workload("c", 1)]);
    setting.connect(&["n/1.1.1.1", "*"], &[], &[]);
    assert_eq!(setting.told(), ["-n/1.1.1.1", "a", "b", "c"]);
    setting.subscribe(&["a"], &["*"]);
    setting.apply([endpoint("b", 2, &["n/1.1.1.1"], &[])]);
    assert_eq!(setting.next_of(1).unwrap(), ["-c", "..."], "b is asked for again");
    setting.apply([workload("b", 3)]);
    setting.request(&reply(ADDRESS, &setting.nonce.clone(), None));
    assert_eq!(setting.told(), ["-b", "a"]);
}

#[test]
fn too_many_names_are_refused() {
    let names: Vec<_> = (0..=MAX_SUBSCRIBED_NAMES).map(|n| n.to_string()).collect();
    let request =
        DeltaDiscoveryRequest { resource_names_subscribe: names, ..request(ADDRESS, &[]) };
    let store = Store::default();
    let refused = Subscription::open(ADDRESS, 7, &received(&request), store.of(ADDRESS));
    assert_eq!(refused.unwrap_err(), Refusal::TooManyNames);
}

#[test]
fn a_client_that_missed_forgotten_removals_has_to_come_back() {
    let mut store = Store::with_max_tombstones(1);
    let names = ["a", "b"];
    for name in names {
        store.apply(workload(name, 1));
    }
    let request = request(ADDRESS, &[]);
    let mut subscription =
        Subscription::open(ADDRESS, 7, &received(&request), store.of(ADDRESS)).unwrap();
    let news = subscription.next(store.of(ADDRESS), usize::MAX).unwrap().unwrap();
    for name in names {
        store.apply(gone(Kind::Workload, name));
    }
    subscription.request(&reply(ADDRESS, &news.nonce, None), store.of(ADDRESS)).unwrap();
    let refused = subscription.next(store.of(ADDRESS), usize::MAX);
    assert_eq!(refused.unwrap_err(), Refusal::TooFarBehind);
}

#[test]
fn a_client_that_names_a_resource_twice_is_not_told_of_others() {
    let mut store = Store::default();
    for name in ["a", "b"] {
        store.apply(workload(name, 1));
    }
    let collection = store.of(ADDRESS);
    let mut had = request(ADDRESS, &[]);
    let version = |name| collection.get(name).unwrap().1.resource().version.to_string();
    had.initial_resource_versions =
        ["a", "b"].map(|name| (name.to_owned(), version(name))).into_iter().collect();
    let mut request = received(&had);
    let again = request.had.clone();
    request.had.extend(again);
    let mut subscription = Subscription::open(ADDRESS, 7, &request, collection).unwrap();
    let news = subscription.next(collection, usize::MAX).unwrap().unwrap();
    assert!(news.entries.is_empty() && news.removed.is_empty());
}

#[test]
fn a_name_that_is_not_text_is_refused() {
    let store = Store::default();
    for everything in [true, false] {
        let mut request = received(&request(ADDRESS, if everything { &[] } else { &["a"] }));
        // Field 1 of two bytes, which are no UTF-8.
        request.had.push(Had::decode(&[0x0a, 2, 0xff, 0xff][..]).unwrap());
        let refused = Subscription::open(ADDRESS, 7, &request, store.of(ADDRESS));
        assert_eq!(refused.unwrap_err(), Refusal::NotText);
    }
}
