//! Several replicas of the program in one cluster.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result};
use fairlead_kube_api::{ApiServer, Faults};
use k8s_openapi::ByteString;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, SerialNumber,
};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::{
    client::{Client, certify},
    cluster::{CART, POD, cluster, roots, start},
    plane::{Plane, eventually},
};

/// What the tests' replicas are started with.
const LEASE: Duration = Duration::from_secs(3);

fn object(kind: &str, namespace: &str, name: &str) -> Value {
    let api_version = if kind == "Lease" { "coordination.k8s.io/v1" } else { "v1" };
    json!({
        "apiVersion": api_version, "kind": kind,
        "metadata": { "namespace": namespace, "name": name },
    })
}

fn holder(server: &ApiServer) -> Option<String> {
    let lease = server.get(&object("Lease", "istio-system", "fairlead-control")).unwrap()?;
    let holder = lease["spec"]["holderIdentity"].as_str()?;
    (!holder.is_empty()).then(|| holder.to_owned())
}

async fn wait_holder(server: &ApiServer, not: Option<&str>) -> Result<String> {
    eventually("somebody leads", async || holder(server).filter(|holder| Some(&**holder) != not))
        .await
}

/// Starts two replicas; returns the leading one first, and the holder of the lease.
pub(crate) async fn two(server: &ApiServer) -> Result<(Plane, Plane, String)> {
    let leader = start(server, "good").await?;
    let first = wait_holder(server, None).await?;
    let other = start(server, "good").await?;
    Ok((leader, other, first))
}

#[tokio::test]
async fn all_replicas_serve_with_one_root_and_one_of_them_leads() -> Result<()> {
    let server = cluster().await?;
    let (leader, other, first) = two(&server).await?;
    let mut chains = Vec::new();
    for plane in [&leader, &other] {
        Client::connect(plane)?.until(|known| known.contains_key(POD)).await?;
        chains.push(certify(plane, CART).await??);
    }
    assert_eq!(chains[0].last(), chains[1].last(), "the roots");
    assert_eq!(holder(&server), Some(first));
    Ok(())
}

#[tokio::test]
async fn when_the_leader_is_killed_another_one_leads_after_the_lease_and_not_before() -> Result<()>
{
    let server = cluster().await?;
    let (mut leader, _other, first) = two(&server).await?;
    leader.kill().await?;
    let killed = Instant::now();
    let second = wait_holder(&server, Some(&first)).await?;
    let taken = killed.elapsed();
    // The last renewal is at most a pause between two of them old, and so is the last look.
    assert!(taken > LEASE / 2 && taken < LEASE * 4, "{taken:?}");
    assert_ne!(first, second);
    // The new leader does its work.
    server.apply(&json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "late" },
    }))?;
    roots(&server, "late").await.map(drop)
}

#[tokio::test]
async fn a_leader_that_ends_in_order_is_followed_at_once() -> Result<()> {
    let server = cluster().await?;
    let (leader, _other, first) = two(&server).await?;
    leader.terminate()?;
    let asked = Instant::now();
    wait_holder(&server, Some(&first)).await?;
    assert!(asked.elapsed() < LEASE, "{:?}", asked.elapsed());
    Ok(())
}

#[tokio::test]
async fn a_slow_server_changes_no_leader() -> Result<()> {
    let server = cluster().await?;
    let (_leader, _other, first) = two(&server).await?;
    // A third of the lease's time, as 10 s are of the 30 s by default.
    server.set_faults(Faults { delay: LEASE / 3, ..Faults::default() });
    let until = Instant::now() + LEASE * 3;
    let mut holders = BTreeSet::new();
    while Instant::now() < until {
        holders.insert(holder(&server));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(holders, BTreeSet::from([Some(first)]));
    Ok(())
}

#[tokio::test]
async fn the_roots_are_in_every_namespace_whatever_happens_to_them() -> Result<()> {
    let server = cluster().await?;
    let _plane = start(&server, "good").await?;
    let expected = roots(&server, "default").await?;
    for namespace in ["kube-system", "istio-system"] {
        assert_eq!(roots(&server, namespace).await?, expected);
    }
    let map = object("ConfigMap", "default", "istio-ca-root-cert");
    server.delete(&map)?;
    assert_eq!(roots(&server, "default").await?, expected);
    let mut spoilt = map;
    spoilt["data"] = json!({ "root-cert.pem": "spoilt" });
    server.apply(&spoilt)?;
    eventually("the config map is repaired", async || {
        (roots(&server, "default").await.ok()? == expected).then_some(())
    })
    .await
}

#[tokio::test]
async fn a_rotation_that_is_asked_for_reaches_every_namespace() -> Result<()> {
    let server = cluster().await?;
    let plane = start(&server, "good").await?;
    let old = roots(&server, "kube-system").await?;
    let asked = Command::new(env!("CARGO_BIN_EXE_fairlead-control"))
        .args(["rotate-root", "--kubernetes"])
        .env("KUBECONFIG", plane.dir.path().join("kubeconfig"))
        .output()
        .await?;
    assert!(asked.status.success(), "{asked:?}");
    let both = eventually("both roots are published", async || {
        let roots = roots(&server, "kube-system").await.ok()?;
        (roots.matches("BEGIN CERTIFICATE").count() == 2).then_some(roots)
    })
    .await?;
    assert!(both.starts_with(old.trim_end()), "the old one signs and is trusted still");
    let again = Command::new(env!("CARGO_BIN_EXE_fairlead-control"))
        .args(["rotate-root", "--kubernetes"])
        .env("KUBECONFIG", plane.dir.path().join("kubeconfig"))
        .output()
        .await?;
    assert!(!again.status.success());
    assert!(String::from_utf8(again.stderr)?.contains("under way already"));
    Ok(())
}

#[tokio::test]
async fn a_plugged_in_list_of_revoked_certificates_is_in_every_namespace() -> Result<()> {
    let server = cluster().await?;
    let (certificate, key, list) = authority_with_list()?;
    let mut secret = object("Secret", "istio-system", "cacerts");
    for (file, text) in [
        ("ca-cert.pem", &certificate),
        ("ca-key.pem", &key),
        ("cert-chain.pem", &certificate),
        ("root-cert.pem", &certificate),
        ("ca-crl.pem", &list),
    ] {
        secret["data"][file] = json!(ByteString(text.as_bytes().to_vec()));
    }
    server.apply(&secret)?;
    let _plane = start(&server, "good").await?;
    assert_eq!(roots(&server, "default").await?, certificate);
    let map = object("ConfigMap", "default", "istio-ca-crl");
    eventually("the list is published", async || {
        (server.get(&map).unwrap()?["data"]["ca-crl.pem"] == *list).then_some(())
    })
    .await?;
    secret["data"].as_object_mut().context("no data")?.remove("ca-crl.pem");
    server.apply(&secret)?;
    eventually("the list is withdrawn", async || server.get(&map).unwrap().is_none().then_some(()))
        .await
}

/// Returns a root, its key and a list of certificates that it has revoked.
fn authority_with_list() -> Result<(String, String, String)> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let (certificate, key_pem) = (params.self_signed(&key)?.pem(), key.serialize_pem());
    let now = SystemTime::now();
    let list = CertificateRevocationListParams {
        this_update: now.into(),
        next_update: (now + Duration::from_hours(1)).into(),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    Ok((certificate, key_pem, list.signed_by(&Issuer::new(params, key))?.pem()?))
}
