//! What is bound to this waypoint.

use super::*;

/// Returns a waypoint by its host name.
fn waypoint_named(hostname: &str) -> wire::GatewayAddress {
    let (namespace, hostname) = ("shop".to_owned(), hostname.to_owned());
    let name = wire::NamespacedHostname { namespace, hostname };
    let destination = Some(wire::gateway_address::Destination::Hostname(name));
    wire::GatewayAddress { destination, hbone_mtls_port: 15008 }
}

#[test]
fn only_what_is_bound_to_this_waypoint_is_found_and_only_at_its_ports() {
    let mut told = Told::of_cart();
    let found = |told: &Told| {
        let at = told.0.target_at(address("10.96.0.10:80")).is_some();
        assert_eq!(at, told.0.target_named(HOST, 80).is_some());
        at
    };
    assert!(told.0.target_at(address("10.96.0.10:81")).is_none(), "a port that it has not");
    assert!(told.0.target_named(HOST, 81).is_none());
    let weighted = |waypoint| wire::WeightedWaypoint { destination: Some(waypoint), weight: 1 };
    let elsewhere = wire::NetworkAddress {
        network: "elsewhere".to_owned(),
        address: vec![10, 1, 0, 1].into(),
        ..Default::default()
    };
    let elsewhere = wire::gateway_address::Destination::Address(elsewhere);
    for (waypoint, is_bound) in [
        (waypoint_at(1), true),
        (waypoint_at(2), false),
        // Its service, and that of another one.
        (waypoint_named("waypoint.shop.svc.cluster.local"), true),
        (waypoint_named("other.shop.svc.cluster.local"), false),
        (wire::GatewayAddress { destination: Some(elsewhere), hbone_mtls_port: 15008 }, false),
    ] {
        let own = wire::PortList::default();
        let own = BTreeMap::from([("shop/waypoint.shop.svc.cluster.local".to_owned(), own)]);
        told.workload(wire::Workload { services: own, ..workload("waypoint", 1) });
        told.service_behind(Some(waypoint.clone()));
        assert_eq!(found(&told), is_bound, "{waypoint:?}");
        told.workload(wire::Workload {
            waypoint: Some(waypoint.clone()),
            ..workload("cart-1", 10)
        });
        let at = told.0.target_at(address("10.1.0.10:8080"));
        assert_eq!(at.is_some(), is_bound, "{waypoint:?}");
        told.canary(weighted(waypoint.clone()));
        assert_eq!(found(&told), is_bound, "{waypoint:?} as a canary");
    }
    told.service_behind(None);
    assert!(!found(&told));
    told.workload(workload("cart-1", 10));
    assert!(told.0.target_at(address("10.1.0.10:8080")).is_none());
}

#[test]
fn the_connections_to_a_service_are_told_once_it_is_bound_elsewhere_or_gone() {
    type End = fn(&mut Told);
    let ends: [End; 3] = [
        |told| told.service_behind(Some(waypoint_at(2))),
        |told| told.service_behind(None),
        |told| told.removed(ADDRESS_TYPE, &format!("shop/{HOST}")),
    ];
    for end in ends {
        let mut told = Told::of_cart();
        let Some(Target::Service(view, _)) = told.0.target_named(HOST, 80) else { panic!() };
        let binding = view.binding().unwrap();
        // Whatever else happens, it is the same.
        told.workload(workload("cart-2", 11));
        told.service();
        assert!(!binding.is_over());
        end(&mut told);
        assert!(binding.is_over());
        told.service();
        assert!(!told.view().binding().unwrap().is_over(), "it is another one");
    }
}
