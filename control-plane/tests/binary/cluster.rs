//! The program with a cluster: a small API server in place of one.

use anyhow::{Context as _, Result};
use fairlead_kube_api::{ApiServer, Faults, TokenUser};
use serde_json::{Value, json};
use tempfile::TempDir;
use tonic::Code;

use crate::{
    client::{Client, certify},
    plane::{Plane, eventually},
};

pub(crate) const POD: &str = "Kubernetes//Pod/default/cart";
pub(crate) const CART: &str = "spiffe://cluster.local/ns/default/sa/cart";

/// A cluster that knows the token of a node proxy on n1, and has a pod there.
pub(crate) async fn cluster() -> Result<ApiServer> {
    let server = ApiServer::start().await?;
    server.apply(&json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "istio-system" },
    }))?;
    server.apply(&pod("cart", "10.0.0.7"))?;
    server.add_token("good", node_proxy("n1"));
    Ok(server)
}

/// Starts a control plane of a cluster, with a client that has the given token.
pub(crate) async fn start(server: &ApiServer, token: &str) -> Result<Plane> {
    let dir = TempDir::new()?;
    std::fs::write(dir.path().join("kubeconfig"), server.kubeconfig())?;
    std::fs::write(dir.path().join("token"), token)?;
    let plane = Plane::start(dir, |command, dir| {
        command.args(["--kubernetes", "--lease-duration", "3s"]);
        command.env("KUBECONFIG", dir.join("kubeconfig"));
    })
    .await?;
    plane.write("root-cert.pem", &roots(server, "default").await?)?;
    Ok(plane)
}

/// Returns the roots that pods of a namespace can mount, once they are there.
pub(crate) async fn roots(server: &ApiServer, namespace: &str) -> Result<String> {
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "namespace": namespace, "name": "istio-ca-root-cert" },
    });
    eventually("the roots are published", async || {
        let map = server.get(&map).unwrap()?;
        Some(map["data"]["root-cert.pem"].as_str()?.to_owned())
    })
    .await
}

fn node_proxy(node: &str) -> TokenUser {
    TokenUser {
        namespace: "istio-system".to_owned(),
        service_account: "ztunnel".to_owned(),
        pod: Some(("zt-1".to_owned(), "u1".to_owned())),
        node: Some(node.to_owned()),
        audiences: vec!["istio-ca".to_owned()],
    }
}

pub(crate) fn pod(name: &str, ip: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "namespace": "default", "name": name },
        "spec": { "nodeName": "n1", "serviceAccountName": name, "containers": [] },
        "status": { "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }] },
    })
}

fn reviews(server: &ApiServer) -> usize {
    server.requests().iter().filter(|line| line.contains("/tokenreviews")).count()
}

#[tokio::test]
async fn a_token_that_the_api_server_knows_gives_state_and_certificates() -> Result<()> {
    let server = cluster().await?;
    let plane = start(&server, "good").await?;
    let mut client = Client::connect(&plane)?;
    client.until(|known| known.contains_key(POD)).await?;
    server.apply(&pod("next", "10.0.0.8"))?;
    client.until(|known| known.contains_key("Kubernetes//Pod/default/next")).await?;
    let chain = certify(&plane, CART).await??;
    assert_eq!(chain.len(), 2);
    let elsewhere = "spiffe://cluster.local/ns/default/sa/elsewhere";
    assert_eq!(certify(&plane, elsewhere).await?.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(reviews(&server), 1, "one question for all requests with a token");
    Ok(())
}

#[tokio::test]
async fn a_token_that_is_unknown_or_meant_for_others_gives_nothing() -> Result<()> {
    let server = cluster().await?;
    let audiences = vec!["https://kubernetes.default.svc".to_owned()];
    server.add_token("for-the-api", TokenUser { audiences, ..node_proxy("n1") });
    let plane = start(&server, "wrong").await?;
    for token in ["wrong", "for-the-api"] {
        plane.write("token", token)?;
        let refused = Client::connect(&plane)?.until(|known| !known.is_empty()).await.unwrap_err();
        assert!(refused.to_string().contains("Unauthenticated"), "{token}: {refused}");
        assert_eq!(certify(&plane, CART).await?.unwrap_err().code(), Code::Unauthenticated);
    }
    // Known from now on: that it was not is not remembered.
    server.add_token("wrong", node_proxy("n1"));
    plane.write("token", "wrong")?;
    certify(&plane, CART).await??;
    Ok(())
}

#[tokio::test]
async fn while_the_api_server_does_not_review_nobody_new_is_let_in() -> Result<()> {
    let server = cluster().await?;
    let plane = start(&server, "good").await?;
    let mut client = Client::connect(&plane)?;
    client.until(|known| known.contains_key(POD)).await?;
    server.add_token("another", node_proxy("n1"));
    plane.write("token", "another")?;
    server.set_faults(Faults { refuse: 1000, ..Faults::default() });
    assert_eq!(certify(&plane, CART).await?.unwrap_err().code(), Code::Unavailable);
    // Whose token is known is served meanwhile.
    plane.write("token", "good")?;
    certify(&plane, CART).await??;
    server.set_faults(Faults::default());
    plane.write("token", "another")?;
    eventually("the next question is answered", async || {
        certify(&plane, CART).await.ok().and_then(Result::ok)
    })
    .await
    .map(drop)
    .context("after the refusals")
}
