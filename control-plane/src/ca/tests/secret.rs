use std::sync::Arc;

use fairlead_component::clock::Clock;
use fairlead_kube_api::ApiServer;
use k8s_openapi::ByteString;
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::{sync::watch, time::Instant};

use super::{
    super::{
        authority::{Authority, AuthorityOptions},
        error::CaError,
        secret::CaSecrets,
    },
    pki::{DAY, HOUR, TestCa, TestClock, TestWorkload},
    rotation::{Mesh, step_of},
};
use crate::{cluster::Leadership, telemetry::metrics::Metrics};

struct Replica {
    authority: Arc<Authority>,
    secrets: CaSecrets,
}

// === impl Replica ===

impl Replica {
    async fn start(server: &ApiServer, clock: &TestClock, leads: bool) -> Self {
        let client = Client::try_from(Config::new(server.url().parse().unwrap())).unwrap();
        let until = leads.then(|| Instant::now() + HOUR);
        let leadership = Leadership::new(watch::Sender::new(until).subscribe());
        let secrets = CaSecrets::new(client, "default", leadership);
        let options = AuthorityOptions { max_ttl: DAY, ..AuthorityOptions::default() };
        let metrics = Arc::new(Metrics::new());
        let clock = clock.clone();
        let clock = Clock::new(move || clock.now());
        let authority = Authority::open_secrets(secrets.clone(), options, clock, metrics);
        Self { authority: authority.await.unwrap(), secrets }
    }

    async fn refresh(&self) -> Result<(), CaError> {
        self.authority.refresh_secrets(&self.secrets).await
    }
}

fn secret(name: &str, files: &[(&str, &str)]) -> Value {
    let text = |text: &str| json!(ByteString(text.as_bytes().to_vec()));
    let data = files.iter().map(|(name, content)| ((*name).to_owned(), text(content)));
    json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": { "namespace": "default", "name": name },
        "data": Value::Object(data.collect()),
    })
}

fn plugged_in(signer: &TestCa, chain: &[&TestCa], roots: &[&TestCa]) -> Value {
    let joined = |all: &[&TestCa]| all.iter().map(|ca| ca.certificate.as_str()).collect::<String>();
    secret(
        "cacerts",
        &[
            ("ca-cert.pem", &signer.certificate),
            ("ca-key.pem", &signer.key),
            ("cert-chain.pem", &joined(chain)),
            ("root-cert.pem", &joined(roots)),
        ],
    )
}

#[tokio::test]
async fn replicas_that_start_together_have_one_root_in_the_layout_of_istio() {
    let server = ApiServer::start().await.unwrap();
    let clock = TestClock::new();
    let start = || Replica::start(&server, &clock, false);
    let (a, b, c) = tokio::join!(start(), start(), start());
    assert_eq!(a.authority.bundle().roots(), b.authority.bundle().roots());
    assert_eq!(a.authority.bundle().roots(), c.authority.bundle().roots());
    let stored = server.get(&secret("istio-ca-secret", &[])).unwrap().unwrap();
    assert_eq!(stored["type"], "istio.io/ca-root");
    for file in ["ca-cert.pem", "ca-key.pem", "root-cert.pem"] {
        assert!(stored["data"][file].is_string(), "{file}");
    }
    // One that starts later has it, too.
    let late = start().await;
    assert_eq!(a.authority.bundle().roots(), late.authority.bundle().roots());
}

#[tokio::test]
async fn the_leader_rotates_the_root_and_no_replica_issues_what_others_do_not_trust() {
    let server = ApiServer::start().await.unwrap();
    let clock = TestClock::new();
    let leader = Replica::start(&server, &clock, true).await;
    let other = Replica::start(&server, &clock, false).await;
    let old = leader.authority.bundle().roots().to_vec();
    let mut mesh = Mesh::new(&other.authority, &clock);
    other.secrets.request_rotation().await.unwrap();
    // Only the leader takes steps.
    other.refresh().await.unwrap();
    assert_eq!(step_of(&other.authority), "requested");

    let (mut steps, mut hours) = (vec!["requested"], 0);
    while steps.last() != Some(&"none") {
        hours += 1;
        assert!(hours < 100, "{steps:?}");
        clock.advance(HOUR);
        for replica in [&leader, &other] {
            replica.refresh().await.unwrap();
        }
        let (step, same) = (step_of(&other.authority), step_of(&leader.authority));
        assert_eq!(step, same, "after {hours} h");
        if steps.last() != Some(&step) {
            steps.push(step);
        }
        // Each replica certifies some.
        let replica = if hours % 2 == 0 { &leader } else { &other };
        mesh.hour(&replica.authority, clock.now());
    }
    assert_eq!(steps, ["requested", "spreading", "switched", "none"]);
    // Two lifetimes, what is recorded ahead, and what it takes to spread.
    assert!((48..=56).contains(&hours), "{hours}");
    assert_eq!(leader.authority.bundle().roots(), other.authority.bundle().roots());
    assert_ne!(leader.authority.bundle().roots(), old);
    let restarted = Replica::start(&server, &clock, false).await;
    assert_eq!(restarted.authority.bundle().roots(), leader.authority.bundle().roots());
}

#[tokio::test]
async fn what_another_replica_has_issued_is_waited_for() {
    let server = ApiServer::start().await.unwrap();
    let clock = TestClock::new();
    let leader = Replica::start(&server, &clock, true).await;
    let other = Replica::start(&server, &clock, false).await;
    TestWorkload::certified_by(&other.authority, clock.now());
    other.refresh().await.unwrap();
    other.secrets.request_rotation().await.unwrap();
    leader.refresh().await.unwrap();
    clock.advance(HOUR * 23);
    leader.refresh().await.unwrap();
    assert_eq!(step_of(&leader.authority), "spreading");
}

#[tokio::test]
async fn a_plugged_in_secret_is_preferred_and_its_changes_are_taken_up_in_order() {
    let server = ApiServer::start().await.unwrap();
    let clock = TestClock::new();
    let (root, next) = (TestCa::root("root"), TestCa::root("next"));
    let signer = root.intermediate("signer");
    let next_signer = next.intermediate("signer");
    // There is one made earlier, too.
    Replica::start(&server, &clock, false).await;
    server.apply(&plugged_in(&signer, &[&signer, &root], &[&root])).unwrap();
    let replica = Replica::start(&server, &clock, true).await;
    let bundle = || replica.authority.bundle();
    assert!(bundle().is_plugged_in());
    let mut replaced = replica.authority.replaced();
    TestWorkload::certified_by(&replica.authority, clock.now());
    // The new signer before its root is known to everyone.
    server.apply(&plugged_in(&next_signer, &[&next_signer, &next], &[&root, &next])).unwrap();
    let refused = replica.refresh().await.unwrap_err();
    assert!(matches!(refused, CaError::Premature(_)), "{refused}");
    assert!(!replaced.has_changed().unwrap());
    // In order: both roots, and when everyone has them the signer.
    server.apply(&plugged_in(&signer, &[&signer, &root], &[&root, &next])).unwrap();
    replica.refresh().await.unwrap();
    assert_eq!(bundle().roots().len(), 2);
    assert!(replaced.has_changed().unwrap());
    replaced.mark_unchanged();
    clock.advance(DAY * 2);
    server.apply(&plugged_in(&next_signer, &[&next_signer, &next], &[&root, &next])).unwrap();
    replica.refresh().await.unwrap();
    assert!(replaced.has_changed().unwrap());
    assert!(matches!(replica.secrets.request_rotation().await, Err(CaError::PluggedIn)));
}

#[tokio::test]
async fn a_secret_that_lacks_its_files_is_not_passed_over() {
    let server = ApiServer::start().await.unwrap();
    let clock = TestClock::new();
    let replica = Replica::start(&server, &clock, true).await;
    server.apply(&secret("cacerts", &[("tls.crt", "x")])).unwrap();
    let refused = replica.refresh().await.unwrap_err();
    assert!(refused.to_string().contains("the Secret cacerts lacks it"), "{refused}");
    assert!(!replica.authority.bundle().is_plugged_in());
}
