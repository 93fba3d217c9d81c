//! What the control plane says, as `protoc` reads it by the field tables of the reference.

use std::process::Command;

use anyhow::{Result, ensure};

use crate::{
    plane::Plane,
    protoc::{decode, encode},
    wire::{CERTIFY, Call, DISCOVER},
};

const MESH: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}
---
apiVersion: v1
kind: Node
metadata:
  name: n1
  labels: {topology.kubernetes.io/region: r1, topology.kubernetes.io/zone: z1, topology.istio.io/subzone: s1}
---
apiVersion: v1
kind: Pod
metadata:
  name: cart
  namespace: shop
  labels: {app: cart}
  annotations: {ambient.istio.io/redirection: enabled}
spec: {nodeName: n1, serviceAccountName: cart, containers: []}
status:
  phase: Running
  podIP: 10.0.0.7
  podIPs: [{ip: 10.0.0.7}, {ip: 'fd00::7'}]
  conditions: [{type: Ready, status: 'True'}]
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec:
  clusterIP: 10.96.0.7
  clusterIPs: [10.96.0.7]
  selector: {app: cart}
  trafficDistribution: PreferClose
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: allow, namespace: shop}
spec:
  selector: {matchLabels: {app: cart}}
  action: ALLOW
  rules:
  - from: [{source: {principals: [cluster.local/ns/shop/sa/desk], ipBlocks: [10.0.0.0/8]}}]
    to: [{operation: {ports: ['8080']}}]
";

const WORKLOAD: [&str; 16] = [
    r#"name: "Kubernetes//Pod/shop/cart""#,
    r#"uid: "Kubernetes//Pod/shop/cart""#,
    r#"namespace: "shop""#,
    r#"addresses: "\n\000\000\007""#,
    r#"addresses: "\375\000\000\000\000\000\000\000\000\000\000\000\000\000\000\007""#,
    "tunnel_protocol: HBONE",
    r#"service_account: "cart""#,
    r#"node: "n1""#,
    r#"canonical_name: "cart""#,
    r#"canonical_revision: "latest""#,
    "workload_type: POD",
    r#"workload_name: "cart""#,
    r#"authorization_policies: "shop/allow""#,
    r#"cluster_id: "Kubernetes""#,
    r#"locality { region: "r1" zone: "z1" subzone: "s1" }"#,
    r#"services { key: "shop/cart.shop.svc.cluster.local" value { ports { service_port: 80 target_port: 8080"#,
];

const SERVICE: [&str; 6] = [
    r#"name: "shop/cart.shop.svc.cluster.local""#,
    r#"name: "cart" namespace: "shop" hostname: "cart.shop.svc.cluster.local""#,
    r#"addresses { address: "\n`\000\007" }"#,
    "ports { service_port: 80 target_port: 8080",
    "load_balancing { routing_preference: NETWORK routing_preference: REGION routing_preference: ZONE mode: FAILOVER }",
    r#"aliases: "/10.96.0.7""#,
];

const AUTHORIZATION: [&str; 6] = [
    r#"name: "shop/allow""#,
    r#"name: "allow" namespace: "shop""#,
    "scope: WORKLOAD_SELECTOR",
    r#"principals { exact: "cluster.local/ns/shop/sa/desk" }"#,
    r#"source_ips { address: "\n\000\000\000" length: 8 }"#,
    "destination_ports: 8080",
];

/// Subscribes to everything of a type; returns the first response.
async fn first_response(plane: &Plane, type_url: &str) -> Result<Vec<u8>> {
    let mut call = Call::open(plane, DISCOVER).await?;
    let node = "ztunnel~10.0.0.1~zt.istio-system~istio-system.svc.cluster.local";
    let request = format!("node {{ id: '{node}' }} type_url: '{type_url}'");
    call.send(&encode("discovery.proto", "discovery.DeltaDiscoveryRequest", &request)?, false)
        .await?;
    Ok(call.receive().await?.to_vec())
}

/// Waits for the state to be there: until then the control plane turns clients away.
async fn serving() -> Result<Plane> {
    let plane = Plane::start(MESH).await?;
    plane.wait_ready().await?;
    Ok(plane)
}

/// Returns an error unless `text` has all the `parts`, and nothing that has no name.
fn check(what: &str, text: &str, parts: &[&str]) -> Result<()> {
    for part in parts {
        ensure!(text.contains(part), "{what}: {part} is not in {text}");
    }
    let words: Vec<_> = text.split(' ').collect();
    let is_number = |word: &str| word.parse::<u32>().is_ok();
    let is_unknown = |pair: &[&str]| match pair {
        [number, "{"] => is_number(number),
        [number, _] => number.strip_suffix(':').is_some_and(is_number),
        _ => false,
    };
    ensure!(!words.windows(2).any(is_unknown), "{what}: fields without a name in {text}");
    Ok(())
}

#[tokio::test]
async fn the_resources_of_each_type_are_as_the_field_tables_say() -> Result<()> {
    let plane = serving().await?;
    let prefix = "type.googleapis.com";
    for (type_name, message, parts) in [
        ("istio.workload.Address", "discovery.AddressResponse", [&WORKLOAD[..], &SERVICE].concat()),
        ("istio.workload.Workload", "discovery.WorkloadResponse", WORKLOAD.to_vec()),
        ("istio.security.Authorization", "discovery.AuthorizationResponse", AUTHORIZATION.to_vec()),
    ] {
        let type_url = format!("{prefix}/{type_name}");
        let response = first_response(&plane, &type_url).await?;
        let text = decode("discovery.proto", message, &response)?;
        check(type_name, &text, &parts)?;
        // Of each resource and of the response itself.
        let type_urls = text.matches(&format!("type_url: \"{type_url}\"")).count();
        assert_eq!(type_urls, text.matches("resources { version: ").count() + 1, "{text}");
        check(type_name, &text, &["nonce: \""])?;
    }
    Ok(())
}

#[tokio::test]
async fn a_certificate_is_issued_to_who_asks_as_the_field_tables_say() -> Result<()> {
    let plane = serving().await?;
    let identity = "spiffe://cluster.local/ns/shop/sa/cart";
    let key = plane.dir().join("cart.key");
    let made = Command::new("openssl")
        .args(["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
        .args(["-subj", "/", "-addext", &format!("subjectAltName=critical,URI:{identity}")])
        .arg("-keyout")
        .arg(&key)
        .output()?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let csr = String::from_utf8(made.stdout)?.replace('\n', "\\n");
    let request = format!(
        "csr: \"{csr}\" validity_duration: 3600 metadata {{ fields {{ key: 'ImpersonatedIdentity' \
         value {{ string_value: '{identity}' }} }} }}"
    );
    let request = encode("ca.proto", "istio.v1.auth.IstioCertificateRequest", &request)?;
    let mut call = Call::open(&plane, CERTIFY).await?;
    call.send(&request, true).await?;
    let response = call.receive().await?;
    let text = decode("ca.proto", "istio.v1.auth.IstioCertificateResponse", &response)?;
    check("certificate", &text, &["cert_chain: \"-----BEGIN CERTIFICATE-----"])?;
    assert_eq!(text.matches("cert_chain: ").count(), 2, "the leaf and the root: {text}");
    Ok(())
}
