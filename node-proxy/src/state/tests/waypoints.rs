//! Decisions about what is bound to a waypoint (l4 vectors of the reference, and more).

use super::*;

const MESH: &str = r#"
workloads:
- {uid: client, name: client, namespace: shop, service_account: client, addresses: ["10.1.0.2", "fd00:1::2"], tunnel_protocol: HBONE, waypoint: {address: 10.2.0.10}}
- {uid: wp-1, name: wp-1, namespace: shop, service_account: wp, addresses: ["10.2.0.10", "fd00:2::10"], services: {shop/wp: {ports: [{service_port: 15008, target_port: 15018}]}}}
- {uid: wp-2, name: wp-2, namespace: shop, service_account: wp, addresses: ["10.2.0.11"], capacity: 3, services: {shop/wp: {}}}
- {uid: sick, name: sick, namespace: shop, service_account: wp, addresses: ["10.2.0.12"], status: UNHEALTHY, services: {shop/sick: {}}}
- {uid: by-address, name: by-address, namespace: shop, addresses: ["10.3.0.1", "fd00:3::1"], tunnel_protocol: HBONE, waypoint: {address: 10.2.0.10}, services: {shop/plain: {}, shop/web: {}}}
- {uid: by-name, name: by-name, namespace: shop, addresses: ["10.3.0.2"], waypoint: {hostname: {namespace: shop, hostname: wp}}}
- {uid: by-vip, name: by-vip, namespace: shop, addresses: ["10.3.0.3"], waypoint: {address: 10.96.0.10}}
- {uid: orphan, name: orphan, namespace: shop, addresses: ["10.3.0.4"], tunnel_protocol: HBONE, waypoint: {hostname: {namespace: shop, hostname: gone}}}
- {uid: sick-bound, name: sick-bound, namespace: shop, addresses: ["10.3.0.5"], waypoint: {hostname: {namespace: shop, hostname: sick}}}
- {uid: far, name: far, namespace: shop, addresses: ["10.3.0.6"], waypoint: {address: elsewhere/10.2.0.10}}
- {uid: no-port, name: no-port, namespace: shop, addresses: ["10.3.0.7"], waypoint: {hostname: {namespace: shop, hostname: wp}, hbone_mtls_port: 15009}}
services:
- {name: wp, namespace: shop, hostname: wp, addresses: ["10.96.0.10"], ports: [{service_port: 15008, target_port: 15008}], subject_alt_names: ["spiffe://cluster.local/ns/shop/sa/wp-alias"]}
- {name: sick, namespace: shop, hostname: sick, ports: [{service_port: 15008, target_port: 15008}]}
- {name: web, namespace: shop, hostname: web, addresses: ["10.96.0.1", "fd00:96::1"], ports: [{service_port: 80, target_port: 8080}], waypoint: {hostname: {namespace: shop, hostname: wp}}}
- {name: plain, namespace: shop, hostname: plain, addresses: ["10.96.0.2"], ports: [{service_port: 80, target_port: 8080}]}
- {name: pass, namespace: shop, hostname: pass, addresses: ["10.96.0.3"], ports: [{service_port: 80, target_port: 8080}], load_balancing: {mode: PASSTHROUGH}, waypoint: {address: 10.2.0.10}}
- {name: orphaned, namespace: shop, hostname: orphaned, addresses: ["10.96.0.4"], ports: [{service_port: 80, target_port: 8080}], waypoint: {hostname: {namespace: shop, hostname: gone}}}
- {name: empty, namespace: shop, hostname: empty, addresses: ["10.96.0.5"], waypoint: {address: 10.2.0.10}}
- {name: canary, namespace: shop, hostname: canary, addresses: ["10.96.0.6"], waypoint: {address: 10.2.0.10}, weighted_waypoints: [{destination: {address: 10.2.0.10}, weight: 90}, {destination: {address: 10.2.0.11}, weight: 10}]}
- {name: weightless, namespace: shop, hostname: weightless, addresses: ["10.96.0.7"], waypoint: {address: 10.2.0.10}, weighted_waypoints: [{destination: {address: 10.2.0.11}}]}
"#;

fn mesh() -> MeshState {
    MeshState::new(LocalConfig::parse(MESH).unwrap(), Network::default())
}

fn from(
    source: &str,
    target: &str,
    without: WithoutWaypoint,
    pick: u64,
) -> Result<Vec<String>, CloseReason> {
    let mesh = mesh();
    let source = Workload::clone(mesh.workload_at(source.parse().unwrap()).unwrap());
    let policy = OutboundPolicy { without_waypoint: without, ..OutboundPolicy::default() };
    let route = decide(&mesh, &source, target, policy, pick)?;
    Ok(as_text(&route))
}

fn from_client(target: &str) -> Result<Vec<String>, CloseReason> {
    from("10.1.0.2", target, WithoutWaypoint::Refuse, 0)
}

#[test]
fn what_is_bound_is_reached_through_its_waypoint_under_its_own_address() {
    for (what, target, expected) in [
        ("workload, by address", "10.3.0.1:80", &["w 10.2.0.10:15008 10.3.0.1:80"][..]),
        ("its other family", "[fd00:3::1]:80", &["w 10.2.0.10:15008 [fd00:3::1]:80"]),
        (
            "workload, by name: the port of each instance",
            "10.3.0.2:80",
            &["w 10.2.0.10:15018 10.3.0.2:80", "w 10.2.0.11:15008 10.3.0.2:80"],
        ),
        (
            "workload, by the address of a service",
            "10.3.0.3:80",
            &["w 10.2.0.10:15018 10.3.0.3:80", "w 10.2.0.11:15008 10.3.0.3:80"],
        ),
        (
            "service",
            "10.96.0.1:80",
            &["w 10.2.0.10:15018 10.96.0.1:80", "w 10.2.0.11:15008 10.96.0.1:80"],
        ),
        (
            "service, by name: the client's family",
            "[fd00:96::1]:80",
            &["w [fd00:2::10]:15018 [fd00:96::1]:80", "w 10.2.0.11:15008 [fd00:96::1]:80"],
        ),
        ("service, on a port that it lacks", "10.96.0.5:9", &["w 10.2.0.10:15008 10.96.0.5:9"]),
        ("passthrough", "10.96.0.3:80", &["w 10.2.0.10:15008 10.96.0.3:80"]),
        ("a bound workload, through a service that is not", "10.96.0.2:80", &["h 10.3.0.1:8080"]),
        ("the client's own waypoint does not matter", "1.2.3.4:80", &["t 1.2.3.4:80"]),
    ] {
        assert_eq!(from_client(target).unwrap(), expected, "{what}");
    }
}

#[test]
fn a_waypoint_that_is_not_there_refuses_unless_told_otherwise() {
    for (what, target, directly) in [
        ("not known", "10.3.0.4:80", "h 10.3.0.4:80"),
        ("not healthy", "10.3.0.5:80", "t 10.3.0.5:80"),
        ("on another network", "10.3.0.6:80", "t 10.3.0.6:80"),
        ("without that port", "10.3.0.7:80", "t 10.3.0.7:80"),
    ] {
        let refused = from_client(target).unwrap_err();
        assert_eq!(refused, CloseReason::WaypointUnavailable, "{what}");
        let hops = from("10.1.0.2", target, WithoutWaypoint::GoDirectly, 0).unwrap();
        assert_eq!(hops, [directly], "{what}");
    }
    assert_eq!(from_client("10.96.0.4:80").unwrap_err(), CloseReason::WaypointUnavailable);
    let nowhere = from("10.1.0.2", "10.96.0.4:80", WithoutWaypoint::GoDirectly, 0);
    assert_eq!(nowhere.unwrap_err(), CloseReason::NoHealthyEndpoint);
}

#[test]
fn the_direct_way_comes_after_the_waypoint_where_it_is_allowed() {
    let hops = from("10.1.0.2", "10.3.0.1:80", WithoutWaypoint::GoDirectly, 0).unwrap();
    assert_eq!(hops, ["w 10.2.0.10:15008 10.3.0.1:80", "h 10.3.0.1:80"]);
}

#[test]
fn what_comes_from_the_waypoint_of_a_workload_goes_to_it() {
    for (source, target, expected) in [
        ("10.2.0.10", "10.3.0.1:80", "h 10.3.0.1:80"),
        ("10.2.0.10", "10.3.0.2:80", "t 10.3.0.2:80"),
        ("10.2.0.11", "10.3.0.2:80", "t 10.3.0.2:80"),
        // Another instance, with the same identity, but not the one that is bound.
        ("10.2.0.11", "10.3.0.1:80", "w 10.2.0.10:15008 10.3.0.1:80"),
        // Services are reached through waypoints whoever asks; waypoints ask for workloads.
        ("10.2.0.10", "10.96.0.3:80", "w 10.2.0.10:15008 10.96.0.3:80"),
    ] {
        let hops = from(source, target, WithoutWaypoint::Refuse, 0).unwrap();
        assert_eq!(hops[0], expected, "{source} to {target}");
    }
}

#[test]
fn waypoints_share_connections_by_weight() {
    let hop = |target, pick| from("10.1.0.2", target, WithoutWaypoint::Refuse, pick).unwrap();
    let (one, two) = ("w 10.2.0.10:15008", "w 10.2.0.11:15008");
    for (pick, waypoint) in [(0, one), (89, one), (90, two), (99, two)] {
        assert_eq!(hop("10.96.0.6:80", pick), [format!("{waypoint} 10.96.0.6:80")], "{pick}");
    }
    assert_eq!(hop("10.96.0.7:80", 0), [format!("{one} 10.96.0.7:80")]);
}

#[test]
fn a_waypoint_proves_to_be_one() {
    let mesh = mesh();
    let client = Workload::clone(mesh.workload_at("10.1.0.2".parse().unwrap()).unwrap());
    let expected = |target: &str| {
        let route = decide(&mesh, &client, target, OutboundPolicy::default(), 0).unwrap();
        match &route.hops[0].transport {
            Transport::Waypoint { expected, .. } => {
                expected.iter().map(Identity::to_string).collect::<Vec<_>>()
            }
            other
            @ (Transport::Plaintext | Transport::Hbone { .. } | Transport::Gateway { .. }) => {
                panic!("{other:?}")
            }
        }
    };
    let own = "spiffe://cluster.local/ns/shop/sa/wp";
    assert_eq!(expected("10.3.0.1:80"), [own]);
    assert_eq!(expected("10.3.0.2:80"), [own, "spiffe://cluster.local/ns/shop/sa/wp-alias"]);
}

#[test]
fn a_pod_takes_connections_for_what_is_bound_to_it_and_for_nothing_else() {
    let mesh = mesh();
    let at = |address: &str| mesh.workload_at(address.parse().unwrap()).unwrap();
    for (local, address, expected) in [
        ("10.2.0.10", "10.3.0.1", true),
        ("10.2.0.10", "fd00:3::1", true),
        ("10.2.0.10", "10.3.0.2", true),
        ("10.2.0.11", "10.3.0.2", true),
        ("10.2.0.11", "10.96.0.1", true),
        ("10.2.0.10", "10.96.0.3", true),
        ("10.2.0.11", "10.3.0.1", false),
        ("10.2.0.11", "10.96.0.3", false),
        ("10.2.0.10", "10.96.0.2", false),
        ("10.2.0.10", "10.3.0.4", false),
        ("10.2.0.10", "1.2.3.4", false),
        ("10.3.0.1", "10.96.0.1", false),
    ] {
        let found = mesh.stands_in_for(at(local), address.parse().unwrap());
        assert_eq!(found, expected, "{local} for {address}");
    }
}
