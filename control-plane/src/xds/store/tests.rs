use super::*;
use crate::xds::fixtures::{gone, labels, policy, service, workload};

fn names(store: &Store, from: Position) -> Vec<String> {
    let after = store.of(ResourceType::Address).after(from);
    let named = after.map(|(_, slot)| match slot {
        Slot::Live(entry) => entry.resource().name.to_string(),
        Slot::Gone(name, _) => format!("-{name}"),
    });
    named.collect()
}

#[test]
fn a_resource_stands_once_at_its_last_change() {
    let mut store = Store::default();
    assert!(store.apply(workload("a", 1)));
    assert!(store.apply(workload("b", 1)));
    assert!(store.apply(workload("a", 2)));
    assert!(!store.apply(workload("a", 2)), "nothing has changed");
    assert_eq!(names(&store, Position::default()), ["b", "a"]);
    assert!(store.apply(gone(Kind::Workload, "b")));
    assert!(!store.apply(gone(Kind::Workload, "b")), "it is gone already");
    assert!(!store.apply(gone(Kind::Service, "a")), "another kind has no such name");
    assert_eq!(names(&store, Position::default()), ["a", "-b"]);
    assert!(store.apply(workload("b", 1)));
    assert_eq!(names(&store, Position::default()), ["a", "b"]);
    assert_eq!(store.count(Kind::Workload), 2);
}

#[test]
fn a_resource_is_found_by_name_alias_and_service() {
    let mut store = Store::default();
    store.apply(service("shop", "cart", 1, &["n/10.0.0.1"]));
    let mut pod = workload("pod", 1);
    pod.resource = pod.resource.map(|resource| {
        let aliases = Box::new(["n/1.1.1.1".into()]);
        Arc::new(Resource {
            aliases,
            services: Box::new(["shop/cart".into()]),
            ..(*resource).clone()
        })
    });
    store.apply(pod);
    let found = |store: &Store, key: &str| {
        let all = store.of(ResourceType::Address);
        all.find(key).map(|(_, entry)| entry.resource().name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(found(&store, "shop/cart"), ["shop/cart"]);
    assert_eq!(found(&store, "n/10.0.0.1"), ["shop/cart"]);
    assert_eq!(found(&store, "n/1.1.1.1"), ["pod"]);
    assert_eq!(store.of(ResourceType::Address).endpoints("shop/cart").count(), 1);
    store.apply(workload("pod", 1));
    assert!(found(&store, "n/1.1.1.1").is_empty());
    assert_eq!(store.of(ResourceType::Address).endpoints("shop/cart").count(), 0);
}

#[test]
fn only_so_many_removals_are_remembered() {
    let mut store = Store::with_max_tombstones(1);
    store.apply(workload("a", 1));
    store.apply(workload("b", 1));
    store.apply(gone(Kind::Workload, "a"));
    let first_removal = store.of(ResourceType::Address).latest();
    store.apply(gone(Kind::Workload, "b"));
    assert_eq!(names(&store, Position::default()), ["-b"]);
    assert_eq!(store.of(ResourceType::Address).horizon(), first_removal);
}

#[test]
fn policies_have_an_order_of_their_own() {
    let mut store = Store::default();
    store.apply(policy("ns", "p", 1));
    assert_eq!(store.of(ResourceType::Address).latest(), Position::default());
    assert_eq!(store.live(ResourceType::Authorization).count(), 1);
    assert_eq!(store.live(ResourceType::Service).count(), 0);
}

#[test]
fn what_waypoints_are_told_is_found_by_the_waypoint_that_it_is_for() {
    let mut store = Store::default();
    store.apply(labels("a", &["shop/w"]));
    store.apply(labels("b", &["bank/w", "shop/w"]));
    store.apply(workload("a", 1));
    assert_eq!(store.of(ResourceType::Address).live().count(), 1, "others are not told");
    let l7 = store.of(ResourceType::L7);
    assert_eq!((l7.find("shop/w").count(), l7.find("bank/w").count()), (2, 1));
    assert_eq!((l7.find("labels/a").count(), store.count(Kind::L7)), (1, 2));
    store.apply(gone(Kind::L7, "labels/b"));
    assert_eq!(store.of(ResourceType::L7).find("bank/w").count(), 0);
}
