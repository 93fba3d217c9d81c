use super::*;
use crate::{
    policy::Policy,
    proto::{security, workload as proto},
    workload::{
        ApplicationTunnel, Balancing, GatewayAddress, GatewayDestination, Network, Scope, Service,
        WeightedWaypoint, Workload,
    },
};

fn parse<W, T>(yaml: &str) -> Result<T, String>
where
    W: serde::de::DeserializeOwned,
    T: TryFrom<W, Error = InvalidField>,
{
    let wire: W = serde_saphyr::from_str(yaml).unwrap();
    T::try_from(wire).map_err(|error| error.to_string())
}

fn workload(fields: &str) -> Result<Workload, String> {
    let defaults = "uid: u, namespace: shop, addresses: [10.0.0.7]";
    parse::<proto::Workload, _>(&format!("{{{defaults}, {fields}}}"))
}

fn service(fields: &str) -> Result<Service, String> {
    parse::<proto::Service, _>(&format!("{{namespace: shop, hostname: cart.shop, {fields}}}"))
}

fn policy(wire: security::Authorization) -> Result<Policy, String> {
    Policy::try_from(wire).map_err(|error| error.to_string())
}

fn policy_with(conditions: security::Match) -> Result<Policy, String> {
    let clause = security::Clause { matches: vec![security::Match::default(), conditions] };
    policy(security::Authorization {
        name: "p".into(),
        namespace: "shop".into(),
        rules: vec![security::Rule { clauses: vec![clause] }],
        ..security::Authorization::default()
    })
}

#[test]
fn absent_fields_of_a_workload_have_their_documented_defaults() {
    let workload = workload("").unwrap();
    assert_eq!(workload.identity.to_string(), "spiffe://cluster.local/ns/shop/sa/default");
    assert_eq!(&*workload.cluster_id, "Kubernetes");
    assert_eq!(workload.capacity, 1);
}

#[test]
fn given_fields_of_a_workload_are_kept() {
    let workload = workload(
        "trust_domain: td, service_account: cart, cluster_id: c, capacity: 0, node: n, \
         services: {shop/cart.shop: {ports: [{service_port: 80, target_port: 8080}]}}, \
         authorization_policies: [shop/p], tunnel_protocol: HBONE, workload_type: JOB",
    )
    .unwrap();
    assert_eq!(workload.identity.to_string(), "spiffe://td/ns/shop/sa/cart");
    assert_eq!(&*workload.cluster_id, "c");
    assert_eq!(workload.capacity, 0);
    let (key, ports) = workload.services.first_key_value().unwrap();
    assert_eq!(key.to_string(), "shop/cart.shop");
    assert_eq!(ports[&80], 8080);
    assert_eq!(workload.authorization_policies[0].to_string(), "shop/p");
}

#[test]
fn workloads_that_cannot_be_served_are_refused_with_the_field() {
    for (fields, expected) in [
        (
            "network_gateway: {address: 10.0.0.0/8}",
            "network_gateway.address: a range of addresses: give one address",
        ),
        (
            "waypoint: {address: 10.0.0.0/8}",
            "waypoint.address: a range of addresses: give one address",
        ),
        ("waypoint: {hostname: {namespace: shop}}", "waypoint.hostname.hostname: is empty: set it"),
        (
            "waypoint: {address: 10.0.0.1, hbone_mtls_port: 70000}",
            "waypoint.hbone_mtls_port: 70000 is not a port: use 1 to 65535",
        ),
        (
            "application_tunnel: {port: 65536}",
            "application_tunnel.port: 65536 is not a port: use 1 to 65535",
        ),
        (
            "tunnel_protocol: LEGACY_ISTIO_MTLS",
            "tunnel_protocol: the value LEGACY_ISTIO_MTLS is not supported: use another",
        ),
        (
            "trust_domain: A",
            "trust_domain: invalid trust domain \"A\": use lower-case letters, digits, '-', '.' and '_'",
        ),
        (
            "authorization_policies: [a/b, c]",
            "authorization_policies[1]: \"c\" is not a key: write namespace/name",
        ),
        ("services: {a: {}}", "services.a: \"a\" is not a key: write namespace/name"),
        (
            "services: {a/b: {ports: [{service_port: 80, target_port: 0}]}}",
            "services.a/b.ports[0].target_port: 0 is not a port: use 1 to 65535",
        ),
        (
            "services: {a/b: {ports: [{service_port: 65536, target_port: 1}]}}",
            "services.a/b.ports[0].service_port: 65536 is not a port: use 1 to 65535",
        ),
        (
            "services: {a/b: {ports: [{service_port: 1, target_port: 1}, {service_port: 1, target_port: 2}]}}",
            "services.a/b.ports[1].service_port: port 1 is listed twice: remove one of the entries",
        ),
    ] {
        assert_eq!(workload(fields).unwrap_err(), expected, "{fields}");
    }
}

#[test]
fn required_fields_of_a_workload_must_be_set() {
    for (yaml, expected) in [
        ("{}", "addresses: is empty: set it"),
        (
            "{namespace: a, hostname: 'a..b'}",
            "hostname: \"a..b\" is not a host name: write one such as db.example.com",
        ),
        ("{addresses: [10.0.0.7]}", "namespace: is empty: set it"),
        ("{addresses: [10.0.0.7], namespace: a}", "uid: is empty: set it"),
    ] {
        assert_eq!(parse::<proto::Workload, Workload>(yaml).unwrap_err(), expected);
    }
}

#[test]
fn values_that_only_the_wire_can_hold_are_refused_too() {
    let valid = || proto::Workload {
        uid: "u".into(),
        namespace: "shop".into(),
        addresses: vec![vec![10, 0, 0, 7].into()],
        ..proto::Workload::default()
    };
    let error = |wire: proto::Workload| Workload::try_from(wire).unwrap_err().to_string();
    assert_eq!(
        error(proto::Workload { status: 9, ..valid() }),
        "status: 9 is not a known value: use one of HEALTHY, UNHEALTHY"
    );
    let addresses = vec![vec![10, 0, 0, 7].into(), vec![1, 2, 3].into()];
    assert_eq!(
        error(proto::Workload { addresses, ..valid() }),
        "addresses[1]: an address of 3 bytes: use 4 bytes (IPv4) or 16 bytes (IPv6)"
    );
}

#[test]
fn addresses_and_ranges_of_mapped_addresses_become_ipv4() {
    let mapped = "::ffff:10.1.2.3".parse::<std::net::Ipv6Addr>().unwrap().octets();
    assert_eq!(address(&mapped), Ok([10, 1, 2, 3].into()));
    for (octets, length, expected) in [
        (&mapped[..], 128, "10.1.2.3/32"),
        (&mapped, 104, "10.0.0.0/8"),
        (&mapped, 96, "0.0.0.0/0"),
        (&mapped, 95, "::fffe:0:0/95"),
        (&[0; 16], 0, "::/0"),
        (&[10, 1, 2, 3], 8, "10.0.0.0/8"),
        (&[10, 1, 2, 3], 32, "10.1.2.3/32"),
    ] {
        assert_eq!(range(octets, length).unwrap().to_string(), expected);
    }
    assert_eq!(range(&[10, 1, 2, 3], 33), Err(Problem::PrefixLength(33)));
    assert_eq!(range(&[0; 16], 129), Err(Problem::PrefixLength(129)));
    assert_eq!(range(&[0; 4], 256), Err(Problem::PrefixLength(256)));
    assert_eq!(range(&[0; 5], 1), Err(Problem::AddressLength(5)));
}

#[test]
fn a_service_keeps_what_the_data_plane_uses() {
    let service = service(
        "name: cart, addresses: [10.96.0.1, net/10.97.0.0/16], ip_families: DUAL, \
         ports: [{service_port: 80, target_port: 8080}, {service_port: 81}], canonical: true, \
         visibility: NAMESPACE, load_balancing: {mode: PASSTHROUGH, health_policy: ALLOW_ALL}, \
         subject_alt_names: ['spiffe://td/ns/a/sa/b']",
    )
    .unwrap();
    assert_eq!(service.key.to_string(), "shop/cart.shop");
    assert_eq!(service.addresses[0].address.to_string(), "10.96.0.1/32");
    assert_eq!(&*service.addresses[1].network.0, "net");
    assert_eq!(service.ports[0].target_port, Some(8080));
    assert_eq!(service.ports[1].target_port, None);
    assert!(service.canonical && service.namespace_local);
    assert_eq!((service.balancing, service.allow_unhealthy), (Balancing::Passthrough, true));
    assert_eq!(service.subject_alt_names[0].namespace.as_str(), "a");
}

#[test]
fn a_service_says_what_its_endpoints_are_preferred_for() {
    use Scope::{Cluster, Network, Node, Region, Subzone, Zone};

    for (fields, expected) in [
        ("{}", Balancing::Even),
        ("{routing_preference: [ZONE]}", Balancing::Even),
        ("{mode: STRICT, routing_preference: [NODE]}", Balancing::Strict([Node].into())),
        ("{mode: STRICT}", Balancing::Strict([].into())),
        (
            "{mode: FAILOVER, routing_preference: [NETWORK, REGION, ZONE, SUBZONE, NODE, CLUSTER]}",
            Balancing::Failover([Network, Region, Zone, Subzone, Node, Cluster].into()),
        ),
        (
            "{mode: FAILOVER, routing_preference: [ZONE, NODE, ZONE]}",
            Balancing::Failover([Zone, Node].into()),
        ),
        ("{mode: PASSTHROUGH, routing_preference: [NODE]}", Balancing::Passthrough),
    ] {
        let service = service(&format!("load_balancing: {fields}")).unwrap();
        assert_eq!(service.balancing, expected, "{fields}");
    }
}

#[test]
fn a_waypoint_is_found_by_its_service_or_by_its_address() {
    let bound = workload("waypoint: {hostname: {namespace: shop, hostname: wp.shop}}").unwrap();
    let by_name = GatewayAddress {
        destination: GatewayDestination::Hostname(service_key("shop/wp.shop").unwrap()),
        hbone_port: 15008,
    };
    assert_eq!(bound.waypoint, Some(by_name.clone()));
    let bound = service(
        "waypoint: {address: net/10.0.0.1, hbone_mtls_port: 1}, ingress_use_waypoint: true, \
         weighted_waypoints: [{destination: {hostname: {namespace: shop, hostname: wp.shop}}, weight: 7}]",
    )
    .unwrap();
    let address = GatewayDestination::Address(Network("net".into()), [10, 0, 0, 1].into());
    assert_eq!(bound.waypoint, Some(GatewayAddress { destination: address, hbone_port: 1 }));
    assert_eq!(bound.weighted_waypoints, [WeightedWaypoint { waypoint: by_name, weight: 7 }]);
    assert_eq!(workload("").unwrap().waypoint, None);
}

#[test]
fn a_host_name_stands_for_addresses_that_are_not_there() {
    let parse = |fields: &str| {
        let yaml = format!("{{uid: u, namespace: shop, {fields}}}");
        parse::<proto::Workload, Workload>(&yaml).unwrap().hostname
    };
    assert_eq!(parse("hostname: db_1.Example.com").as_deref(), Some("db_1.Example.com"));
    assert_eq!(parse("hostname: '*.example'").as_deref(), Some("*.example"));
    // It is a name to be referred to by, too; as that it need not be one.
    let named = parse("hostname: db.example, addresses: [10.0.0.7]");
    assert_eq!(named.as_deref(), Some("db.example"));
    assert_eq!(parse("hostname: 'a b', addresses: [10.0.0.7]"), None);
}

#[test]
fn what_only_a_gateway_leads_to_needs_no_address() {
    let yaml = "{uid: u, namespace: shop, network: far, network_gateway: {address: far/10.0.0.1}}";
    let remote = parse::<proto::Workload, Workload>(yaml).unwrap();
    let address = GatewayDestination::Address(Network("far".into()), [10, 0, 0, 1].into());
    let gateway = GatewayAddress { destination: address, hbone_port: 15008 };
    assert_eq!((remote.addresses, remote.network_gateway), (Vec::new(), Some(gateway)));
}

#[test]
fn a_workload_that_is_a_proxy_says_how_it_is_handed_connections() {
    let tunnel = |fields: &str| workload(fields).unwrap().application_tunnel;
    for (fields, proxy_header, port) in [
        ("application_tunnel: {}", false, None),
        ("application_tunnel: {protocol: PROXY}", true, None),
        ("application_tunnel: {protocol: PROXY, port: 15088}", true, Some(15088)),
        ("application_tunnel: {port: 15088}", false, Some(15088)),
    ] {
        assert_eq!(tunnel(fields), Some(ApplicationTunnel { proxy_header, port }), "{fields}");
    }
    // That it ends tunnels itself does not matter to who opens them.
    assert_eq!(tunnel("native_tunnel: true"), None);
}

#[test]
fn services_that_cannot_be_served_are_refused_with_the_field() {
    for (fields, expected) in [
        (
            "weighted_waypoints: [{weight: 1}]",
            "weighted_waypoints[0].destination: is empty: set it",
        ),
        (
            "load_balancing: {routing_preference: [ZONE, UNSPECIFIED]}",
            "load_balancing.routing_preference[1]: the value UNSPECIFIED is not supported: use another",
        ),
        ("ports: [{}]", "ports[0].service_port: 0 is not a port: use 1 to 65535"),
        (
            "ports: [{service_port: 1, target_port: 70000}]",
            "ports[0].target_port: 70000 is not a port: use 1 to 65535",
        ),
        (
            "ports: [{service_port: 1}, {service_port: 1}]",
            "ports[1].service_port: port 1 is listed twice: remove one of the entries",
        ),
        (
            "subject_alt_names: [x]",
            "subject_alt_names[0]: \"x\" is not of the form \
             spiffe://<trust-domain>/ns/<namespace>/sa/<service-account>",
        ),
    ] {
        assert_eq!(service(fields).unwrap_err(), expected, "{fields}");
    }
}

#[test]
fn a_policy_with_a_value_that_cannot_be_understood_is_invalid_as_a_whole() {
    let path = "rules[0].clauses[0].matches[1]";
    let address =
        |octets: &[u8], length| security::Address { address: octets.to_vec().into(), length };
    for (conditions, expected) in [
        (
            security::Match { destination_ports: vec![80, 65536], ..Default::default() },
            "destination_ports[1]: 65536 is not a port: use 1 to 65535",
        ),
        (
            security::Match { not_destination_ports: vec![0], ..Default::default() },
            "not_destination_ports[0]: 0 is not a port: use 1 to 65535",
        ),
        (
            security::Match { source_ips: vec![address(&[1, 2], 1)], ..Default::default() },
            "source_ips[0]: an address of 2 bytes: use 4 bytes (IPv4) or 16 bytes (IPv6)",
        ),
        (
            security::Match {
                not_destination_ips: vec![address(&[0; 4], 40)],
                ..Default::default()
            },
            "not_destination_ips[0]: /40 is longer than the address: use at most /32 (IPv4) or /128 (IPv6)",
        ),
        (
            security::Match {
                extensions: vec![security::Extension::default()],
                ..Default::default()
            },
            "extensions: is not supported: remove it",
        ),
        (
            security::Match {
                principals: vec![security::StringMatch::default()],
                ..Default::default()
            },
            "principals[0]: matches nothing: set one of exact, prefix, suffix or presence",
        ),
        (
            security::Match {
                not_service_accounts: vec![security::ServiceAccountMatch::default()],
                ..Default::default()
            },
            "not_service_accounts[0].namespace: is empty: set it",
        ),
    ] {
        assert_eq!(policy_with(conditions).unwrap_err(), format!("{path}.{expected}"));
    }
}

#[test]
fn a_policy_needs_a_key_and_a_known_scope_and_action() {
    let valid = || security::Authorization {
        name: "p".into(),
        namespace: "shop".into(),
        ..security::Authorization::default()
    };
    assert!(policy(valid()).is_ok());
    for (wire, expected) in [
        (security::Authorization { name: String::new(), ..valid() }, "name: is empty: set it"),
        (
            security::Authorization { namespace: String::new(), ..valid() },
            "namespace: is empty: set it",
        ),
        (
            security::Authorization { scope: 3, ..valid() },
            "scope: 3 is not a known value: use one of GLOBAL, NAMESPACE, WORKLOAD_SELECTOR",
        ),
        (
            security::Authorization { action: -1, ..valid() },
            "action: -1 is not a known value: use one of ALLOW, DENY",
        ),
    ] {
        assert_eq!(policy(wire).unwrap_err(), expected);
    }
}
