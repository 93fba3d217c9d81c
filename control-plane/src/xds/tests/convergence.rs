use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::{
    fixtures::{endpoint, gone, received, reply, request, service},
    resource_type::ResourceType,
    store::{Entry, Store},
    subscription::{News, Refusal, Subscription},
};
use crate::resource::{Change, Kind};

const ADDRESS: ResourceType = ResourceType::Address;

/// So few that clients fall behind.
const MAX_TOMBSTONES: usize = 3;

/// Small enough that most news takes several responses.
const LIMIT: usize = 300;

#[derive(Clone, Debug)]
enum Step {
    Workload {
        id: u8,
        content: u32,
        alias: u8,
        services: [bool; 2],
    },
    Service {
        id: u8,
        content: u32,
        alias: u8,
    },
    Remove {
        kind: Kind,
        id: u8,
    },
    /// The client reads the next response, if there is one.
    Read,
    Acknowledge,
    /// The client refuses the first resource of the next response.
    ReadAndReject,
    /// The next response is lost with the connection.
    Lose,
    Reconnect {
        remembers: bool,
    },
    Ask(u8),
    Unask(u8),
    AskEverything(bool),
}

/// A client that does what it is told.
struct Client {
    subscription: Subscription,
    everything: bool,
    keys: BTreeSet<String>,
    has: BTreeMap<String, String>,
    unacknowledged: Option<String>,
}

fn step() -> impl Strategy<Value = Step> {
    let id = 0..4u8;
    let content = 0..3u32;
    prop_oneof![
        4 => (id.clone(), content.clone(), 0..6u8, any::<[bool; 2]>()).prop_map(
            |(id, content, alias, services)| Step::Workload { id, content, alias, services }
        ),
        3 => (0..2u8, content, 0..6u8)
            .prop_map(|(id, content, alias)| Step::Service { id, content, alias }),
        2 => id.clone().prop_map(|id| Step::Remove { kind: Kind::Workload, id }),
        1 => (0..2u8).prop_map(|id| Step::Remove { kind: Kind::Service, id }),
        4 => Just(Step::Read),
        4 => Just(Step::Acknowledge),
        1 => Just(Step::ReadAndReject),
        1 => Just(Step::Lose),
        1 => any::<bool>().prop_map(|remembers| Step::Reconnect { remembers }),
        2 => (0..10u8).prop_map(Step::Ask),
        1 => (0..10u8).prop_map(Step::Unask),
        1 => any::<bool>().prop_map(Step::AskEverything),
    ]
}

fn alias(id: u8) -> String {
    format!("n/10.0.0.{id}")
}

/// A name that a client may ask for: of a workload, of a service, or an address.
fn key(id: u8) -> String {
    match id {
        0..2 => format!("c//Pod/ns/{id}"),
        2..4 => format!("ns/{}", id - 2),
        _ => alias(id - 4),
    }
}

fn change(step: &Step) -> Option<Change> {
    let uid = |id: u8| format!("c//Pod/ns/{id}");
    Some(match step {
        Step::Workload { id, content, alias: a, services } => {
            let names = ["ns/0", "ns/1"];
            let chosen: Vec<_> =
                names.into_iter().zip(services).filter(|(_, c)| **c).map(|(n, _)| n).collect();
            endpoint(&uid(*id), *content, &[&alias(*a)], &chosen)
        }
        Step::Service { id, content, alias: a } => {
            service("ns", &id.to_string(), *content, &[&alias(*a)])
        }
        Step::Remove { kind: Kind::Workload, id } => gone(Kind::Workload, &uid(*id)),
        Step::Remove { kind, id } => gone(*kind, &format!("ns/{id}")),
        Step::Read
        | Step::Acknowledge
        | Step::ReadAndReject
        | Step::Lose
        | Step::Reconnect { .. }
        | Step::Ask(_)
        | Step::Unask(_)
        | Step::AskEverything(_) => return None,
    })
}

impl Client {
    fn new(everything: bool, store: &Store) -> Self {
        let subscription =
            Subscription::open(ADDRESS, 1, &received(&request(ADDRESS, &[])), store.of(ADDRESS))
                .unwrap();
        let (keys, has) = Default::default();
        let mut client = Self { subscription, everything, keys, has, unacknowledged: None };
        client.reconnect(store);
        client
    }

    fn reconnect(&mut self, store: &Store) {
        let mut names: Vec<_> = self.keys.iter().map(String::as_str).collect();
        names.push("*");
        let mut request = request(ADDRESS, &names);
        if !self.everything {
            request.resource_names_unsubscribe.push("*".into());
        }
        request.initial_resource_versions = self.has.clone();
        self.unacknowledged = None;
        self.subscription =
            Subscription::open(ADDRESS, 1, &received(&request), store.of(ADDRESS)).unwrap();
    }

    fn ask(&mut self, subscribe: &[&str], unsubscribe: &[&str], store: &Store) {
        let mut request = request(ADDRESS, subscribe);
        request.resource_names_unsubscribe =
            unsubscribe.iter().map(|name| (*name).to_owned()).collect();
        self.subscription.request(&request, store.of(ADDRESS)).unwrap();
    }

    fn next(&mut self, store: &Store) -> Option<News> {
        match self.subscription.next(store.of(ADDRESS), LIMIT) {
            Ok(news) => news,
            Err(Refusal::TooFarBehind) => {
                self.reconnect(store);
                self.subscription.next(store.of(ADDRESS), LIMIT).unwrap()
            }
            Err(refusal) => panic!("{refusal}"),
        }
    }

    fn read(&mut self, store: &Store, refuse_first: bool) -> bool {
        let Some(news) = self.next(store) else { return false };
        for name in &news.removed {
            self.has.remove(&**name);
        }
        for (index, entry) in news.entries.iter().enumerate() {
            let resource = entry.resource();
            if refuse_first && index == 0 {
                // It goes on with what it had.
                continue;
            }
            self.has.insert(resource.name.to_string(), resource.version.to_string());
        }
        self.unacknowledged = Some(news.nonce);
        true
    }

    fn acknowledge(&mut self, store: &Store) {
        if let Some(nonce) = self.unacknowledged.take() {
            self.subscription.request(&reply(ADDRESS, &nonce, None), store.of(ADDRESS)).unwrap();
        }
    }

    /// Reads and acknowledges until there is no more.
    fn settle(&mut self, store: &Store) {
        self.acknowledge(store);
        while self.read(store, false) {
            self.acknowledge(store);
        }
    }

    fn take(&mut self, step: &Step, store: &Store) {
        match step {
            Step::Workload { .. } | Step::Service { .. } | Step::Remove { .. } => {}
            Step::Read => drop(self.read(store, false)),
            Step::Acknowledge => self.acknowledge(store),
            Step::ReadAndReject => drop(self.read(store, true)),
            Step::Lose => {
                drop(self.next(store));
                self.reconnect(store);
            }
            Step::Reconnect { remembers } => {
                if !remembers {
                    self.has.clear();
                }
                self.reconnect(store);
            }
            Step::Ask(id) => {
                self.keys.insert(key(*id));
                self.ask(&[&key(*id)], &[], store);
            }
            Step::Unask(id) => {
                self.keys.remove(&key(*id));
                self.ask(&[], &[&key(*id)], store);
            }
            Step::AskEverything(everything) => {
                self.everything = *everything;
                let all: &[&str] = &["*"];
                let (on, off): (&[&str], &[&str]) =
                    if *everything { (all, &[]) } else { (&[], all) };
                self.ask(on, off, store);
            }
        }
    }
}

/// Returns what a client with the given names has to have, at least.
fn wanted(client: &Client, store: &Store) -> BTreeMap<String, String> {
    let named = |entry: &Entry| {
        let resource = entry.resource();
        client.keys.contains(resource.name.as_str())
            || resource.aliases.iter().any(|alias| client.keys.contains(&**alias))
    };
    let live: Vec<_> = store.live(ADDRESS).collect();
    let services: BTreeSet<_> = live
        .iter()
        .filter(|entry| entry.kind() == Kind::Service && named(entry))
        .map(|entry| entry.resource().name.to_string())
        .collect();
    let wanted = live.iter().filter(|entry| {
        let mut of = entry.resource().services.iter();
        client.everything || named(entry) || of.any(|service| services.contains(&**service))
    });
    wanted.map(|entry| version_of(entry)).collect()
}

fn version_of(entry: &Entry) -> (String, String) {
    (entry.resource().name.to_string(), entry.resource().version.to_string())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_client_always_ends_with_the_servers_state(
        everything in any::<bool>(),
        steps in proptest::collection::vec(step(), 0..60),
    ) {
        let mut store = Store::with_max_tombstones(MAX_TOMBSTONES);
        let mut client = Client::new(everything, &store);
        for step in &steps {
            if let Some(change) = change(step) {
                store.apply(change);
            }
            client.take(step, &store);
        }
        // What it refused it asks for again when it comes back.
        client.settle(&store);
        client.reconnect(&store);
        client.settle(&store);
        let live: BTreeMap<_, _> = store.live(ADDRESS).map(|entry| version_of(entry)).collect();
        if client.everything {
            prop_assert_eq!(&client.has, &live);
        } else {
            for (name, version) in wanted(&client, &store) {
                prop_assert_eq!(client.has.get(&name), Some(&version), "{} is missing", name);
            }
            for (name, version) in &client.has {
                prop_assert_eq!(live.get(name), Some(version), "{} is outdated", name);
            }
        }
    }

    #[test]
    fn a_client_that_refuses_nothing_needs_no_reconnect(
        everything in any::<bool>(),
        steps in proptest::collection::vec(step(), 0..60),
    ) {
        let mut store = Store::default();
        let mut client = Client::new(everything, &store);
        for step in &steps {
            if let Some(change) = change(step) {
                store.apply(change);
            }
            if !matches!(step, Step::ReadAndReject | Step::Lose | Step::Reconnect { .. }) {
                client.take(step, &store);
            }
        }
        client.settle(&store);
        let live: BTreeMap<_, _> = store.live(ADDRESS).map(|entry| version_of(entry)).collect();
        for (name, version) in wanted(&client, &store) {
            prop_assert_eq!(client.has.get(&name), Some(&version), "{} is missing", name);
        }
        for (name, version) in &client.has {
            prop_assert_eq!(live.get(name), Some(version), "{} is outdated", name);
        }
    }
}
