use super::*;
use crate::proto::workload::gateway_address::Destination;

fn error<'de, T: Deserialize<'de> + std::fmt::Debug>(yaml: &'de str) -> String {
    serde_saphyr::from_str::<T>(yaml).unwrap_err().to_string()
}

#[test]
fn enumerations_are_written_by_their_exact_names() {
    let port: workload::Port = serde_saphyr::from_str("{app_protocol: HTTP11}").unwrap();
    assert_eq!(port.app_protocol(), workload::AppProtocol::Http11);
    let message = error::<workload::Workload>("{tunnel_protocol: hbone}");
    let expected = "unknown value \"hbone\": use one of NONE, HBONE, LEGACY_ISTIO_MTLS";
    assert!(message.contains(expected), "{message}");
    let balancing: workload::LoadBalancing =
        serde_saphyr::from_str("{routing_preference: [REGION, NODE], mode: FAILOVER}").unwrap();
    assert_eq!(balancing.routing_preference, [1, 4]);
}

#[test]
fn every_enumeration_is_numbered_from_zero_without_gaps() {
    assert_eq!(names::<workload::load_balancing::Scope>().split(", ").count(), 7);
    assert_eq!(names::<workload::AppProtocol>().split(", ").count(), 6);
    assert_eq!(names::<security::Scope>(), "GLOBAL, NAMESPACE, WORKLOAD_SELECTOR");
}

#[test]
fn addresses_are_written_as_text() {
    let workload: workload::Workload =
        serde_saphyr::from_str("{addresses: [10.0.0.1, 'fd00::1']}").unwrap();
    assert_eq!(workload.addresses[0].as_ref(), [10, 0, 0, 1]);
    assert_eq!(workload.addresses[1].len(), 16);
    let message = error::<workload::Workload>("{addresses: [10.0.0.0/8]}");
    assert!(message.contains("\"10.0.0.0/8\" is not an address: write one such as"), "{message}");
}

#[test]
fn network_addresses_have_an_optional_network_and_prefix() {
    for (text, network, bytes, length) in [
        ("10.0.0.1", "", 4, 32),
        ("10.0.0.0/8", "", 4, 8),
        ("net-1/10.0.0.1", "net-1", 4, 32),
        ("net-1/10.0.0.0/8", "net-1", 4, 8),
        ("net-1/fd00::/8", "net-1", 16, 8),
        ("/fd00::1", "", 16, 128),
    ] {
        let yaml = format!("\"{text}\"");
        let address: workload::NetworkAddress = serde_saphyr::from_str(&yaml).unwrap();
        assert_eq!(address.network, network, "{text}");
        assert_eq!(address.address.len(), bytes, "{text}");
        assert_eq!(address.length, Some(length), "{text}");
    }
    for text in ["", "10.0.0.1/33", "net-1", "net-1/", "net-1/x", "a/b/10.0.0.1"] {
        let message = error::<workload::NetworkAddress>(&format!("\"{text}\""));
        assert!(message.contains("is not a network address"), "{message}");
    }
}

#[test]
fn string_matches_have_exactly_one_kind() {
    use security::{StringMatch, string_match::MatchType};

    let parse = |yaml| serde_saphyr::from_str::<StringMatch>(yaml);
    let kind = |yaml| parse(yaml).unwrap().match_type;
    assert_eq!(kind("{exact: a}"), Some(MatchType::Exact("a".into())));
    assert_eq!(kind("{prefix: ''}"), Some(MatchType::Prefix(String::new())));
    assert_eq!(kind("{suffix: a}"), Some(MatchType::Suffix("a".into())));
    assert_eq!(kind("{presence: {}}"), Some(MatchType::Presence(())));
    for bad in ["{exact: a, prefix: b}", "{presence: {x: 1}}", "{regex: a}", "{}", "[a]", "exact"] {
        assert!(parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn gateways_have_either_a_hostname_or_an_address() {
    let parse = |yaml| serde_saphyr::from_str::<workload::GatewayAddress>(yaml);
    let by_address = parse("{address: net-1/10.0.0.1, hbone_mtls_port: 15008}").unwrap();
    assert!(matches!(by_address.destination, Some(Destination::Address(_))));
    let by_name = parse("{hostname: {namespace: a, hostname: b}}").unwrap();
    assert!(matches!(by_name.destination, Some(Destination::Hostname(_))));
    for bad in ["{}", "{address: 10.0.0.1, hostname: {namespace: a}}", "{port: 1}"] {
        assert!(parse(bad).is_err(), "{bad}");
    }
}
