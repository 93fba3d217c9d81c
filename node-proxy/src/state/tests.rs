mod choice;
mod gateways;
mod hostnames;
mod preferences;
mod vectors;
mod waypoints;

use std::net::SocketAddr;

use mesh_api::{
    config::LocalConfig,
    identity::Identity,
    workload::{Network, UnknownDestinations, Workload},
};

use super::{MeshState, Moment, OutboundPolicy, Route, Transport, WithoutWaypoint};
use crate::telemetry::reason::CloseReason;

const MESH: &str = r#"
workloads:
- {uid: a, name: a, namespace: shop, service_account: a, addresses: ["10.1.0.2", "fd00:1::2"], tunnel_protocol: HBONE}
- uid: b
  name: b
  namespace: shop
  service_account: b
  addresses: ["10.2.0.2", "fd00:2::2"]
  tunnel_protocol: HBONE
  services:
    shop/web: {ports: [{service_port: 80, target_port: 8080}]}
    shop/named: {ports: [{service_port: 80, target_port: 1234}]}
    shop/v6only: {ports: [{service_port: 80, target_port: 8080}]}
- uid: c
  name: c
  namespace: shop
  addresses: ["10.2.0.3"]
  capacity: 3
  services:
    shop/web: {ports: [{service_port: 80, target_port: 8080}]}
    shop/named: {}
- uid: sick
  name: sick
  namespace: shop
  addresses: ["10.2.0.4"]
  status: UNHEALTHY
  services:
    shop/web: {ports: [{service_port: 80, target_port: 8080}]}
- {uid: host, name: host, namespace: shop, addresses: ["192.168.0.1"], network_mode: HOST_NETWORK}
services:
- {name: web, namespace: shop, hostname: web, addresses: ["10.96.0.1", "fd00:96::1"], ports: [{service_port: 80, target_port: 8080}], subject_alt_names: ["spiffe://cluster.local/ns/shop/sa/alias"]}
- {name: named, namespace: shop, hostname: named, addresses: ["10.96.0.2"], ports: [{service_port: 80}]}
- {name: empty, namespace: shop, hostname: empty, addresses: ["10.96.0.3"], ports: [{service_port: 80, target_port: 8080}]}
- {name: v6only, namespace: shop, hostname: v6only, ip_families: IPV6_ONLY, addresses: ["10.96.0.4"], ports: [{service_port: 80, target_port: 8080}]}
- {name: pass, namespace: shop, hostname: pass, addresses: ["10.96.0.5"], ports: [{service_port: 80, target_port: 8080}], load_balancing: {mode: PASSTHROUGH}}
- {name: range, namespace: far, hostname: range, addresses: ["10.97.0.0/16"], ports: [{service_port: 80, target_port: 1}], load_balancing: {mode: PASSTHROUGH}}
- {name: narrow, namespace: far, hostname: narrow, addresses: ["10.97.1.0/24"], ports: [{service_port: 80, target_port: 1}], load_balancing: {mode: PASSTHROUGH}}
- {name: twin, namespace: far, hostname: twin, canonical: true, addresses: ["10.96.0.6"], ports: [{service_port: 80, target_port: 1}], load_balancing: {mode: PASSTHROUGH}}
- {name: twin, namespace: shop, hostname: twin, addresses: ["10.96.0.6"], ports: [{service_port: 80, target_port: 1}], load_balancing: {mode: PASSTHROUGH}}
- {name: secret, namespace: far, hostname: secret, visibility: NAMESPACE, addresses: ["10.96.0.7"], ports: [{service_port: 80, target_port: 1}]}
"#;

fn mesh() -> MeshState {
    MeshState::new(LocalConfig::parse(MESH).unwrap(), Network::default())
}

fn source(mesh: &MeshState) -> Workload {
    Workload::clone(mesh.workload_at("10.1.0.2".parse().unwrap()).unwrap())
}

fn route(target: &str, pick: u64) -> Result<Route, CloseReason> {
    let mesh = mesh();
    decide(&mesh, &source(&mesh), target, OutboundPolicy::default(), pick)
}

fn decide(
    mesh: &MeshState,
    source: &Workload,
    target: &str,
    policy: OutboundPolicy,
    pick: u64,
) -> Result<Route, CloseReason> {
    mesh.route(source, target.parse().unwrap(), policy, Moment::default(), |below| pick % below)
}

/// Returns the hops as text: `h` for HBONE, `t` for plain TCP, and the address; `w` for a waypoint,
/// its address and what it is asked for; `g` for a gateway and the same.
fn as_text(route: &Route) -> Vec<String> {
    let text = |address: SocketAddr, transport: &Transport| match transport {
        Transport::Hbone { .. } => format!("h {address}"),
        Transport::Plaintext => format!("t {address}"),
        Transport::Waypoint { address: waypoint, .. } => format!("w {waypoint} {address}"),
        Transport::Gateway { address: gateway, service, .. } => {
            format!("g {gateway} {}:{}", service.key.hostname, address.port())
        }
    };
    let of_hop = |hop: &crate::state::Hop| match &hop.hostname {
        Some(hostname) => {
            let unknown = hop.peer_address().ip().to_string();
            text(hop.address, &hop.transport).replace(&unknown, hostname)
        }
        None => text(hop.address, &hop.transport),
    };
    route.hops.iter().map(of_hop).collect()
}

fn hops(target: &str, pick: u64) -> Vec<String> {
    route(target, pick).as_ref().map(as_text).unwrap_or_default()
}

#[test]
fn a_connection_goes_where_the_mesh_says() {
    let nothing: &[&str] = &[];
    for (what, target, expected) in [
        ("unknown address", "1.2.3.4:80", &["t 1.2.3.4:80"][..]),
        ("pod that has a tunnel", "10.2.0.2:80", &["h 10.2.0.2:80"]),
        ("its other family", "[fd00:2::2]:80", &["h [fd00:2::2]:80"]),
        ("pod that has none", "10.2.0.3:80", &["t 10.2.0.3:80"]),
        ("unhealthy pod by its address", "10.2.0.4:80", &["t 10.2.0.4:80"]),
        ("host network: the address is the node's", "192.168.0.1:80", &["t 192.168.0.1:80"]),
        ("service", "10.96.0.1:80", &["h 10.2.0.2:8080", "t 10.2.0.3:8080"]),
        (
            "service: the caller's family first",
            "[fd00:96::1]:80",
            &["h [fd00:2::2]:8080", "t 10.2.0.3:8080"],
        ),
        ("port that the service lacks", "10.96.0.1:81", nothing),
        ("named port that one pod maps", "10.96.0.2:80", &["h 10.2.0.2:1234"]),
        ("no endpoints", "10.96.0.3:80", nothing),
        ("IPv6 endpoints only", "10.96.0.4:80", &["h [fd00:2::2]:8080"]),
        ("passthrough", "10.96.0.5:80", &["t 10.96.0.5:80"]),
        ("service of another namespace that hides it", "10.96.0.7:80", &["t 10.96.0.7:80"]),
    ] {
        assert_eq!(hops(target, 0), expected, "{what}");
    }
    assert_eq!(route("10.96.0.3:80", 0).unwrap_err(), CloseReason::NoHealthyEndpoint);
}

#[test]
fn where_only_the_registry_may_be_reached_what_is_not_in_it_is_refused() {
    let mesh = mesh();
    let policy = OutboundPolicy { unknown: UnknownDestinations::Refuse, ..Default::default() };
    for (what, target, expected) in [
        ("unknown address", "1.2.3.4:80", Err(CloseReason::DestinationUnknown)),
        ("workload", "10.2.0.3:80", Ok("t 10.2.0.3:80")),
        ("unhealthy workload", "10.2.0.4:80", Ok("t 10.2.0.4:80")),
        ("node of a workload", "192.168.0.1:80", Ok("t 192.168.0.1:80")),
        ("service", "10.96.0.1:80", Ok("h 10.2.0.2:8080")),
        ("service without endpoints", "10.96.0.3:80", Err(CloseReason::NoHealthyEndpoint)),
        ("passthrough service", "10.96.0.5:80", Ok("t 10.96.0.5:80")),
        ("range of a service", "10.97.1.1:80", Ok("t 10.97.1.1:80")),
        ("hidden service", "10.96.0.7:80", Err(CloseReason::DestinationUnknown)),
    ] {
        let found = decide(&mesh, &source(&mesh), target, policy, 0);
        let found = found.map(|route| as_text(&route).swap_remove(0));
        assert_eq!(found.as_deref(), expected.as_ref().map(|text| *text), "{what}");
    }
}

#[test]
fn what_the_mesh_says_of_unknown_destinations_counts_before_what_the_node_says() {
    use UnknownDestinations::{Pass, Refuse};
    let mesh = mesh();
    for (by_mesh, by_node, passes) in [
        (None, Pass, true),
        (None, Refuse, false),
        (Some(Pass), Refuse, true),
        (Some(Refuse), Pass, false),
    ] {
        let source = Workload { unknown_destinations: by_mesh, ..source(&mesh) };
        let policy = OutboundPolicy { unknown: by_node, ..Default::default() };
        let found = decide(&mesh, &source, "1.2.3.4:80", policy, 0);
        assert_eq!(found.is_ok(), passes, "{by_mesh:?}, {by_node:?}");
    }
}

#[test]
fn endpoints_share_connections_by_capacity_and_stand_in_for_each_other() {
    let (b, c) = ("h 10.2.0.2:8080", "t 10.2.0.3:8080");
    for (pick, expected) in [(0, [b, c]), (1, [c, b]), (2, [c, b]), (3, [c, b])] {
        assert_eq!(hops("10.96.0.1:80", pick), expected, "{pick}");
    }
}

#[test]
fn a_peer_may_be_the_workload_or_what_the_service_allows() {
    let expected = |target: &str| match &route(target, 0).unwrap().hops[0].transport {
        Transport::Hbone { expected } | Transport::Waypoint { expected, .. } => {
            expected.iter().map(Identity::to_string).collect()
        }
        Transport::Plaintext | Transport::Gateway { .. } => Vec::new(),
    };
    let own = "spiffe://cluster.local/ns/shop/sa/b";
    assert_eq!(expected("10.2.0.2:80"), [own]);
    assert_eq!(expected("10.96.0.1:80"), [own, "spiffe://cluster.local/ns/shop/sa/alias"]);
}

#[test]
fn of_several_services_at_an_address_the_nearest_counts() {
    let mesh = mesh();
    let found = |address: &str, namespace: &str| {
        let namespace = namespace.parse().unwrap();
        let found = mesh.service_at(address.parse().unwrap(), &namespace);
        found.map(|entry| entry.service.key.to_string())
    };
    for (address, namespace, expected) in [
        ("10.96.0.6", "shop", Some("shop/twin")),
        ("10.96.0.6", "far", Some("far/twin")),
        ("10.96.0.6", "else", Some("far/twin")),
        ("10.97.1.1", "shop", Some("far/narrow")),
        ("10.97.2.1", "shop", Some("far/range")),
        ("10.96.0.7", "shop", None),
        ("10.96.0.7", "far", Some("far/secret")),
        ("10.98.0.1", "shop", None),
    ] {
        assert_eq!(found(address, namespace).as_deref(), expected, "{address} from {namespace}");
    }
}

#[test]
fn a_pod_is_known_only_with_the_identity_that_it_was_enrolled_with() {
    let mesh = mesh();
    let identity = |text: &str| text.parse::<Identity>().unwrap();
    let own = identity("spiffe://cluster.local/ns/shop/sa/a");
    assert!(mesh.local_workload("a", &own).is_some());
    assert!(mesh.local_workload("b", &own).is_none());
    for other in ["cluster.local/ns/shop/sa/b", "cluster.local/ns/far/sa/a", "other/ns/shop/sa/a"] {
        assert!(mesh.local_workload("a", &identity(&format!("spiffe://{other}"))).is_none());
    }
}

#[test]
fn a_pod_is_asked_for_by_the_names_of_its_own_services_only() {
    let mesh = mesh();
    let (b, c) = ("10.2.0.2".parse().unwrap(), "10.2.0.3".parse().unwrap());
    for (local, hostname, port, expected) in [
        (b, "web", 80, Some(8080)),
        (b, "WEB", 80, Some(8080)),
        (b, "web", 81, None),
        (b, "named", 80, Some(1234)),
        (c, "named", 80, None),
        (b, "pass", 80, None),
        (b, "nobody", 80, None),
    ] {
        let local = mesh.workload_at(local).unwrap();
        let found = mesh.service_named(local, hostname, port);
        assert_eq!(found.map(|(_, port)| port), expected, "{hostname}:{port} of {}", local.name);
    }
    let (web, _) = mesh.service_named(mesh.workload_at(b).unwrap(), "web", 80).unwrap();
    assert_eq!(mesh.first_address(web), "10.96.0.1".parse().ok());
}

#[test]
fn a_connection_is_ascribed_to_the_service_that_it_was_most_likely_made_for() {
    let mesh = mesh();
    let b = mesh.workload_at("10.2.0.2".parse().unwrap()).unwrap();
    let ascribed = |port, hostname| {
        mesh.service_for(b, port, hostname).map(|service| service.key.hostname.to_string())
    };
    assert_eq!(ascribed(8080, Some("web")).as_deref(), Some("web"));
    assert_eq!(ascribed(1234, None).as_deref(), Some("named"));
    assert_eq!(ascribed(9999, None), None);
}
