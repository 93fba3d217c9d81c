//! The program with a directory of configuration.

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use anyhow::Result;
use mesh_api::xds_client::MeshResource;
use tempfile::TempDir;

use crate::{client::Client, plane::Plane};

const MESH: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}
---
apiVersion: v1
kind: Pod
metadata: {name: cart, namespace: shop, labels: {app: cart}}
spec: {nodeName: n1, serviceAccountName: cart, containers: []}
status: {phase: Running, podIP: 10.0.0.7, podIPs: [{ip: 10.0.0.7}]}
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {clusterIP: 10.96.0.7, clusterIPs: [10.96.0.7], selector: {app: cart}, ports: [{port: 80, targetPort: 8080}]}
";

const POLICY: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny, namespace: shop}
spec: {action: DENY, rules: [{}]}
";

const POD: &str = "Kubernetes//Pod/shop/cart";
const SERVICE: &str = "shop/cart.shop.svc.cluster.local";

/// Starts with the mesh in `mesh/shop.yaml`, and a client's token.
async fn start() -> Result<Plane> {
    let dir = TempDir::new()?;
    fs::create_dir(dir.path().join("mesh"))?;
    fs::write(dir.path().join("mesh/shop.yaml"), MESH)?;
    fs::write(dir.path().join("tokens"), "a-secret-of-sixteen n1 istio-system/ztunnel\n")?;
    fs::write(dir.path().join("token"), "a-secret-of-sixteen")?;
    // The authority's files lie beside those of clients: one file of roots serves both.
    Plane::start(dir, |command, dir| {
        command.arg("--config-dir").arg(dir.join("mesh"));
        command.arg("--ca-dir").arg(dir).arg("--token-file").arg(dir.join("tokens"));
    })
    .await
}

#[tokio::test]
async fn what_is_written_to_the_directory_reaches_a_client() -> Result<()> {
    let plane = start().await?;
    let mut client = Client::connect(&plane)?;
    client.until(|known| known.contains_key(POD) && known.contains_key(SERVICE)).await?;
    let MeshResource::Workload(workload) = &client.known[POD] else { panic!("{:?}", client.known) };
    assert_eq!(workload.identity.to_string(), "spiffe://cluster.local/ns/shop/sa/cart");
    assert!(workload.services.keys().any(|service| service.to_string() == SERVICE));

    let written = Instant::now();
    plane.write("mesh/policy.yaml", POLICY)?;
    client.until(|known| known.contains_key("shop/deny")).await?;
    // Not a benchmark: only that nothing waits for a timer of seconds.
    assert!(written.elapsed() < Duration::from_secs(5), "{:?}", written.elapsed());

    fs::remove_file(plane.dir.path().join("mesh/policy.yaml"))?;
    client.until(|known| !known.contains_key("shop/deny")).await?;
    plane.write("mesh/shop.yaml", &MESH.replace("10.0.0.7", "10.0.0.8"))?;
    let moved = |known: &BTreeMap<String, MeshResource>| match known.get(POD) {
        Some(MeshResource::Workload(workload)) => {
            workload.addresses.iter().any(|address| address.to_string() == "10.0.0.8")
        }
        _ => false,
    };
    client.until(moved).await
}

#[tokio::test]
async fn a_file_that_is_broken_is_named_and_its_last_good_version_stays() -> Result<()> {
    let mut plane = start().await?;
    let mut client = Client::connect(&plane)?;
    plane.write("mesh/policy.yaml", POLICY)?;
    client.until(|known| known.contains_key("shop/deny")).await?;
    plane.write("mesh/policy.yaml", &POLICY.replace("DENY", "MAYBE"))?;
    let refused = plane.line("spec.action").await?;
    assert!(refused["error"].as_str().unwrap().starts_with("policy.yaml: "), "{refused}");
    // What comes after it is applied, and the broken file is as it was.
    plane.write("mesh/more.yaml", &POLICY.replace("name: deny", "name: more"))?;
    client.until(|known| known.contains_key("shop/more")).await?;
    assert!(client.known.contains_key("shop/deny"));
    Ok(())
}

#[tokio::test]
async fn hostile_files_are_refused_and_nothing_else_suffers() -> Result<()> {
    let mut plane = start().await?;
    let mut client = Client::connect(&plane)?;
    plane.write("mesh/policy.yaml", POLICY)?;
    client.until(|known| known.contains_key("shop/deny")).await?;
    let sources = |list: &str| {
        POLICY.replace("{}]", &format!("{{from: [{{source: {{ipBlocks: {list}}}}}]}}]"))
    };
    let entry = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: twice, namespace: shop}
spec: {hosts: [a.example, a.example], resolution: NONE, ports: [{number: 80, name: http, protocol: HTTP}]}
";
    let large = sources(&format!("[{}]", vec!["10.0.0.0/8"; 100_000].join(",")));
    assert!(large.len() > 1 << 20);
    // Each names the one before it nine times.
    let aliases = (1..9).fold("a0: &a0 [x]\n".to_owned(), |text, n| {
        let before = vec![format!("*a{}", n - 1); 9].join(",");
        format!("{text}a{n}: &a{n} [{before}]\n")
    });
    for (n, (hostile, reason)) in [
        (large.as_str(), "entries: use at most"),
        (&sources(&format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000))), "policy.yaml"),
        (&format!("{aliases}{POLICY}"), "policy.yaml"),
        (&sources("&a [*a]"), "policy.yaml"),
        (&format!("{POLICY}---{entry}"), "listed twice"),
        ("\0\u{feff}{[", "policy.yaml"),
    ]
    .into_iter()
    .enumerate()
    {
        plane.write("mesh/policy.yaml", hostile)?;
        let refused = plane.line("file not applied").await?;
        assert!(refused["error"].as_str().unwrap().contains(reason), "{refused}");
        let name = format!("more-{n}");
        let more = POLICY.replace("name: deny", &format!("name: {name}"));
        plane.write(&format!("mesh/{name}.yaml"), &more)?;
        client.until(|known| known.contains_key(&format!("shop/{name}"))).await?;
        assert!(client.known.contains_key("shop/deny"), "the last good version stays");
    }
    Ok(())
}

#[tokio::test]
async fn a_client_without_a_valid_token_learns_nothing() -> Result<()> {
    let plane = start().await?;
    plane.write("token", "wrong")?;
    let mut client = Client::connect(&plane)?;
    let refused = client.until(|known| !known.is_empty()).await.unwrap_err();
    assert!(refused.to_string().contains("Unauthenticated"), "{refused}");
    Ok(())
}
