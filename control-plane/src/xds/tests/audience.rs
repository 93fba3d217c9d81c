//! Waypoints, which ask for what is for them by names that do not change.

use std::collections::BTreeMap;

use mesh_api::xds_client::EVERY_WAYPOINT;
use proptest::prelude::*;

use super::super::{
    fixtures::{gone, received, reply, request, versioned_labels},
    resource_type::ResourceType,
    store::Store,
    subscription::{Refusal, Subscription},
};
use crate::resource::{Change, Kind};

const L7: ResourceType = ResourceType::L7;

/// What the waypoint asks for.
const OWN: [&str; 2] = ["shop/w", EVERY_WAYPOINT];

/// Whom resources are for.
const AUDIENCES: [&[&str]; 5] =
    [&["shop/w"], &[EVERY_WAYPOINT], &["bank/w"], &["bank/w", "shop/w"], &[]];

/// So few that clients fall behind.
const MAX_TOMBSTONES: usize = 3;

/// Small enough that most news takes several responses.
const LIMIT: usize = 150;

/// A waypoint that does what it is told.
struct Waypoint {
    subscription: Subscription,
    has: BTreeMap<String, String>,
    unacknowledged: Option<String>,
    /// Whether it was answered since it connected.
    answered: bool,
}

// === impl Waypoint ===

impl Waypoint {
    fn connect(has: BTreeMap<String, String>, store: &Store) -> Self {
        let mut request = request(L7, &OWN);
        request.resource_names_unsubscribe.push("*".into());
        request.initial_resource_versions = has.clone();
        let subscription = Subscription::open(L7, 1, &received(&request), store.of(L7)).unwrap();
        Self { subscription, has, unacknowledged: None, answered: false }
    }

    fn reconnect(&mut self, store: &Store) {
        *self = Self::connect(std::mem::take(&mut self.has), store);
    }

    /// Reads the next response; returns the names in it, those of what is gone with a minus.
    fn read(&mut self, store: &Store, limit: usize) -> Option<Vec<String>> {
        let news = match self.subscription.next(store.of(L7), limit) {
            Err(Refusal::TooFarBehind) => {
                self.reconnect(store);
                self.subscription.next(store.of(L7), limit)
            }
            news => news,
        };
        let news = news.unwrap()?;
        let mut told: Vec<_> = news.removed.iter().map(|name| format!("-{name}")).collect();
        for name in &news.removed {
            self.has.remove(&**name);
        }
        for resource in news.entries.iter().map(|entry| entry.resource()) {
            self.has.insert(resource.name.to_string(), resource.version.to_string());
            told.push(resource.name.to_string());
        }
        self.answered |= !news.incomplete;
        self.unacknowledged = Some(news.nonce);
        Some(told)
    }

    fn acknowledge(&mut self, store: &Store) {
        if let Some(nonce) = self.unacknowledged.take() {
            self.subscription.request(&reply(L7, &nonce, None), store.of(L7)).unwrap();
        }
    }

    fn told(&mut self, store: &Store) -> Option<Vec<String>> {
        let told = self.read(store, usize::MAX);
        self.acknowledge(store);
        told
    }

    fn settle(&mut self, store: &Store) {
        self.acknowledge(store);
        while self.read(store, LIMIT).is_some() {
            self.acknowledge(store);
        }
    }
}

fn store<const N: usize>(changes: [Change; N]) -> Store {
    let mut store = Store::default();
    for change in changes {
        store.apply(change);
    }
    store
}

/// Returns what is for the waypoint, with versions.
fn wanted(store: &Store) -> BTreeMap<String, String> {
    let resources = store.live(L7).map(|entry| entry.resource());
    let own = resources.filter(|r| r.aliases.iter().any(|alias| OWN.contains(&&**alias)));
    own.map(|resource| (resource.name.to_string(), resource.version.to_string())).collect()
}

#[test]
fn a_waypoint_is_told_of_what_is_for_it_or_for_all() {
    let audiences = AUDIENCES.into_iter().zip(["a", "b", "c", "d", "e"]);
    let mut store = store([]);
    for (names, uid) in audiences {
        store.apply(versioned_labels(uid, 0, names));
    }
    let mut waypoint = Waypoint::connect(BTreeMap::new(), &store);
    assert_eq!(waypoint.told(&store).unwrap(), ["labels/a", "labels/b", "labels/d"]);
    assert_eq!(waypoint.told(&store), None);
}

#[test]
fn what_is_for_others_than_before_is_gone_for_the_waypoint_that_it_was_for() {
    let mut store = store([versioned_labels("a", 0, &["shop/w"])]);
    let mut waypoint = Waypoint::connect(BTreeMap::new(), &store);
    let moves: [(&[&str], Option<&[&str]>); 6] = [
        (&["shop/w"], Some(&["labels/a", "-*/*"])),
        (&["bank/w"], Some(&["-labels/a"])),
        (&["tools/w"], None),
        (&["bank/w", "shop/w"], Some(&["labels/a"])),
        (&[EVERY_WAYPOINT], Some(&["labels/a"])),
        (&[], Some(&["-labels/a"])),
    ];
    for (audience, expected) in moves {
        store.apply(versioned_labels("a", 0, audience));
        let mut told = waypoint.told(&store);
        if let Some(told) = &mut told {
            told.sort_by_key(|name| name.starts_with('-'));
        }
        let expected = expected.map(|names| names.iter().map(|&name| name.to_owned()).collect());
        assert_eq!(told, expected, "for {audience:?}");
    }
}

#[test]
fn a_waypoint_that_returns_is_told_that_what_it_has_is_for_others_by_now() {
    let mut store =
        store([versioned_labels("a", 0, &["shop/w"]), versioned_labels("b", 0, &["shop/w"])]);
    let mut waypoint = Waypoint::connect(BTreeMap::new(), &store);
    waypoint.settle(&store);
    store.apply(versioned_labels("a", 0, &["bank/w"]));
    waypoint.reconnect(&store);
    let told = waypoint.told(&store).unwrap();
    assert!(told.contains(&"-labels/a".to_owned()), "{told:?}");
    assert!(!told.contains(&"labels/b".to_owned()), "it has it: {told:?}");
    assert_eq!(waypoint.told(&store), None);
}

#[test]
fn a_waypoint_is_answered_even_if_there_is_nothing_to_tell() {
    let all = [versioned_labels("a", 0, &["shop/w"]), versioned_labels("b", 0, &[EVERY_WAYPOINT])];
    let mut store = store(all);
    let mut waypoint = Waypoint::connect(BTreeMap::new(), &store);
    waypoint.settle(&store);
    waypoint.reconnect(&store);
    assert_eq!(waypoint.told(&store), Some(vec![]), "it has everything");
    let mut waypoint = Waypoint::connect(BTreeMap::new(), &store);
    for name in ["labels/a", "labels/b"] {
        store.apply(gone(Kind::L7, name));
    }
    assert_eq!(waypoint.told(&store), Some(vec![]), "all is gone before it was told of it");
    assert_eq!(waypoint.told(&store), None);
}

#[derive(Clone, Debug)]
enum Step {
    Put {
        id: u8,
        content: u32,
        audience: usize,
    },
    Remove(u8),
    Read,
    Acknowledge,
    /// The next response is lost with the connection.
    Lose,
    Reconnect {
        remembers: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let id = 0..4u8;
    prop_oneof![
        6 => (id.clone(), 0..3u32, 0..AUDIENCES.len())
            .prop_map(|(id, content, audience)| Step::Put { id, content, audience }),
        2 => id.prop_map(Step::Remove),
        4 => Just(Step::Read),
        4 => Just(Step::Acknowledge),
        1 => Just(Step::Lose),
        1 => any::<bool>().prop_map(|remembers| Step::Reconnect { remembers }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_waypoint_always_ends_with_what_is_for_it_and_nothing_else(
        steps in proptest::collection::vec(step(), 0..60),
    ) {
        let mut store = Store::with_max_tombstones(MAX_TOMBSTONES);
        let mut waypoint = Waypoint::connect(BTreeMap::new(), &store);
        for step in steps {
            match step {
                Step::Put { id, content, audience } => {
                    store.apply(versioned_labels(&id.to_string(), content, AUDIENCES[audience]));
                }
                Step::Remove(id) => {
                    store.apply(gone(Kind::L7, &format!("labels/{id}")));
                }
                Step::Read => drop(waypoint.read(&store, LIMIT)),
                Step::Acknowledge => waypoint.acknowledge(&store),
                Step::Lose => {
                    // Whatever it says.
                    let _ = waypoint.subscription.next(store.of(L7), LIMIT);
                    waypoint.reconnect(&store);
                }
                Step::Reconnect { remembers } => {
                    if !remembers {
                        waypoint.has.clear();
                    }
                    waypoint.reconnect(&store);
                }
            }
        }
        waypoint.settle(&store);
        prop_assert_eq!(&waypoint.has, &wanted(&store));
        prop_assert!(waypoint.answered);
    }
}
