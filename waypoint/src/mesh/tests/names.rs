//! Endpoints that are known by a host name.

use super::*;

const OUTSIDE: &str = "api.example";

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
