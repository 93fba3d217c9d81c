use std::time::Duration;

use mesh_api::{config::LocalConfig, workload::Network};
use serde_json::json;

use super::*;

const CONFIG: &str = "
workloads:
- uid: c/Pod/shop/cart-0
  name: cart-0
  namespace: shop
  service_account: cart
  addresses: [10.0.0.1]
  tunnel_protocol: HBONE
  services: { shop/cart.shop.svc.cluster.local: { ports: [{ service_port: 80, target_port: 8080 }] } }
  authorization_policies: [shop/deny]
services:
- name: cart
  namespace: shop
  hostname: cart.shop.svc.cluster.local
  addresses: [10.96.0.1]
  ports: [{ service_port: 80, target_port: 8080 }]
policies:
- name: deny
  namespace: shop
  scope: WORKLOAD_SELECTOR
  action: DENY
  rules: [{}]
";

fn state() -> MeshState {
    MeshState::new(LocalConfig::parse(CONFIG).unwrap(), Network::default())
}

#[test]
fn what_is_known_is_shown_under_the_names_of_istios_node_proxy() {
    let state = state();
    let workload = &workloads(&state)[0];
    for (key, value) in [
        ("uid", json!("c/Pod/shop/cart-0")),
        ("name", json!("cart-0")),
        ("namespace", json!("shop")),
        ("serviceAccount", json!("cart")),
        ("workloadIps", json!(["10.0.0.1"])),
        ("protocol", json!("HBONE")),
        ("services", json!(["shop/cart.shop.svc.cluster.local"])),
        ("authorizationPolicies", json!(["shop/deny"])),
        ("status", json!("Healthy")),
        ("waypoint", json!(null)),
        ("outboundTrafficPolicy", json!(null)),
    ] {
        assert_eq!(workload[key], value, "{key}");
    }
    let service = &services(&state)[0];
    assert_eq!(service["hostname"], "cart.shop.svc.cluster.local");
    assert_eq!(service["vips"], json!(["/10.96.0.1/32"]));
    assert_eq!(service["ports"], json!({ "80": 8080 }));
    let policy = &policies(&state)[0];
    assert_eq!(
        [&policy["name"], &policy["scope"], &policy["action"]],
        ["deny", "WorkloadSelector", "Deny"]
    );
}

#[test]
fn conditions_are_written_as_a_policy_does() {
    let conditions = Match {
        namespaces: Condition {
            any_of: vec![StringMatch::Exact("a".into()), StringMatch::Prefix("b".into())],
            none_of: vec![StringMatch::Suffix("c".into()), StringMatch::Presence],
        },
        destination_ports: Condition { any_of: vec![80], none_of: Vec::new() },
        ..Match::default()
    };
    let expected = json!({ "namespaces": ["a", "b*", "!*c", "!*"], "destinationPorts": ["80"] });
    assert_eq!(super::conditions(&conditions), expected);
}

#[test]
fn connections_are_listed_by_pod_and_direction() {
    let live = |pod: &str, reporter| LiveConnection {
        pod: pod.to_owned(),
        reporter,
        source: "10.0.0.1:4000".parse().unwrap(),
        requested: "10.0.0.2:80".parse().unwrap(),
        destination: "10.0.0.2:15008".parse().unwrap(),
        in_tunnel: true,
        source_identity: Some("spiffe://a".to_owned()),
        destination_identity: None,
        request_bytes: 1,
        response_bytes: 2,
        age: Duration::from_millis(3_900),
    };
    let shown = connections(vec![
        live("shop/b", Reporter::Destination),
        live("shop/a", Reporter::Source),
        live("shop/b", Reporter::Destination),
    ]);
    let expected = json!({
        "src": "10.0.0.1:4000", "originalDst": "10.0.0.2:80", "actualDst": "10.0.0.2:15008",
        "protocol": "HBONE", "srcIdentity": "spiffe://a", "dstIdentity": null,
        "bytesSent": 1, "bytesReceived": 2, "ageSeconds": 3
    });
    assert_eq!(shown["shop/a"]["connections"], json!({ "inbound": [], "outbound": [expected] }));
    assert_eq!(shown["shop/b"]["connections"]["inbound"].as_array().unwrap().len(), 2);
    assert_eq!(shown["shop/b"]["connections"]["inbound"][0]["bytesSent"], 2);
}
