use mesh_api::{config::LocalConfig, workload::Network};

use super::*;

const MESH: &str = r#"
workloads:
- uid: db-0
  name: db-0
  namespace: shop
  addresses: ["10.2.0.2", "fd00:2::2"]
  services: {shop/db.shop.svc.cluster.local: {}, shop/late.shop.svc.cluster.local: {}}
- uid: db-1
  name: db-1
  namespace: shop
  addresses: ["10.2.0.3"]
  status: UNHEALTHY
  services: {shop/db.shop.svc.cluster.local: {}, shop/late.shop.svc.cluster.local: {}}
services:
- {name: web, namespace: shop, hostname: web.shop.svc.cluster.local, addresses: ["10.96.0.1", "fd00:96::1"]}
- {name: web, namespace: far, hostname: web.far.svc.cluster.local, addresses: ["10.96.0.2"]}
- {name: v6, namespace: shop, hostname: v6.shop.svc.cluster.local, addresses: ["10.96.0.3", "fd00:96::3"], ip_families: IPV6_ONLY}
- {name: db, namespace: shop, hostname: db.shop.svc.cluster.local}
- {name: late, namespace: shop, hostname: late.shop.svc.cluster.local, load_balancing: {health_policy: ALLOW_ALL}}
- {name: none, namespace: shop, hostname: none.shop.svc.cluster.local}
- {name: ext, namespace: shop, hostname: api.example.com, addresses: ["240.240.0.1"]}
- {name: wild, namespace: shop, hostname: "*.example.com", addresses: ["240.240.0.2"]}
- {name: deep, namespace: shop, hostname: "*.deep.example.com", addresses: ["240.240.0.3"]}
- {name: bare, namespace: shop, hostname: bare.example.org}
- {name: upper, namespace: shop, hostname: Upper.Example.ORG, addresses: ["240.240.0.4"]}
- {name: range, namespace: shop, hostname: range.example.org, addresses: ["10.97.0.0/16"]}
- {name: twin, namespace: one, hostname: twin.example.org, addresses: ["240.240.1.1"]}
- {name: twin, namespace: two, hostname: twin.example.org, addresses: ["240.240.1.2"]}
- {name: twin, namespace: shop, hostname: twin.example.org, addresses: ["240.240.1.3"]}
- {name: canon, namespace: one, hostname: canon.example.org, addresses: ["240.240.1.4"]}
- {name: canon, namespace: far, hostname: canon.example.org, addresses: ["240.240.1.5"], canonical: true}
- {name: secret, namespace: far, hostname: secret.example.org, addresses: ["240.240.1.6"], visibility: NAMESPACE}
"#;

fn mesh() -> MeshState {
    MeshState::new(LocalConfig::parse(MESH).unwrap(), Network::default())
}

fn naming(preferred: Option<&str>) -> Naming {
    Naming {
        domain: "cluster.local".into(),
        preferred: preferred.map(|namespace| namespace.parse().unwrap()),
    }
}

/// Returns the addresses in order, and what the name is an alias of.
fn resolve_as(state: &MeshState, name: &str, namespace: &str, naming: &Naming) -> Option<String> {
    let named = state.resolve(name, &namespace.parse().unwrap(), naming)?;
    let mut addresses: Vec<_> = named.addresses().iter().map(ToString::to_string).collect();
    addresses.sort_unstable();
    let alias = named.alias_of.map(|name| format!("{name}: "));
    Some(format!("{}{}", alias.unwrap_or_default(), addresses.join(" ")))
}

fn resolve(name: &str) -> Option<String> {
    resolve_as(&mesh(), name, "shop", &naming(None))
}

#[test]
fn names_are_completed_as_a_client_in_the_cluster_means_them() {
    let web = "10.96.0.1 fd00:96::1";
    for (name, expected) in [
        ("web", web),
        ("web.shop", web),
        ("web.shop.svc", web),
        ("web.shop.svc.cluster", ""),
        ("web.shop.svc.cluster.local", web),
        ("web.far", "10.96.0.2"),
        ("web.far.svc.cluster.local", "10.96.0.2"),
        // A resolver adds its search domains.
        ("web.shop.shop.svc.cluster.local", "web.shop: 10.96.0.1 fd00:96::1"),
        (
            "web.shop.svc.cluster.local.shop.svc.cluster.local",
            "web.shop.svc.cluster.local: 10.96.0.1 fd00:96::1",
        ),
        ("web.shop.svc.svc.cluster.local", "web.shop.svc: 10.96.0.1 fd00:96::1"),
        ("api.example.com.cluster.local", "api.example.com: 240.240.0.1"),
        ("api.example.com.shop.svc.cluster.local", "api.example.com: 240.240.0.1"),
        // Those of another namespace are none of this client's.
        ("api.example.com.far.svc.cluster.local", ""),
        ("web.nowhere", ""),
        ("nothing", ""),
        ("", ""),
        (".", ""),
        ("..svc.cluster.local", ""),
    ] {
        let expected = Some(expected).filter(|text| !text.is_empty());
        assert_eq!(resolve(name).as_deref(), expected, "{name}");
    }
}

#[test]
fn wildcards_stand_for_any_number_of_labels_and_the_narrowest_counts() {
    for (name, expected) in [
        ("api.example.com", Some("240.240.0.1")),
        ("other.example.com", Some("240.240.0.2")),
        ("a.b.example.com", Some("240.240.0.2")),
        ("a.deep.example.com", Some("240.240.0.3")),
        ("deep.example.com", Some("240.240.0.2")),
        ("example.com", None),
        ("other.example.com.shop.svc.cluster.local", Some("240.240.0.2")),
        ("*.example.com", Some("240.240.0.2")),
    ] {
        assert_eq!(resolve(name).as_deref(), expected, "{name}");
    }
}

#[test]
fn a_service_has_its_own_addresses_or_those_of_its_endpoints() {
    for (name, expected) in [
        ("v6", Some("fd00:96::3")),
        ("db", Some("10.2.0.2 fd00:2::2")),
        ("late", Some("10.2.0.2 10.2.0.3 fd00:2::2")),
        // It exists, and has none.
        ("none", Some("")),
        ("range.example.org", Some("")),
        // Of a host outside, without an address, name servers know more.
        ("bare.example.org", None),
        ("upper.example.org", Some("240.240.0.4")),
    ] {
        assert_eq!(resolve(name).as_deref(), expected, "{name}");
    }
}

#[test]
fn of_several_services_of_one_name_there_is_a_best_for_each_client() {
    let state = mesh();
    for (name, namespace, preferred, expected) in [
        ("twin.example.org", "shop", None, Some("240.240.1.3")),
        ("twin.example.org", "two", None, Some("240.240.1.2")),
        ("twin.example.org", "far", None, Some("240.240.1.1")),
        ("twin.example.org", "far", Some("two"), Some("240.240.1.2")),
        ("twin.example.org", "one", Some("two"), Some("240.240.1.1")),
        ("canon.example.org", "shop", None, Some("240.240.1.5")),
        ("canon.example.org", "shop", Some("one"), Some("240.240.1.5")),
        ("canon.example.org", "one", None, Some("240.240.1.4")),
        ("secret.example.org", "shop", None, None),
        ("secret.example.org", "far", None, Some("240.240.1.6")),
    ] {
        let found = resolve_as(&state, name, namespace, &naming(preferred));
        assert_eq!(found.as_deref(), expected, "{name} for {namespace}, {preferred:?}");
    }
}

#[test]
fn names_follow_the_changes_of_services() {
    let mut state = mesh();
    let key = |state: &MeshState, name: &str| state.keys_named(name)[0].clone();
    let removed = key(&state, "web.shop.svc.cluster.local");
    let service = state.service(&removed).unwrap().service.clone();
    state.remove_service(&removed);
    assert_eq!(resolve_as(&state, "web", "shop", &naming(None)), None);
    for _ in 0..2 {
        state.insert_service(Service::clone(&service));
        assert_eq!(state.keys_named("web.shop.svc.cluster.local").len(), 1);
    }
    assert!(resolve_as(&state, "web", "shop", &naming(None)).is_some());
    let upper = key(&state, "upper.example.org");
    state.remove_service(&upper);
    assert!(state.keys_named("upper.example.org").is_empty());
}
