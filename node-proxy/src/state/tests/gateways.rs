//! Ways to other networks, beyond the vectors of the reference.

use super::*;
use crate::explain::LeftOut;

const MESH: &str = r#"
workloads:
- {uid: client, name: client, namespace: shop, service_account: client, addresses: ["10.1.0.2", "fd00:1::2"], tunnel_protocol: HBONE}
- {uid: gw-1, name: gw-1, namespace: mesh, service_account: gw, network: west, addresses: ["192.0.2.1", "2001:db8::1"], services: {mesh/gw: {}}}
- {uid: gw-2, name: gw-2, namespace: mesh, service_account: gw, network: west, addresses: ["192.0.2.2"], services: {mesh/gw: {ports: [{service_port: 15008, target_port: 15018}]}}}
- {uid: sick-gw, name: sick-gw, namespace: mesh, network: west, addresses: ["192.0.2.3"], status: UNHEALTHY, services: {mesh/sick-gw: {}}}
- {uid: near-gw, name: near-gw, namespace: mesh, service_account: near-gw, addresses: ["10.1.0.9"]}
- {uid: west, name: west, namespace: shop, network: west, network_gateway: {hostname: {namespace: mesh, hostname: gw}}, services: {shop/web: {}, shop/nameless: {}, shop/named: {}, shop/mixed: {}}}
- {uid: south, name: south, namespace: shop, network: south, network_gateway: {address: 10.1.0.9}, services: {shop/south: {}}}
- {uid: north, name: north, namespace: shop, network: north, network_gateway: {address: north/192.0.2.1}, services: {shop/north: {}, shop/mixed: {}}}
- {uid: north-2, name: north-2, namespace: shop, network: north, network_gateway: {hostname: {namespace: mesh, hostname: sick-gw}}, services: {shop/north: {}, shop/mixed: {}}}
- {uid: north-3, name: north-3, namespace: shop, network: north, network_gateway: {hostname: {namespace: mesh, hostname: gw}, hbone_mtls_port: 15009}, services: {shop/mixed: {}}}
- {uid: pod, name: pod, namespace: shop, network: west, addresses: ["10.3.0.1"], tunnel_protocol: HBONE, network_gateway: {address: west/192.0.2.1}}
- {uid: twin, name: twin, namespace: shop, service_account: twin, addresses: ["192.0.2.2"], tunnel_protocol: HBONE}
- {uid: wp, name: wp, namespace: shop, service_account: wp, network: west, network_gateway: {address: west/192.0.2.1}, services: {shop/wp: {}}}
- {uid: bound, name: bound, namespace: shop, addresses: ["10.2.0.1"], tunnel_protocol: HBONE, waypoint: {hostname: {namespace: shop, hostname: wp}}}
services:
- {name: gw, namespace: mesh, hostname: gw, ports: [{service_port: 15008, target_port: 15008}], subject_alt_names: ["spiffe://cluster.local/ns/mesh/sa/gw-alias"]}
- {name: sick-gw, namespace: mesh, hostname: sick-gw, ports: [{service_port: 15008, target_port: 15008}]}
- {name: wp, namespace: shop, hostname: wp, ports: [{service_port: 15008, target_port: 15008}]}
- {name: web, namespace: shop, hostname: web, addresses: ["10.96.0.1", "fd00:96::1"], ports: [{service_port: 80, target_port: 8080}], subject_alt_names: ["spiffe://cluster.local/ns/shop/sa/web"]}
- {name: nameless, namespace: shop, hostname: nameless, addresses: ["10.96.0.2"], ports: [{service_port: 80, target_port: 8080}]}
- {name: named, namespace: shop, hostname: named, addresses: ["10.96.0.3"], ports: [{service_port: 80}], subject_alt_names: ["spiffe://cluster.local/ns/shop/sa/web"]}
- {name: south, namespace: shop, hostname: south, addresses: ["10.96.0.4"], ports: [{service_port: 80, target_port: 8080}], subject_alt_names: ["spiffe://cluster.local/ns/shop/sa/web"]}
- {name: north, namespace: shop, hostname: north, addresses: ["10.96.0.5"], ports: [{service_port: 80, target_port: 8080}], subject_alt_names: ["spiffe://cluster.local/ns/shop/sa/web"]}
- {name: mixed, namespace: shop, hostname: mixed, addresses: ["10.96.0.6"], ports: [{service_port: 80, target_port: 8080}], subject_alt_names: ["spiffe://cluster.local/ns/shop/sa/web"]}
- {name: bound-web, namespace: shop, hostname: bound-web, addresses: ["10.96.0.7"], ports: [{service_port: 80, target_port: 8080}], waypoint: {hostname: {namespace: shop, hostname: wp}}, subject_alt_names: ["spiffe://cluster.local/ns/shop/sa/web"]}
- {name: bound-nameless, namespace: shop, hostname: bound-nameless, addresses: ["10.96.0.8"], ports: [{service_port: 80, target_port: 8080}], waypoint: {hostname: {namespace: shop, hostname: wp}}}
"#;

fn mesh() -> MeshState {
    MeshState::new(LocalConfig::parse(MESH).unwrap(), Network::default())
}

fn from_client(target: &str, pick: u64) -> Result<Route, CloseReason> {
    let mesh = mesh();
    decide(&mesh, &source(&mesh), target, OutboundPolicy::default(), pick)
}

#[test]
fn another_network_is_reached_through_its_gateway() {
    for (what, target, expected) in [
        (
            "each instance of the gateway, at the port that it maps",
            "10.96.0.1:80",
            Ok(&["g 192.0.2.1:15008 web:80", "g 192.0.2.2:15018 web:80"][..]),
        ),
        (
            "the client's family, where the gateway has it",
            "[fd00:96::1]:80",
            Ok(&["g [2001:db8::1]:15008 web:80", "g 192.0.2.2:15018 web:80"]),
        ),
        ("a gateway on the own network", "10.96.0.4:80", Ok(&["g 10.1.0.9:15008 south:80"])),
        ("a gateway that is not known, or not ready", "10.96.0.5:80", Err("gateway_unavailable")),
        ("nobody to expect there", "10.96.0.2:80", Err("no_healthy_endpoint")),
        ("a port that the service lacks", "10.96.0.1:81", Err("no_healthy_endpoint")),
        ("a named port that nobody maps", "10.96.0.3:80", Err("no_healthy_endpoint")),
        ("a pod's own address is not of this network", "10.3.0.1:80", Ok(&["t 10.3.0.1:80"])),
        ("an address of both networks", "192.0.2.2:80", Ok(&["h 192.0.2.2:80"])),
        (
            "a waypoint behind a gateway, for a service",
            "10.96.0.7:80",
            Ok(&["g 192.0.2.1:15008 bound-web:80"]),
        ),
        ("the same without identities", "10.96.0.8:80", Err("waypoint_unavailable")),
        ("a waypoint behind a gateway, for a pod", "10.2.0.1:80", Err("waypoint_unavailable")),
    ] {
        let found = from_client(target, 0);
        let found = found.as_ref().map(as_text).map_err(CloseReason::as_str);
        let expected = expected.map(|hops| hops.iter().map(ToString::to_string).collect());
        assert_eq!(found, expected, "{what}");
    }
}

#[test]
fn an_endpoint_whose_gateway_is_not_there_leaves_its_turn_to_others() {
    // Three of the four have none, and three are tried at most.
    for pick in 0..4 {
        let route = from_client("10.96.0.6:80", pick).unwrap();
        let gateways = as_text(&route);
        assert_eq!(gateways.len(), 2, "{gateways:?}");
        assert!(gateways.iter().all(|hop| hop.ends_with("mixed:80")), "{gateways:?}");
    }
}

#[test]
fn the_gateway_and_who_is_behind_it_are_expected_apart() {
    let route = from_client("10.96.0.1:80", 0).unwrap();
    let Transport::Gateway { expected, service, .. } = &route.hops[0].transport else {
        panic!("{route:?}")
    };
    let texts = |all: &[Identity]| all.iter().map(Identity::to_string).collect::<Vec<_>>();
    let gateway =
        ["spiffe://cluster.local/ns/mesh/sa/gw", "spiffe://cluster.local/ns/mesh/sa/gw-alias"];
    assert_eq!(texts(expected), gateway);
    assert_eq!(texts(&service.subject_alt_names), ["spiffe://cluster.local/ns/shop/sa/web"]);
    assert!(route.hops[0].is_mutual());
}

#[test]
fn what_keeps_an_endpoint_of_another_network_out_is_said() {
    let mesh = mesh();
    let left_out = |target: &str| {
        let target = target.parse().unwrap();
        let found = mesh.bearings(&source(&mesh), target, Moment::default(), |_| 0);
        found.endpoints.unwrap().left_out
    };
    let because = "on another network, of a service that names no identities".to_owned();
    assert_eq!(left_out("10.96.0.2:80"), [LeftOut { count: 1, because }]);
    assert_eq!(left_out("10.96.0.1:80"), []);
}

#[test]
fn names_are_not_answered_with_addresses_of_other_networks() {
    let mut mesh = mesh();
    let headless = "{name: h, namespace: shop, hostname: h.shop.svc.cluster.local, ports: [{service_port: 80, target_port: 80}]}";
    let workloads = r#"
- {uid: near, name: near, namespace: shop, addresses: ["10.1.0.3"], services: {shop/h.shop.svc.cluster.local: {}}}
- {uid: far, name: far, namespace: shop, network: west, addresses: ["10.1.0.4"], services: {shop/h.shop.svc.cluster.local: {}}}"#;
    let config = format!("services: [{headless}]\nworkloads: {workloads}");
    let config = LocalConfig::parse(&config).unwrap();
    config.services.into_iter().for_each(|service| mesh.insert_service(service));
    config.workloads.into_iter().for_each(|workload| mesh.insert_workload(workload));
    let naming = crate::state::Naming { domain: "cluster.local".into(), preferred: None };
    let named = mesh.resolve("h", &"shop".parse().unwrap(), &naming).unwrap();
    assert_eq!(named.addresses(), ["10.1.0.3".parse::<std::net::IpAddr>().unwrap()]);
}

#[test]
fn a_gateway_that_leaves_and_comes_back_is_noticed() {
    let mut mesh = mesh();
    let route = |mesh: &MeshState| {
        let route = decide(mesh, &source(mesh), "10.96.0.4:80", OutboundPolicy::default(), 0);
        route.map(|route| as_text(&route))
    };
    assert!(route(&mesh).is_ok());
    let uid = mesh_api::workload::WorkloadUid("near-gw".into());
    let gateway = Workload::clone(mesh.workload(&uid).unwrap());
    mesh.remove_workload(&uid);
    assert_eq!(route(&mesh), Err(CloseReason::GatewayUnavailable));
    mesh.insert_workload(gateway);
    assert!(route(&mesh).is_ok());
    // Those of other networks, too.
    let uid = mesh_api::workload::WorkloadUid("gw-1".into());
    mesh.remove_workload(&uid);
    let west = "west".into();
    assert!(mesh.remote_workload_at(&Network(west), "192.0.2.1".parse().unwrap()).is_none());
}
