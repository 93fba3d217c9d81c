//! What resources make of the snapshot.

mod binding;
mod credentials;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use http::Request;
use mesh_api::{
    proto::{
        l7::{self, resource::Kind},
        workload::{self as wire, address::Type},
    },
    workload::{ServiceKey, Workload},
    xds_client::{ADDRESS_TYPE, Change, L7_TYPE},
};
use prost::Message as _;

use super::{service::MANY_ENDPOINTS, *};
use crate::{
    balance::Context,
    policy::{GatewayKey, Peer, Subject, Verdict},
    route::{Action, Client, Found, Normalisation, RequestHead},
};

const HOST: &str = "cart.shop.svc.cluster.local";
const OUTSIDE: &str = "api.example";

/// A waypoint of the namespace `shop` that is told things.
struct Told(Snapshot);

impl Told {
    fn nothing() -> Self {
        let own = Workload::try_from(workload("waypoint", 1)).unwrap();
        Self(Snapshot::empty(own, "shop/waypoint".parse::<GatewayKey>().unwrap()))
    }

    /// Returns one that knows the service and endpoints of it in two versions.
    fn of_cart() -> Self {
        let mut told = Self::nothing();
        told.service();
        for (name, number, version) in [("cart-1", 10, "v1"), ("cart-2", 20, "v2")] {
            told.workload(workload(name, number));
            told.l7(&format!("labels/{name}"), labels(name, version));
        }
        told
    }

    fn read(&mut self, type_url: &str, name: &str, content: &[u8]) -> Result<(), String> {
        let subscriptions = subscriptions(&self.0.gateway);
        let subscription = subscriptions.iter().find(|s| s.type_url == type_url).unwrap();
        let resource = (subscription.read)(name, content)?;
        self.0.apply(type_url, Change::Updated(name.into(), resource));
        self.0.settle();
        Ok(())
    }

    fn l7(&mut self, name: &str, kind: Kind) {
        let content = l7::Resource { kind: Some(kind) }.encode_to_vec();
        self.read(L7_TYPE, name, &content).unwrap();
    }

    fn removed(&mut self, type_url: &str, name: &str) {
        self.0.apply(type_url, Change::Removed(name.into()));
        self.0.settle();
    }

    fn workload(&mut self, workload: wire::Workload) {
        let name = workload.uid.clone();
        let content = wire::Address { r#type: Some(Type::Workload(workload)) }.encode_to_vec();
        self.read(ADDRESS_TYPE, &name, &content).unwrap();
    }

    fn service(&mut self) {
        self.service_behind(Some(waypoint_at(1)));
    }

    /// Has the service be bound to `waypoint`.
    fn service_behind(&mut self, waypoint: Option<wire::GatewayAddress>) {
        self.service_as(wire::Service { waypoint, ..Default::default() });
    }

    /// Has the service be bound to another waypoint, and to `canary`.
    fn canary(&mut self, canary: wire::WeightedWaypoint) {
        let (waypoint, weighted_waypoints) = (Some(waypoint_at(99)), vec![canary]);
        self.service_as(wire::Service { waypoint, weighted_waypoints, ..Default::default() });
    }

    fn service_as(&mut self, bound: wire::Service) {
        let service = wire::Service {
            name: "cart".to_owned(),
            namespace: "shop".to_owned(),
            hostname: HOST.to_owned(),
            addresses: vec![wire::NetworkAddress {
                address: vec![10, 96, 0, 10].into(),
                ..Default::default()
            }],
            ports: vec![wire::Port { service_port: 80, target_port: 8080, app_protocol: 1 }],
            ..bound
        };
        let content = wire::Address { r#type: Some(Type::Service(service)) }.encode_to_vec();
        self.read(ADDRESS_TYPE, &format!("shop/{HOST}"), &content).unwrap();
    }

    /// Has requests to a path answered with a status.
    fn route(&mut self, id: &str, order: u8, path: &str, status: u32) {
        let path = l7::PathMatch {
            kind: Some(l7::path_match::Kind::Prefix(path.to_owned())),
            ..Default::default()
        };
        let answer = l7::DirectResponse { status, ..Default::default() };
        let http = l7::HttpRoute {
            r#match: Some(l7::HttpMatch { path: Some(path), ..Default::default() }),
            action: Some(l7::http_route::Action::DirectResponse(answer)),
            ..Default::default()
        };
        let route = l7::Route {
            id: id.to_owned(),
            service: Some(cart()),
            order: vec![order].into(),
            traffic: Some(l7::route::Traffic::Http(http)),
            ..Default::default()
        };
        self.l7(&route_name(id), Kind::Route(route));
    }

    fn view(&self) -> &ServiceView {
        match self.0.target_at("10.96.0.10:80".parse().unwrap()) {
            Some(Target::Service(view, 80)) => {
                let key = &view.service().key;
                self.0.service(key).unwrap()
            }
            other => panic!("{other:?}"),
        }
    }

    /// Returns the status that a request is answered with by its route; none if it goes on.
    fn answer(&self, path: &str) -> Option<u16> {
        let (parts, ()) = Request::get(path).body(()).unwrap().into_parts();
        match self
            .view()
            .routes(80, "shop")
            .unwrap()
            .find(&RequestHead::of(&parts, "http"), Client::default())
        {
            Found::Route(route) => match &route.action {
                Action::Respond(answer) => Some(answer.status.as_u16()),
                other @ (Action::Forward(_) | Action::Redirect(_)) => panic!("{other:?}"),
            },
            Found::NoMatch => Some(404),
            Found::NoRoutes => None,
        }
    }

    /// Returns the addresses of a subset's endpoints; none without such a subset.
    fn endpoints(&self, subset: &str) -> Option<Vec<SocketAddr>> {
        let cluster = self.view().backend(80, subset)?.cluster();
        let mut found: Vec<_> = (0..64)
            .filter_map(|n: u64| {
                let random = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let now = std::time::Instant::now();
                let picked = cluster.choose(&Context::default(), random, now).ok()?;
                Some(picked.endpoint().address)
            })
            .collect();
        found.sort_unstable();
        found.dedup();
        Some(found)
    }

    fn admits(&self) -> bool {
        let peer = Peer::new("10.1.0.1".parse().unwrap(), None);
        let subject = Subject {
            peer: &peer,
            remote: peer.address(),
            destination: "10.96.0.10:80".parse().unwrap(),
            server_name: None,
            token: None,
        };
        let (parts, ()) = Request::get("/").body(()).unwrap().into_parts();
        let head = RequestHead::of(&parts, "http");
        let decision = self.view().policies().decide(&subject, Some(&head));
        matches!(decision.verdict, Verdict::Allow(_))
    }
}

/// Returns a waypoint at the address of the workload of this number.
fn waypoint_at(number: u8) -> wire::GatewayAddress {
    let address =
        wire::NetworkAddress { address: vec![10, 1, 0, number].into(), ..Default::default() };
    let destination = Some(wire::gateway_address::Destination::Address(address));
    wire::GatewayAddress { destination, hbone_mtls_port: 15008 }
}

fn cart() -> l7::ServiceRef {
    l7::ServiceRef { namespace: "shop".to_owned(), hostname: HOST.to_owned() }
}

fn route_name(id: &str) -> String {
    format!("route/shop/{HOST}/{id}")
}

fn workload(name: &str, number: u8) -> wire::Workload {
    wire::Workload {
        uid: name.to_owned(),
        name: name.to_owned(),
        namespace: "shop".to_owned(),
        service_account: name.to_owned(),
        addresses: vec![vec![10, 1, 0, number].into()],
        tunnel_protocol: wire::TunnelProtocol::Hbone.into(),
        services: BTreeMap::from([(
            format!("shop/{HOST}"),
            wire::PortList {
                ports: vec![wire::Port { service_port: 80, target_port: 8080, app_protocol: 0 }],
            },
        )]),
        ..Default::default()
    }
}

fn destination(consumer: &str, variants: Vec<l7::Variant>) -> (String, Kind) {
    let name = format!("destination/{consumer}/shop/{HOST}");
    let service = Some(cart());
    let consumer_namespace = consumer.to_owned();
    (name, Kind::Destination(l7::Destination { consumer_namespace, service, variants }))
}

fn subset(name: &str, version: &str) -> l7::Variant {
    l7::Variant {
        subset: name.to_owned(),
        labels: BTreeMap::from([("version".to_owned(), version.to_owned())]),
        ..Default::default()
    }
}

fn labels(workload: &str, version: &str) -> Kind {
    let labels = BTreeMap::from([("version".to_owned(), version.to_owned())]);
    Kind::Labels(l7::WorkloadLabels { uid: workload.to_owned(), labels })
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn paths_are_normalised_as_the_mesh_says_and_as_usual_once_it_says_nothing() {
    let mut told = Told::nothing();
    assert_eq!(told.0.normalisation(), Normalisation::Base);
    for (wire, expected) in [
        (l7::PathNormalisation::None, Normalisation::None),
        (l7::PathNormalisation::MergeSlashes, Normalisation::MergeSlashes),
        (l7::PathNormalisation::DecodeAndMergeSlashes, Normalisation::DecodeAndMergeSlashes),
        (l7::PathNormalisation::Base, Normalisation::Base),
        (l7::PathNormalisation::MergeSlashes, Normalisation::MergeSlashes),
    ] {
        let settings = l7::Settings { path_normalisation: wire.into() };
        told.l7("settings", Kind::Settings(settings));
        assert_eq!(told.0.normalisation(), expected);
    }
    let unknown = Kind::Settings(l7::Settings { path_normalisation: 9 });
    let content = l7::Resource { kind: Some(unknown) }.encode_to_vec();
    assert!(told.read(L7_TYPE, "settings", &content).is_err());
    assert_eq!(told.0.normalisation(), Normalisation::MergeSlashes);
    told.removed(L7_TYPE, "settings");
    assert_eq!(told.0.normalisation(), Normalisation::Base);
}

#[test]
fn an_address_stands_for_a_service_before_a_workload_and_a_name_in_any_case() {
    let mut told = Told::of_cart();
    told.workload(wire::Workload { waypoint: Some(waypoint_at(1)), ..workload("cart-1", 10) });
    assert!(matches!(told.0.target_at(address("10.96.0.10:80")), Some(Target::Service(_, 80))));
    let at = told.0.target_at(address("10.1.0.10:8080"));
    assert!(matches!(at, Some(Target::Workload(workload, _)) if &*workload.name == "cart-1"));
    assert!(told.0.target_at(address("10.9.9.9:80")).is_none());
    let named = told.0.target_named("Cart.Shop.svc.cluster.local", 80);
    assert!(matches!(named, Some(Target::Service(_, 80))));
    assert!(told.0.target_named("other.shop.svc.cluster.local", 80).is_none());
}

#[test]
fn the_first_route_in_order_counts_and_one_that_is_gone_does_not() {
    let mut told = Told::of_cart();
    assert_eq!(told.answer("/a"), None);
    told.route("b", 2, "/", 202);
    told.route("a", 1, "/a", 201);
    assert_eq!((told.answer("/a"), told.answer("/b")), (Some(201), Some(202)));
    // Another order, under the same name.
    told.route("a", 3, "/a", 203);
    assert_eq!(told.answer("/a"), Some(202));
    told.removed(L7_TYPE, &route_name("b"));
    assert_eq!((told.answer("/a"), told.answer("/b")), (Some(203), Some(404)));
    told.removed(L7_TYPE, &route_name("a"));
    assert_eq!(told.answer("/b"), None);
}

#[test]
fn a_change_of_routes_leaves_the_endpoints_as_they_are() {
    let mut told = Told::of_cart();
    let before = told.view().backend(80, "").unwrap().clone();
    told.route("first", 1, "/", 418);
    assert_eq!(told.answer("/x"), Some(418));
    assert!(Arc::ptr_eq(told.view().backend(80, "").unwrap(), &before));
    told.removed(L7_TYPE, &route_name("first"));
    assert_eq!(told.answer("/x"), None);
    assert!(Arc::ptr_eq(told.view().backend(80, "").unwrap(), &before));
}

#[test]
fn endpoints_that_are_in_use_or_many_are_there_before_the_next_request() {
    let mut told = Told::of_cart();
    let is_there = |told: &Told| told.view().backend(80, "").unwrap().cluster.get().is_some();
    assert!(!is_there(&told), "nobody has asked");
    assert_eq!(told.endpoints("").unwrap().len(), 2);
    told.workload(workload("cart-3", 30));
    assert!(is_there(&told));
    assert_eq!(told.endpoints("").unwrap().len(), 3);

    let mut told = Told::of_cart();
    for number in 0..MANY_ENDPOINTS {
        told.workload(workload(&format!("more-{number}"), 30));
    }
    assert!(is_there(&told));
}

#[test]
fn a_subset_has_the_endpoints_of_its_labels_as_the_own_namespace_declares_it() {
    let mut told = Told::of_cart();
    let [first, second] = ["10.1.0.10:8080", "10.1.0.20:8080"].map(address);
    assert_eq!(told.endpoints(""), Some(vec![first, second]));
    assert_eq!(told.endpoints("v2"), None);

    let (name, elsewhere) = destination("tools", vec![subset("v2", "v2")]);
    told.l7(&name, elsewhere);
    assert_eq!(told.endpoints("v2"), None);

    let (name, here) = destination("shop", vec![subset("v1", "v1"), subset("v2", "v2")]);
    told.l7(&name, here);
    assert_eq!(told.endpoints("v1"), Some(vec![first]));
    assert_eq!(told.endpoints("v2"), Some(vec![second]));

    // A workload's labels change, and it goes.
    told.l7("labels/cart-1", labels("cart-1", "v2"));
    assert_eq!(told.endpoints("v1"), Some(vec![]));
    assert_eq!(told.endpoints("v2"), Some(vec![first, second]));
    told.removed(ADDRESS_TYPE, "cart-2");
    assert_eq!(told.endpoints("v2"), Some(vec![first]));
    told.removed(L7_TYPE, &name);
    assert_eq!(told.endpoints("v2"), None);
}

#[test]
fn the_labels_of_a_client_are_those_that_the_workload_at_its_address_has_last_had() {
    let mut told = Told::of_cart();
    let version = |told: &Told| {
        let labels = told.0.labels_at(address("10.1.0.10:0").ip());
        labels.map(|labels| labels["version"].clone())
    };
    assert_eq!(version(&told).as_deref(), Some("v1"));
    told.l7("labels/cart-1", labels("cart-1", "v2"));
    assert_eq!(version(&told).as_deref(), Some("v2"));
    // Another workload has the address now, of which no labels are known yet.
    told.workload(workload("cart-3", 10));
    assert_eq!(version(&told), None);
    told.l7("labels/cart-3", labels("cart-3", "v3"));
    assert_eq!(version(&told).as_deref(), Some("v3"));
    told.removed(L7_TYPE, "labels/cart-3");
    assert_eq!(version(&told), None);
    assert_eq!(told.0.labels_at(address("10.9.9.9:0").ip()), None);
}

#[test]
fn what_cannot_be_done_for_a_destination_keeps_everything_from_it() {
    let mut told = Told::of_cart();
    let way = |told: &Told| {
        let backend = told.view().backend(80, "").unwrap();
        let now = std::time::Instant::now();
        let picked = backend.cluster().choose(&Context::default(), 0, now).unwrap();
        backend.way(picked.endpoint())
    };
    assert!(matches!(way(&told), Way::Tunnel(address, _) if address.port() == 15008));
    let tls =
        |mode: l7::upstream_tls::Mode| l7::UpstreamTls { mode: mode.into(), ..Default::default() };
    let secret =
        l7::UpstreamTls { credential_name: "secret".into(), ..tls(l7::upstream_tls::Mode::Simple) };
    let of = |tls| l7::Variant { tls: Some(tls), ..Default::default() };
    for (variant, expected) in [
        (of(secret), Some(Unsupported::UntoldSecret("shop/secret".into()))),
        (of(tls(l7::upstream_tls::Mode::Mutual)), Some(Unsupported::NoClientCertificate)),
        (of(tls(l7::upstream_tls::Mode::Simple)), None),
        (of(tls(l7::upstream_tls::Mode::Disable)), None),
        (l7::Variant { proxy_protocol: 2, ..Default::default() }, None),
        (
            l7::Variant { proxy_protocol: 3, ..Default::default() },
            Some(Unsupported::ProxyVersion(3)),
        ),
    ] {
        let (name, destination) = destination("shop", vec![variant]);
        told.l7(&name, destination);
        match (way(&told), expected) {
            (Way::Unsupported(found), Some(expected)) => assert_eq!(found, expected),
            (Way::Tunnel(..), None) => {}
            (found, expected) => panic!("{found:?} in place of {expected:?}"),
        }
    }
}

#[test]
fn a_policy_holds_at_once_and_one_that_is_not_understood_refuses() {
    let mut told = Told::of_cart();
    assert!(told.admits());
    let policy = |rules: Vec<l7::Rule>| {
        Kind::Authorization(l7::Authorization {
            namespace: "shop".to_owned(),
            name: "p".to_owned(),
            action: l7::Action::Deny.into(),
            targets: vec![l7::Target { kind: Some(l7::target::Kind::Service(cart())) }],
            rules,
            ..Default::default()
        })
    };
    told.l7("authorization/shop/p", policy(vec![l7::Rule::default()]));
    assert!(!told.admits());
    told.l7("authorization/shop/p", policy(Vec::new()));
    assert!(told.admits());
    let unknown = l7::Condition { key: "request.mood".to_owned(), ..Default::default() };
    told.l7(
        "authorization/shop/p",
        policy(vec![l7::Rule { when: vec![unknown], ..Default::default() }]),
    );
    assert!(!told.admits());
    told.removed(L7_TYPE, "authorization/shop/p");
    assert!(told.admits());
}

#[test]
fn a_service_that_is_gone_is_found_no_more() {
    let mut told = Told::of_cart();
    told.removed(ADDRESS_TYPE, &format!("shop/{HOST}"));
    assert!(told.0.target_at(address("10.96.0.10:80")).is_none());
    assert!(told.0.target_named(HOST, 80).is_none());
    let namespace = "shop".parse().unwrap();
    assert!(told.0.service(&ServiceKey { namespace, hostname: HOST.into() }).is_none());
    // It comes back, and its endpoints with it.
    told.service();
    assert_eq!(told.endpoints("").map(|found| found.len()), Some(2));
}

#[test]
fn what_cannot_be_read_is_refused_with_its_reason() {
    let mut told = Told::nothing();
    let (_, nameless) = destination("shop", Vec::new());
    let Kind::Destination(nameless) = nameless else { unreachable!() };
    let kind = Kind::Destination(l7::Destination { service: None, ..nameless });
    let content = l7::Resource { kind: Some(kind) }.encode_to_vec();
    assert_eq!(told.read(L7_TYPE, "x", &content), Err("names no service".to_owned()));
    for content in [&b"\xff\xff"[..], b""] {
        assert!(told.read(L7_TYPE, "x", content).is_err());
        assert!(told.read(ADDRESS_TYPE, "x", content).is_err());
    }
}

#[test]
fn the_addresses_of_a_host_name_are_endpoints_while_it_stands_for_them() {
    let mut told = Told::nothing();
    told.service();
    let by_name = |hostname: &str| wire::Workload {
        addresses: Vec::new(),
        hostname: hostname.to_owned(),
        ..workload("cart-1", 10)
    };
    told.workload(by_name("cart.example"));
    assert_eq!(told.0.names(), ["cart.example".into()].into());
    assert_eq!(told.endpoints(""), Some(vec![]));
    let mut find = |addresses: &[&str]| {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        told.0.found("cart.example".into(), addresses);
        told.0.settle();
        told.endpoints("").unwrap().into_iter().map(|at| at.to_string()).collect::<Vec<_>>()
    };
    // The waypoint itself has no address of the other family.
    let all = find(&["192.0.2.1", "192.0.2.2", "2001:db8::1"]);
    assert_eq!(all, ["192.0.2.1:8080", "192.0.2.2:8080"]);
    assert_eq!(find(&["192.0.2.3"]), ["192.0.2.3:8080"]);
    told.workload(by_name("*.example"));
    assert_eq!((told.0.names(), told.endpoints("")), ([].into(), Some(vec![])));
}

#[test]
fn the_names_of_a_service_are_looked_up_only_if_traffic_may_go_there() {
    let mut told = Told::of_cart();
    let outside = format!("shop/{OUTSIDE}");
    let services = BTreeMap::from([(outside.clone(), wire::PortList::default())]);
    let hostname = OUTSIDE.to_owned();
    let addresses = Vec::new();
    told.workload(wire::Workload { addresses, hostname, services, ..workload("outside", 10) });
    assert_eq!(told.0.names(), [].into());
    let service = l7::ServiceRef { hostname: OUTSIDE.to_owned(), ..cart() };
    let destination =
        l7::WeightedDestination { service: Some(service), weight: 1, ..Default::default() };
    let forward = l7::Forward { destinations: vec![destination], ..Default::default() };
    let action = Some(l7::http_route::Action::Forward(forward));
    let http = l7::HttpRoute { action, ..Default::default() };
    let traffic = Some(l7::route::Traffic::Http(http));
    let route = l7::Route { id: "r".into(), service: Some(cart()), traffic, ..Default::default() };
    told.l7(&route_name("r"), Kind::Route(route));
    assert_eq!(told.0.names(), [OUTSIDE.into()].into());
    told.removed(L7_TYPE, &route_name("r"));
    assert_eq!(told.0.names(), [].into());
}
