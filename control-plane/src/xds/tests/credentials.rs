//! Who is told what secrets have: the waypoints that need it, by name, and nobody else.

use mesh_api::{
    proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node},
    xds_client::EVERY_WAYPOINT,
};
use prost::Message as _;

use super::super::{
    clearance::Clearance,
    fixtures::{credential, labels, received, request},
    limits::COPY_BYTES,
    resource_type::ResourceType,
    session::Session,
    store::Store,
};
use crate::auth::Caller;

const TYPE: ResourceType = ResourceType::Credential;

/// Resource of the secret `client` of the namespace `shop`.
const CLIENT: &str = "credential/shop/client";

/// Account of node proxies.
const NODES: &str = "istio-system/ztunnel";

fn store() -> Store {
    let mut store = Store::default();
    store.apply(credential("shop", "client", "hush", &["shop/w"]));
    store.apply(credential("bank", "client", "hush", &["bank/w"]));
    store.apply(credential("istio-system", "client", "hush", &["istio-system/w", NODES]));
    store.apply(labels("a", &["shop/w", EVERY_WAYPOINT]));
    store
}

/// Returns what a client with the token of `account` is told because of its requests.
fn told(account: &str, requests: &[DeltaDiscoveryRequest]) -> DeltaDiscoveryResponse {
    let caller = Caller { account: account.parse().unwrap(), pod: None, node: None };
    let clearance = Clearance::of(&caller, &[NODES.parse().unwrap()]);
    let (mut session, store) = (Session::new(1, clearance), store());
    let mut told = DeltaDiscoveryResponse::default();
    for request in requests {
        session.request(&received(request), &store).unwrap();
    }
    let mut nonces = Vec::new();
    while let Some(mut outgoing) = session.next(&store, usize::MAX).unwrap() {
        let mut bytes = Vec::new();
        while let Some(part) = outgoing.response.next_part(COPY_BYTES) {
            bytes.extend(part);
        }
        let response = DeltaDiscoveryResponse::decode(&bytes[5..]).unwrap();
        nonces.push(response.nonce);
        told.resources.extend(response.resources);
        told.removed_resources.extend(response.removed_resources);
    }
    assert!(!nonces.is_empty(), "{account} waits for an answer to {requests:?}");
    told
}

fn names(told: &DeltaDiscoveryResponse) -> Vec<&str> {
    told.resources.iter().map(|resource| &*resource.name).collect()
}

/// A request by name, as a waypoint makes it.
fn by_name(names: &[&str]) -> DeltaDiscoveryRequest {
    let resource_names_unsubscribe = vec!["*".to_owned()];
    DeltaDiscoveryRequest { resource_names_unsubscribe, ..request(TYPE, names) }
}

#[test]
fn what_a_secret_has_is_for_the_waypoints_that_need_it_and_nobody_else() {
    for (account, asked, expected) in [
        ("shop/w", "shop/w", Some(CLIENT)),
        ("shop/w", CLIENT, Some(CLIENT)),
        ("bank/w", "bank/w", Some("credential/bank/client")),
        // It is for another waypoint, or there is none.
        ("shop/w", "shop/other", None),
        ("shop/w", "credential/shop/other", None),
        ("shop/w", EVERY_WAYPOINT, None),
        // Somebody else of the namespace asks.
        ("shop/other", "shop/w", None),
        ("shop/other", CLIENT, None),
        // Another namespace does.
        ("bank/w", "shop/w", None),
        ("bank/w", CLIENT, None),
        ("shop-2/w", CLIENT, None),
        ("istio-system/w", CLIENT, None),
        // Nodes are for pods of all namespaces, and need none, even if they run as a waypoint.
        (NODES, "shop/w", None),
        (NODES, CLIENT, None),
        (NODES, "istio-system/w", None),
        (NODES, NODES, None),
        (NODES, "credential/istio-system/client", None),
    ] {
        let told = told(account, &[by_name(&[asked])]);
        let expected: Vec<_> = expected.into_iter().collect();
        assert_eq!(names(&told), expected, "{account} asks for {asked}");
        if expected.is_empty() {
            assert_eq!(told.removed_resources, [asked], "{account} asks for {asked}");
        }
    }
}

#[test]
fn nobody_is_told_of_all_secrets() {
    for account in ["shop/w", "bank/w", NODES] {
        for requests in [
            vec![request(TYPE, &[])],
            vec![request(TYPE, &["*"])],
            vec![by_name(&["shop/other"]), request(TYPE, &["*"])],
        ] {
            assert_eq!(names(&told(account, &requests)), [""; 0], "{account}: {requests:?}");
        }
    }
    let wildcard_beside_a_name = [request(TYPE, &["*", CLIENT])];
    assert_eq!(names(&told("shop/w", &wildcard_beside_a_name)), [CLIENT]);
    assert_eq!(names(&told("bank/w", &wildcard_beside_a_name)), [""; 0]);
}

#[test]
fn what_a_client_says_of_itself_does_not_count() {
    let node =
        Node { id: "waypoint~10.0.0.1~w.shop~shop.svc.cluster.local".into(), ..Node::default() };
    let request = DeltaDiscoveryRequest { node: Some(node), ..by_name(&["shop/w", CLIENT]) };
    assert_eq!(names(&told("bank/w", &[request])), [""; 0]);
}

#[test]
fn who_claims_to_have_it_from_earlier_is_told_that_it_is_gone() {
    let had = [(CLIENT.to_owned(), "0".to_owned())].into();
    let request = DeltaDiscoveryRequest { initial_resource_versions: had, ..by_name(&["bank/w"]) };
    for (account, expected) in [("bank/w", vec![CLIENT]), (NODES, vec![CLIENT, "bank/w"])] {
        let told = told(account, std::slice::from_ref(&request));
        assert!(!names(&told).contains(&CLIENT));
        assert_eq!(told.removed_resources, expected, "{account}");
    }
}

#[test]
fn no_other_type_has_it() {
    for resource_type in ResourceType::ALL.into_iter().filter(|other| *other != TYPE) {
        for asked in [&[][..], &["*"], &[CLIENT, "shop/w"]] {
            let told = told("shop/w", &[request(resource_type, asked)]);
            assert!(!names(&told).iter().any(|name| name.starts_with("credential/")));
        }
    }
}
