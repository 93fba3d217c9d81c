//! The decision vectors of the reference, in its order (section 3.7), seen from a pod with both
//! address families.

use super::*;

const MESH: &str = r#"
workloads:
- {uid: Kubernetes//Pod/ns1/source, name: source, namespace: ns1, service_account: source, node: local, addresses: ["127.0.0.1", "::1"], tunnel_protocol: HBONE, waypoint: {address: 127.0.0.10}}
- {uid: Kubernetes//Pod/ns1/waypoint, name: waypoint, namespace: ns1, service_account: waypoint, node: remote, addresses: ["127.0.0.10"]}
- {uid: far, name: far, namespace: ns1, network: remote, addresses: ["127.0.2.1"], tunnel_protocol: HBONE, services: {ns1/far.com: {}, ns1/near-first.com: {}}}
- {uid: gw, name: gw, namespace: ns1, service_account: gw, network: remote, addresses: ["127.0.2.10"]}
- {uid: gw-pod, name: gw-pod, namespace: ns1, service_account: gw, network: remote, addresses: ["127.0.2.11"], services: {ns1/gw.com: {}}}
- {uid: gated, name: gated, namespace: ns1, network: remote, network_gateway: {address: remote/127.0.2.10, hbone_mtls_port: 15009}, services: {ns1/gated.com: {}, ns1/gated-near-first.com: {}}}
- {uid: gated-by-name, name: gated-by-name, namespace: ns1, network: remote, network_gateway: {hostname: {namespace: ns1, hostname: gw.com}, hbone_mtls_port: 15009}, services: {ns1/gated-by-name.com: {}}}
- {uid: far-wp, name: far-wp, namespace: ns1, network: remote, addresses: ["127.0.0.10"], network_gateway: {address: remote/127.0.2.10, hbone_mtls_port: 15009}}
- {uid: sick, name: sick, namespace: ns1, addresses: ["127.0.2.3"], status: UNHEALTHY, tunnel_protocol: HBONE, services: {ns1/sick-near-first.com: {}}}
- {uid: gated-2, name: gated-2, namespace: ns1, network: remote, network_gateway: {address: remote/127.0.2.10, hbone_mtls_port: 15009}, services: {ns1/sick-near-first.com: {}}}
- {uid: gated-near, name: gated-near, namespace: ns1, addresses: ["127.0.2.4"], tunnel_protocol: HBONE, services: {ns1/gated-near-first.com: {}}}
- {uid: near, name: near, namespace: ns1, addresses: ["127.0.2.2"], tunnel_protocol: HBONE, services: {ns1/near-first.com: {}}}
- {uid: plain-local, name: plain-local, namespace: ns1, node: local, addresses: ["127.0.3.1"]}
- {uid: plain-remote, name: plain-remote, namespace: ns1, node: remote, addresses: ["127.0.3.2"]}
- {uid: tunnel-local, name: tunnel-local, namespace: ns1, node: local, addresses: ["127.0.3.3"], tunnel_protocol: HBONE}
- {uid: tunnel-remote, name: tunnel-remote, namespace: ns1, node: remote, addresses: ["127.0.3.4"], tunnel_protocol: HBONE}
- {uid: bound, name: bound, namespace: ns1, addresses: ["127.0.4.1"], tunnel_protocol: HBONE, waypoint: {address: 127.0.0.10}}
- {uid: bound-dual, name: bound-dual, namespace: ns1, addresses: ["127.0.4.2", "ff06::c3"], tunnel_protocol: HBONE, waypoint: {address: 127.0.0.10}}
- {uid: behind, name: behind, namespace: ns1, addresses: ["127.0.4.3"], tunnel_protocol: HBONE, services: {ns1/bound.com: {}}}
- {uid: unmapped, name: unmapped, namespace: ns1, addresses: ["127.0.5.1"], services: {ns1/named.com: {}}}
- {uid: mapped, name: mapped, namespace: ns1, addresses: ["127.0.5.2"], services: {ns1/named.com: {ports: [{service_port: 80, target_port: 1234}]}}}
- {uid: host-1, name: host-1, namespace: ns1, network_mode: HOST_NETWORK, addresses: ["127.0.6.1"], services: {ns1/host.com: {}}}
- {uid: host-2, name: host-2, namespace: ns1, network_mode: HOST_NETWORK, addresses: ["127.0.6.1"]}
- {uid: dual, name: dual, namespace: ns1, addresses: ["127.0.7.1", "::7"], services: {ns1/v6-only.com: {}, ns1/dual.com: {}}}
services:
- {name: far, namespace: ns1, hostname: far.com, addresses: ["127.10.0.1"], ports: [{service_port: 80, target_port: 8080}]}
- {name: near-first, namespace: ns1, hostname: near-first.com, addresses: ["127.10.0.2"], ports: [{service_port: 80, target_port: 8080}], load_balancing: {mode: FAILOVER, routing_preference: [NETWORK]}}
- {name: bound, namespace: ns1, hostname: bound.com, addresses: ["127.10.0.3"], ports: [{service_port: 80, target_port: 8080}], waypoint: {address: 127.0.0.10}}
- {name: far-waypoint, namespace: ns1, hostname: far-waypoint.com, addresses: ["127.10.0.4"], ports: [{service_port: 80, target_port: 8080}], waypoint: {address: remote/127.0.0.10}, subject_alt_names: ["spiffe://cluster.local/ns/ns1/sa/far"]}
- {name: gw, namespace: ns1, hostname: gw.com, ports: [{service_port: 15009, target_port: 15008}]}
- {name: gated, namespace: ns1, hostname: gated.com, addresses: ["127.10.0.12"], ports: [{service_port: 80, target_port: 8080}], subject_alt_names: ["spiffe://cluster.local/ns/ns1/sa/far"]}
- {name: gated-by-name, namespace: ns1, hostname: gated-by-name.com, addresses: ["127.10.0.13"], ports: [{service_port: 80, target_port: 8080}], subject_alt_names: ["spiffe://cluster.local/ns/ns1/sa/far"]}
- {name: gated-near-first, namespace: ns1, hostname: gated-near-first.com, addresses: ["127.10.0.14"], ports: [{service_port: 80, target_port: 8080}], load_balancing: {mode: FAILOVER, routing_preference: [NETWORK]}, subject_alt_names: ["spiffe://cluster.local/ns/ns1/sa/far"]}
- {name: sick-near-first, namespace: ns1, hostname: sick-near-first.com, addresses: ["127.10.0.15"], ports: [{service_port: 80, target_port: 8080}], load_balancing: {mode: FAILOVER, routing_preference: [NETWORK]}, subject_alt_names: ["spiffe://cluster.local/ns/ns1/sa/far"]}
- {name: empty, namespace: ns1, hostname: empty.com, addresses: ["127.10.0.5"], ports: [{service_port: 80, target_port: 80}]}
- {name: named, namespace: ns1, hostname: named.com, addresses: ["127.10.0.6"], ports: [{service_port: 80}]}
- {name: host, namespace: ns1, hostname: host.com, addresses: ["127.10.0.7"], ports: [{service_port: 80, target_port: 80}]}
- {name: v6-only, namespace: ns1, hostname: v6-only.com, addresses: ["127.10.0.8"], ports: [{service_port: 80, target_port: 80}], ip_families: IPV6_ONLY}
- {name: dual, namespace: ns1, hostname: dual.com, addresses: ["127.10.0.9", "::1009"], ports: [{service_port: 80, target_port: 80}], ip_families: DUAL}
- {name: pass, namespace: ns1, hostname: pass.com, addresses: ["127.10.0.10"], ports: [{service_port: 80, target_port: 80}], load_balancing: {mode: PASSTHROUGH}}
- {name: pass-bound, namespace: ns1, hostname: pass-bound.com, addresses: ["127.10.0.11"], ports: [{service_port: 80, target_port: 80}], load_balancing: {mode: PASSTHROUGH}, waypoint: {address: 127.0.0.10}}
"#;

#[test]
fn the_vectors_of_the_reference_hold() {
    let mesh = MeshState::new(LocalConfig::parse(MESH).unwrap(), Network::default());
    let source = mesh.workload_at("127.0.0.1".parse().unwrap()).unwrap();
    let no_endpoint = || Err(CloseReason::NoHealthyEndpoint);
    for (what, target, expected) in [
        ("unknown address", "1.2.3.4:80", Ok("t 1.2.3.4:80")),
        ("only endpoint on another network", "127.10.0.1:80", no_endpoint()),
        ("gateway by address", "127.10.0.12:80", Ok("g 127.0.2.10:15009 gated.com:80")),
        ("gateway by name", "127.10.0.13:80", Ok("g 127.0.2.11:15008 gated-by-name.com:80")),
        (
            "service waypoint on another network",
            "127.10.0.4:80",
            Ok("g 127.0.2.10:15009 far-waypoint.com:80"),
        ),
        (
            "own network first, though a gateway is there",
            "127.10.0.14:80",
            Ok("h 127.0.2.4:8080, g 127.0.2.10:15009 gated-near-first.com:80"),
        ),
        (
            "own network first, of which nothing is healthy",
            "127.10.0.15:80",
            Ok("g 127.0.2.10:15009 sick-near-first.com:80"),
        ),
        ("own network first", "127.10.0.2:80", Ok("h 127.0.2.2:8080")),
        ("no tunnel, own node", "127.0.3.1:80", Ok("t 127.0.3.1:80")),
        ("no tunnel, other node", "127.0.3.2:80", Ok("t 127.0.3.2:80")),
        ("tunnel, own node", "127.0.3.3:80", Ok("h 127.0.3.3:80")),
        ("tunnel, other node", "127.0.3.4:80", Ok("h 127.0.3.4:80")),
        ("waypoint of a workload", "127.0.4.1:80", Ok("w 127.0.0.10:15008 127.0.4.1:80")),
        ("its other family", "[ff06::c3]:80", Ok("w 127.0.0.10:15008 [ff06::c3]:80")),
        ("waypoint of a service", "127.10.0.3:80", Ok("w 127.0.0.10:15008 127.10.0.3:80")),
        ("no endpoints", "127.10.0.5:80", no_endpoint()),
        ("port that the service lacks", "127.10.0.3:81", Ok("w 127.0.0.10:15008 127.10.0.3:81")),
        ("the same without a waypoint", "127.10.0.2:81", no_endpoint()),
        ("named port that one pod maps", "127.10.0.6:80", Ok("t 127.0.5.2:1234")),
        ("host network, by the service", "127.10.0.7:80", Ok("t 127.0.6.1:80")),
        ("host network, by the node", "127.0.6.1:80", Ok("t 127.0.6.1:80")),
        ("IPv6 only", "127.10.0.8:80", Ok("t [::7]:80")),
        ("both families, IPv4", "127.10.0.9:80", Ok("t 127.0.7.1:80")),
        ("both families, IPv6", "[::1009]:80", Ok("t [::7]:80")),
        ("passthrough", "127.10.0.10:80", Ok("t 127.10.0.10:80")),
        ("passthrough with a waypoint", "127.10.0.11:80", Ok("w 127.0.0.10:15008 127.10.0.11:80")),
    ] {
        let found = decide(&mesh, source, target, OutboundPolicy::default(), 0);
        let found = found.map(|route| as_text(&route).join(", "));
        assert_eq!(found.as_deref(), expected.as_ref().map(|text| *text), "{what}");
    }
}

#[test]
fn an_address_of_a_node_is_no_workloads() {
    let mesh = MeshState::new(LocalConfig::parse(MESH).unwrap(), Network::default());
    let source = mesh.workload_at("127.0.0.1".parse().unwrap()).unwrap();
    let workload = |target| {
        let route = decide(&mesh, source, target, OutboundPolicy::default(), 0).unwrap();
        route.hops[0].workload.as_ref().map(|workload| workload.uid.to_string())
    };
    assert_eq!(workload("127.0.6.1:80"), None);
    assert_eq!(workload("127.10.0.7:80").as_deref(), Some("host-1"));
}
