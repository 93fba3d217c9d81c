//! The source of objects against an API server that misbehaves.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, Result};
use fairlead_control::{
    mesh::Event,
    object::ObjectKind,
    source::kubernetes::{Batch, follow},
};
use fairlead_kube_api::{ApiServer, Faults};
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

/// Longer than all pauses between attempts.
const SOON: Duration = Duration::from_mins(1);

/// What the source has said so far, as a set of names.
struct Seen {
    batches: mpsc::Receiver<Batch>,
    pods: BTreeSet<String>,
    refused: Vec<String>,
    _following: JoinHandle<()>,
}

// === impl Seen ===

impl Seen {
    fn of(server: &ApiServer) -> Result<Self> {
        let client = Client::try_from(Config::new(server.url().parse()?))?;
        let (send, batches) = mpsc::channel(16);
        let following = tokio::spawn(follow(client, send));
        let (pods, refused) = (BTreeSet::new(), Vec::new());
        Ok(Self { batches, pods, refused, _following: following })
    }

    async fn next(&mut self) -> Result<Batch> {
        let batch = timeout(SOON, self.batches.recv()).await?.context("no more batches")?;
        self.refused.extend(batch.refused.iter().map(ToString::to_string));
        for event in &batch.events {
            match event {
                Event::Applied(object) if object.kind() == ObjectKind::Pod => {
                    self.pods.insert(object.key().name.to_string());
                }
                Event::Deleted(key) if key.kind == ObjectKind::Pod => {
                    self.pods.remove(&key.name.to_string());
                }
                Event::Relisted(ObjectKind::Pod, pods) => {
                    self.pods = pods.iter().map(|pod| pod.key().name.to_string()).collect();
                }
                Event::Applied(_) | Event::Deleted(_) | Event::Relisted(..) => {}
            }
        }
        Ok(batch)
    }

    async fn until_pods(&mut self, expected: &[&str]) -> Result<()> {
        let expected: BTreeSet<String> = expected.iter().map(|&name| name.to_owned()).collect();
        while self.pods != expected {
            let seen = format!("{:?} in place of {expected:?}", self.pods);
            self.next().await.context(seen)?;
        }
        Ok(())
    }
}

fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "namespace": "default", "name": name },
        "spec": { "nodeName": "n1", "containers": [] },
        "status": { "phase": "Running", "podIP": "10.0.0.1" },
    })
}

#[tokio::test]
async fn the_first_batch_has_everything_and_changes_follow() -> Result<()> {
    let server = ApiServer::start().await?;
    for name in ["a", "b"] {
        server.apply(&pod(name))?;
    }
    let mut seen = Seen::of(&server)?;
    let first = seen.next().await?;
    let kinds = first.events.iter().filter_map(|event| match event {
        Event::Relisted(kind, _) => Some(*kind),
        Event::Applied(_) | Event::Deleted(_) => None,
    });
    assert_eq!(kinds.collect::<BTreeSet<_>>(), BTreeSet::from(ObjectKind::ALL));
    seen.until_pods(&["default/a", "default/b"]).await?;
    server.apply(&pod("c"))?;
    server.delete(&pod("a"))?;
    seen.until_pods(&["default/b", "default/c"]).await
}

/// Returns the names of the secrets that a batch is about.
fn secrets(batch: &Batch) -> Vec<String> {
    let of_event = |event: &Event| match event {
        Event::Relisted(ObjectKind::Secret, secrets) => {
            secrets.iter().map(|secret| secret.key().name.to_string()).collect()
        }
        Event::Applied(object) if object.kind() == ObjectKind::Secret => {
            vec![object.key().name.to_string()]
        }
        Event::Applied(_) | Event::Deleted(_) | Event::Relisted(..) => Vec::new(),
    };
    batch.events.iter().flat_map(of_event).collect()
}

fn secret(name: &str, secret_type: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": { "namespace": "default", "name": name },
        "type": secret_type,
        "data": { "ca.crt": "cm9vdA==" },
    })
}

#[tokio::test]
async fn secrets_for_something_else_are_not_asked_for() -> Result<()> {
    let server = ApiServer::start().await?;
    for (name, secret_type) in [
        ("generic", "Opaque"),
        ("pair", "kubernetes.io/tls"),
        ("release", "helm.sh/release.v1"),
        ("token", "kubernetes.io/service-account-token"),
    ] {
        server.apply(&secret(name, secret_type))?;
    }
    let mut seen = Seen::of(&server)?;
    let mut found = secrets(&seen.next().await?);
    found.sort();
    assert_eq!(found, ["default/generic", "default/pair"]);
    Ok(())
}

#[tokio::test]
async fn everything_else_is_followed_without_the_permission_to_list_secrets() -> Result<()> {
    let server = ApiServer::start().await?;
    server.set_faults(Faults { forbidden: Some("/api/v1/secrets"), ..Faults::default() });
    server.apply(&pod("a"))?;
    server.apply(&secret("pair", "kubernetes.io/tls"))?;
    let mut seen = Seen::of(&server)?;
    seen.until_pods(&["default/a"]).await?;
    // It is given later.
    server.set_faults(Faults::default());
    while secrets(&seen.next().await?).is_empty() {}
    Ok(())
}

#[tokio::test]
async fn nothing_is_lost_to_broken_watches_forgotten_history_and_refusals() -> Result<()> {
    let server = ApiServer::start().await?;
    server.apply(&pod("a"))?;
    let mut seen = Seen::of(&server)?;
    seen.until_pods(&["default/a"]).await?;
    // While no watch is open objects come and go, and the server forgets how.
    server.set_faults(Faults { refuse: 20, ..Faults::default() });
    server.drop_watches();
    server.apply(&pod("b"))?;
    server.delete(&pod("a"))?;
    server.compact();
    seen.until_pods(&["default/b"]).await?;
    // Each watch is cut off after an event.
    let faults =
        Faults { watch_events: Some(1), delay: Duration::from_millis(20), ..Faults::default() };
    server.set_faults(faults);
    server.drop_watches();
    for name in ["c", "d"] {
        server.apply(&pod(name))?;
    }
    seen.until_pods(&["default/b", "default/c", "default/d"]).await
}

#[tokio::test]
async fn kinds_that_are_not_installed_are_waited_for_by_nobody() -> Result<()> {
    let server = ApiServer::start().await?;
    server.apply(&pod("a"))?;
    let missing_group = Some("security.istio.io");
    server.set_faults(Faults { missing_group, ..Faults::default() });
    let mut seen = Seen::of(&server)?;
    seen.until_pods(&["default/a"]).await
}

#[tokio::test]
async fn an_object_that_cannot_be_used_is_named_and_nothing_else_suffers() -> Result<()> {
    let server = ApiServer::start().await?;
    let mut seen = Seen::of(&server)?;
    seen.next().await?;
    server.apply(&json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": { "namespace": "default", "name": "odd" },
        "spec": { "action": "MAYBE" },
    }))?;
    while seen.refused.is_empty() {
        seen.next().await?;
    }
    let [refused] = &*seen.refused else { panic!("{:?}", seen.refused) };
    assert!(refused.starts_with("AuthorizationPolicy default/odd: spec.action"), "{refused}");
    server.apply(&pod("a"))?;
    seen.until_pods(&["default/a"]).await
}

#[tokio::test]
async fn only_metadata_is_asked_of_what_is_only_looked_at_for_labels() -> Result<()> {
    let server = ApiServer::start().await?;
    let mut seen = Seen::of(&server)?;
    let first = seen.next().await?;
    let namespaces = first.events.iter().find_map(|event| match event {
        Event::Relisted(ObjectKind::Namespace, namespaces) => Some(namespaces.len()),
        Event::Relisted(..) | Event::Applied(_) | Event::Deleted(_) => None,
    });
    assert_eq!(namespaces, Some(2));
    let requests = server.requests();
    let metadata: Vec<_> = requests.iter().filter(|line| line.ends_with(" Metadata")).collect();
    let listed = |plural: &str| metadata.iter().any(|line| line.contains(plural));
    assert!(listed("/namespaces?") && listed("/nodes?") && listed("/serviceaccounts?"));
    assert!(!listed("/pods?"), "{metadata:?}");
    Ok(())
}
