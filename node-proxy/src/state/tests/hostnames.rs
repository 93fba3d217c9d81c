//! Endpoints that have a host name in place of addresses.

use mesh_api::workload::IpFamilies;

use super::*;

const MESH: &str = r#"
workloads:
- {uid: client, name: client, namespace: shop, service_account: client, addresses: ["10.1.0.2", "fd00:1::2"], tunnel_protocol: HBONE}
- {uid: db, name: db, namespace: shop, service_account: db, hostname: db.example, services: {shop/db: {ports: [{service_port: 80, target_port: 5432}]}, shop/both: {}}}
- {uid: vm, name: vm, namespace: shop, service_account: vm, hostname: vm.example, tunnel_protocol: HBONE, services: {shop/vm: {}}}
- {uid: pod, name: pod, namespace: shop, addresses: ["10.2.0.1"], services: {shop/both: {}}}
- {uid: far, name: far, namespace: shop, network: west, network_gateway: {hostname: {namespace: mesh, hostname: GW.example}}, services: {shop/far: {}}}
- {uid: gw, name: gw, namespace: mesh, service_account: gw, network: west, hostname: Gw.example}
- {uid: thief, name: thief, namespace: shop, service_account: thief, addresses: ["10.6.6.6"], hostname: gw.example}
- {uid: far-wp, name: far-wp, namespace: shop, network: west, network_gateway: {hostname: {namespace: mesh, hostname: gw.example}, hbone_mtls_port: 15018}, services: {shop/far-wp: {}}}
- {uid: own-wp, name: own-wp, namespace: shop, service_account: own-wp, addresses: ["10.2.0.9", "fd00:2::9"], hostname: own-wp.example}
- {uid: bound-1, name: bound-1, namespace: shop, addresses: ["10.3.0.1"], waypoint: {hostname: {namespace: shop, hostname: own-wp.example}}}
- {uid: bound-2, name: bound-2, namespace: shop, addresses: ["fd00:3::2"], waypoint: {hostname: {namespace: shop, hostname: own-wp.example}}}
- {uid: bound-3, name: bound-3, namespace: shop, addresses: ["10.3.0.3"], waypoint: {hostname: {namespace: other, hostname: own-wp.example}}}
- {uid: bound-4, name: bound-4, namespace: shop, addresses: ["10.3.0.4"], waypoint: {hostname: {namespace: shop, hostname: vm.example}, hbone_mtls_port: 15009}}
- {uid: wp, name: wp, namespace: shop, hostname: wp.example, services: {shop/wp: {}}}
services:
- {name: far, namespace: shop, hostname: far, addresses: ["10.96.0.5"], ports: [{service_port: 80, target_port: 8080}], subject_alt_names: ["spiffe://cluster.local/ns/shop/sa/far"]}
- {name: far-wp, namespace: shop, hostname: far-wp, ports: [{service_port: 15008, target_port: 15008}]}
- {name: far-bound, namespace: shop, hostname: far-bound, addresses: ["10.96.0.6", "fd00:96::6"], ports: [{service_port: 80, target_port: 8080}], waypoint: {hostname: {namespace: shop, hostname: far-wp}}, subject_alt_names: ["spiffe://cluster.local/ns/shop/sa/far"]}
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
        ("as a waypoint", "10.96.0.4:80", Ok(&["w wp.example:15008 10.96.0.4:80"])),
    ] {
        let found = decide(&mesh, &source(&mesh), target, OutboundPolicy::default(), 0);
        let found = found.as_ref().map(as_text).map_err(CloseReason::as_str);
        let expected = expected.map(|hops| hops.iter().map(ToString::to_string).collect());
        assert_eq!(found, expected, "{what}");
    }
}

#[test]
fn proxies_on_the_way_are_found_by_their_host_names() {
    let mesh = mesh();
    for (what, target, expected) in [
        ("a gateway that is looked up", "10.96.0.5:80", Ok("g Gw.example:15008 far:80")),
        ("one in front of a waypoint", "10.96.0.6:80", Ok("g Gw.example:15018 far-bound:80")),
        ("in the client's family", "[fd00:96::6]:80", Ok("g [Gw.example]:15018 far-bound:80")),
        ("a waypoint that has addresses", "10.3.0.1:80", Ok("w 10.2.0.9:15008 10.3.0.1:80")),
        ("in the client's family", "[fd00:3::2]:80", Ok("w [fd00:2::9]:15008 [fd00:3::2]:80")),
        ("one that has none", "10.3.0.4:80", Ok("w vm.example:15009 10.3.0.4:80")),
        ("one of another namespace", "10.3.0.3:80", Err("waypoint_unavailable")),
    ] {
        let found = decide(&mesh, &source(&mesh), target, OutboundPolicy::default(), 0);
        let found = found.as_ref().map(as_text).map_err(CloseReason::as_str);
        assert_eq!(found, expected.map(|hop| vec![hop.to_owned()]), "{what}");
    }
}

#[test]
fn who_has_a_host_name_may_change() {
    let mut mesh = mesh();
    let route = |mesh: &MeshState| {
        let route = decide(mesh, &source(mesh), "10.96.0.5:80", OutboundPolicy::default(), 0);
        route.map(|route| as_text(&route))
    };
    let uid = mesh_api::workload::WorkloadUid("gw".into());
    let gateway = Workload::clone(mesh.workload(&uid).unwrap());
    mesh.remove_workload(&uid);
    assert_eq!(route(&mesh), Err(CloseReason::GatewayUnavailable));
    mesh.insert_workload(Workload { hostname: None, ..gateway.clone() });
    assert_eq!(route(&mesh), Err(CloseReason::GatewayUnavailable));
    mesh.insert_workload(gateway);
    assert!(route(&mesh).is_ok());
}

#[test]
fn of_a_proxy_on_the_way_only_its_own_address_is_found() {
    let mesh = mesh();
    for (target, peer) in [("10.96.0.5:80", "192.0.2.1:15008"), ("10.3.0.4:80", "192.0.2.1:15009")]
    {
        let route = decide(&mesh, &source(&mesh), target, OutboundPolicy::default(), 0).unwrap();
        let found = route.hops[0].found_at([192, 0, 2, 1].into());
        assert_eq!((found.peer(), found.asked_for()), (peer.to_owned(), target.to_owned()));
        assert_eq!(found.families(route.service.as_deref()), IpFamilies::Automatic);
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
