use super::*;
use crate::proto::security as proto;

const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";
const NO_IDENTITY: &str = "";

/// Each line: a match, the peer's identity, and whether the match holds for a connection from
/// 10.1.2.3 to `[fd00::7]:8080`.
fn check(table: &[(&str, &str, bool)]) {
    for (yaml, identity, expected) in table {
        let wire: proto::Match = serde_saphyr::from_str(yaml).unwrap();
        let conditions = Match::try_from(wire).unwrap();
        let identity = (!identity.is_empty()).then(|| identity.parse().unwrap());
        let flow = Flow {
            source: "10.1.2.3".parse().unwrap(),
            identity: identity.as_ref(),
            destination: "[fd00::7]:8080".parse().unwrap(),
        };
        assert_eq!(conditions.holds(&flow), *expected, "{yaml} for {identity:?}");
    }
}

#[test]
fn namespaces_compare_with_the_peers_or_the_empty_string() {
    check(&[
        ("{namespaces: [{exact: shop}]}", CART, true),
        ("{namespaces: [{exact: sho}]}", CART, false),
        ("{namespaces: [{exact: other}, {exact: shop}]}", CART, true),
        ("{namespaces: [{prefix: sh}]}", CART, true),
        ("{namespaces: [{prefix: ho}]}", CART, false),
        ("{namespaces: [{suffix: op}]}", CART, true),
        ("{namespaces: [{suffix: sh}]}", CART, false),
        ("{namespaces: [{presence: {}}]}", CART, true),
        ("{namespaces: [{exact: shop}]}", NO_IDENTITY, false),
        ("{namespaces: [{exact: ''}]}", NO_IDENTITY, true),
        ("{namespaces: [{prefix: ''}]}", NO_IDENTITY, true),
        ("{namespaces: [{suffix: ''}]}", NO_IDENTITY, true),
        ("{namespaces: [{presence: {}}]}", NO_IDENTITY, false),
        ("{not_namespaces: [{exact: shop}]}", CART, false),
        ("{not_namespaces: [{exact: other}]}", CART, true),
        ("{not_namespaces: [{exact: shop}]}", NO_IDENTITY, true),
        ("{not_namespaces: [{prefix: ''}]}", NO_IDENTITY, false),
        ("{not_namespaces: [{presence: {}}]}", NO_IDENTITY, true),
    ]);
}

#[test]
fn principals_compare_with_the_spiffe_id_without_its_scheme() {
    check(&[
        ("{principals: [{exact: cluster.local/ns/shop/sa/cart}]}", CART, true),
        ("{principals: [{exact: 'spiffe://cluster.local/ns/shop/sa/cart'}]}", CART, false),
        ("{principals: [{exact: cluster.local/ns/shop/sa/car}]}", CART, false),
        ("{principals: [{exact: cluster.local/ns/shop/sa/carts}]}", CART, false),
        ("{principals: [{exact: ''}]}", CART, false),
        ("{principals: [{prefix: ''}]}", CART, true),
        ("{principals: [{prefix: cluster}]}", CART, true),
        ("{principals: [{prefix: cluster.local/n}]}", CART, true),
        ("{principals: [{prefix: cluster.local/ns/shop/sa/}]}", CART, true),
        ("{principals: [{prefix: cluster.local/ns/shop/sa/cart}]}", CART, true),
        ("{principals: [{prefix: cluster.local/ns/shop/sa/cart2}]}", CART, false),
        ("{principals: [{prefix: cluster.local/ns/sa/}]}", CART, false),
        ("{principals: [{prefix: local}]}", CART, false),
        ("{principals: [{suffix: ''}]}", CART, true),
        ("{principals: [{suffix: art}]}", CART, true),
        ("{principals: [{suffix: a/cart}]}", CART, true),
        ("{principals: [{suffix: /ns/shop/sa/cart}]}", CART, true),
        ("{principals: [{suffix: cluster.local/ns/shop/sa/cart}]}", CART, true),
        ("{principals: [{suffix: xcluster.local/ns/shop/sa/cart}]}", CART, false),
        ("{principals: [{suffix: /ns/sa/cart}]}", CART, false),
        ("{principals: [{presence: {}}]}", CART, true),
    ]);
}

#[test]
fn no_principal_matches_an_unauthenticated_peer() {
    check(&[
        ("{principals: [{exact: ''}]}", NO_IDENTITY, false),
        ("{principals: [{prefix: ''}]}", NO_IDENTITY, false),
        ("{principals: [{suffix: ''}]}", NO_IDENTITY, false),
        ("{principals: [{presence: {}}]}", NO_IDENTITY, false),
        ("{not_principals: [{presence: {}}]}", NO_IDENTITY, true),
        ("{not_principals: [{prefix: ''}]}", NO_IDENTITY, true),
        ("{not_principals: [{presence: {}}]}", CART, false),
        ("{not_principals: [{exact: cluster.local/ns/shop/sa/cart}]}", CART, false),
        ("{not_principals: [{exact: cluster.local/ns/shop/sa/other}]}", CART, true),
    ]);
}

#[test]
fn service_accounts_compare_exactly_and_ignore_the_trust_domain() {
    let foreign = "spiffe://elsewhere/ns/shop/sa/cart";
    check(&[
        ("{service_accounts: [{namespace: shop, service_account: cart}]}", CART, true),
        ("{service_accounts: [{namespace: shop, service_account: cart}]}", foreign, true),
        ("{service_accounts: [{namespace: shop, service_account: car}]}", CART, false),
        ("{service_accounts: [{namespace: other, service_account: cart}]}", CART, false),
        ("{service_accounts: [{namespace: shop, service_account: cart}]}", NO_IDENTITY, false),
        ("{not_service_accounts: [{namespace: shop, service_account: cart}]}", CART, false),
        ("{not_service_accounts: [{namespace: shop, service_account: x}]}", CART, true),
        ("{not_service_accounts: [{namespace: shop, service_account: cart}]}", NO_IDENTITY, true),
    ]);
}

#[test]
fn addresses_and_ports_compare_with_the_two_ends_of_the_connection() {
    check(&[
        ("{source_ips: [10.1.2.3]}", CART, true),
        ("{source_ips: [10.1.2.4]}", CART, false),
        ("{source_ips: [10.0.0.0/8]}", CART, true),
        ("{source_ips: [10.9.9.9/8]}", CART, true),
        ("{source_ips: [0.0.0.0/0]}", CART, true),
        ("{source_ips: ['::/0']}", CART, false),
        ("{source_ips: ['::ffff:10.1.2.3']}", CART, true),
        ("{source_ips: ['::ffff:10.0.0.0/104']}", CART, true),
        ("{source_ips: [11.0.0.0/8, 10.1.0.0/16]}", CART, true),
        ("{not_source_ips: [10.0.0.0/8]}", CART, false),
        ("{not_source_ips: [11.0.0.0/8]}", CART, true),
        ("{source_ips: [10.0.0.0/8], not_source_ips: [10.1.0.0/16]}", CART, false),
        ("{source_ips: [10.0.0.0/8], not_source_ips: [10.2.0.0/16]}", CART, true),
        ("{destination_ips: ['fd00::/8']}", CART, true),
        ("{destination_ips: ['fd00::8']}", CART, false),
        ("{destination_ips: [0.0.0.0/0]}", CART, false),
        ("{not_destination_ips: ['fd00::7']}", CART, false),
        ("{destination_ports: [80, 8080]}", CART, true),
        ("{destination_ports: [80]}", CART, false),
        ("{not_destination_ports: [8080]}", CART, false),
        ("{not_destination_ports: [80]}", CART, true),
    ]);
}

#[test]
fn all_conditions_of_a_match_must_hold() {
    check(&[
        ("{namespaces: [{exact: shop}], destination_ports: [8080]}", CART, true),
        ("{namespaces: [{exact: shop}], destination_ports: [80]}", CART, false),
        ("{namespaces: [{exact: x}], destination_ports: [8080]}", CART, false),
        ("{not_principals: [{presence: {}}], destination_ports: [8080]}", CART, false),
        ("{not_principals: [{presence: {}}], destination_ports: [8080]}", NO_IDENTITY, true),
    ]);
}

#[test]
fn mapped_addresses_become_the_ipv4_addresses_they_stand_for() {
    let flow = Flow {
        source: "::ffff:10.1.2.3".parse().unwrap(),
        identity: None,
        destination: "[::ffff:10.9.9.9]:80".parse().unwrap(),
    };
    let canonical = flow.canonical();
    assert_eq!(canonical.source.to_string(), "10.1.2.3");
    assert_eq!(canonical.destination.to_string(), "10.9.9.9:80");
}
