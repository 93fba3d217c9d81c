//! Endpoints that have a host name in place of addresses.

use super::*;

const MESH: &str = r#"
workloads:
- {uid: client, name: client, namespace: shop, service_account: client, addresses: ["10.1.0.2", "fd00:1::2"], tunnel_protocol: HBONE}
- {uid: db, name: db, namespace: shop, service_account: db, hostname: db.example, services: {shop/db: {ports: [{service_port: 80, target_port: 5432}]}, shop/both: {}}}
- {uid: vm, name: vm, namespace: shop, service_account: vm, hostname: vm.example, tunnel_protocol: HBONE, services: {shop/vm: {}}}
- {uid: pod, name: pod, namespace: shop, addresses: ["10.2.0.1"], services: {shop/both: {}}}
- {uid: wp, name: wp, namespace: shop, hostname: wp.example, services: {shop/wp: {}}}
services:
- {name: db, namespace: shop, hostname: db, addresses: ["10.96.0.1", "fd00:96::1"], ports: [{service_port: 80, target_port: 80}]}
- {name: vm, namespace: shop, hostname: vm, addresses: ["10.96.0.2"], ports: [{service_port: 80, target_port: 8080}]}
- {name: both, namespace: shop, hostname: both, addresses: ["10.96.0.3"], ports: [{service_port: 80, target_port: 8080}]}
- {name: wp, namespace: shop, hostname: wp, ports: [{service_port: 15008, target_port: 15008}]}
- {name: bound, namespace: shop, hostname: bound, addresses: ["10.96.0.4"], ports: [{service_port: 80, target_port: 8080}], waypoint: {hostname: {namespace: shop, hostname: wp}}}
"#;

fn mesh() -> MeshState {
    MeshState::new(LocalConfig::parse(MESH).unwrap(), Network::default())
}

#[test]
fn a_name_is_looked_up_for_the_connection_and_the_port_is_known_before() {
    let mesh = mesh();
    for (what, target, expected) in [
        ("at the port that it maps", "10.96.0.1:80", Ok(&["t db.example:5432"][..])),
        ("whatever the family", "[fd00:96::1]:80", Ok(&["t [db.example]:5432"])),
        ("through a tunnel", "10.96.0.2:80", Ok(&["h vm.example:8080"])),
        ("beside others", "10.96.0.3:80", Ok(&["t db.example:8080", "t 10.2.0.1:8080"])),
        ("not at other ports", "10.96.0.1:81", Err("no_healthy_endpoint")),
        ("not as a waypoint", "10.96.0.4:80", Err("waypoint_unavailable")),
    ] {
        let found = decide(&mesh, &source(&mesh), target, OutboundPolicy::default(), 0);
        let found = found.as_ref().map(as_text).map_err(CloseReason::as_str);
        let expected = expected.map(|hops| hops.iter().map(ToString::to_string).collect());
        assert_eq!(found, expected, "{what}");
    }
}

#[test]
fn a_hop_whose_name_was_found_is_as_any_other() {
    let mesh = mesh();
    let route = decide(&mesh, &source(&mesh), "10.96.0.2:80", OutboundPolicy::default(), 0);
    let found = route.unwrap().hops[0].found_at([192, 0, 2, 1].into());
    assert_eq!(found.hostname, None);
    assert_eq!(found.address, "192.0.2.1:8080".parse().unwrap());
    assert_eq!(found.peer_address(), "192.0.2.1:15008".parse().unwrap());
    let Transport::Hbone { expected } = found.transport else { panic!("{found:?}") };
    assert_eq!(expected[0].to_string(), "spiffe://cluster.local/ns/shop/sa/vm");
}
