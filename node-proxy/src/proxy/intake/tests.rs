use std::time::Duration;

use fairlead_tunnel::testing::identities;
use tempfile::TempDir;
use tokio::time::timeout;

use super::*;
use crate::{link::channel::pair, proxy::fixtures, telemetry::readiness::Readiness};

/// Whatever is waited for comes sooner.
const SOON: Duration = Duration::from_secs(20);

async fn next(capture: &Channel) -> ToCapture {
    let received: Option<Received<ToCapture>> =
        timeout(SOON, capture.receive()).await.unwrap().unwrap();
    received.unwrap().message
}

struct Fixture {
    parts: Parts,
    readiness: Readiness,
    /// Tells the proxy whether it knows the mesh.
    configured: watch::Sender<bool>,
    _ca: TempDir,
}

fn fixture() -> Fixture {
    let (identities, ca) = identities();
    let node = fixtures::node();
    let readiness = Readiness::default();
    let (configured, is_configured) = watch::channel(false);
    let parts = Parts {
        configured: is_configured,
        workers: Arc::new(Workers::start(&node, 1).unwrap()),
        resolver: Arc::new(Resolver::start(&node).unwrap()),
        node,
        identities,
        trust_domain: TrustDomain::default(),
        recorded: readiness.gate("pods on record"),
        endpoints: mpsc::channel(1).0,
        quit: Arc::default(),
        drain: mpsc::channel(1).0,
    };
    Fixture { parts, readiness, configured, _ca: ca }
}

#[tokio::test]
async fn a_proxy_takes_over_once_it_knows_the_mesh_and_not_before() {
    let Fixture { parts, readiness, configured, _ca } = fixture();
    let (ours, theirs) = pair().unwrap();
    let (links, receiver) = mpsc::channel(1);
    links.send(theirs).await.unwrap();
    let intake = tokio::spawn(Intake::run(parts, receiver));
    let capture = Channel::new(ours).unwrap();
    capture.send(&ToProxy::Hello { version: VERSION }, &[]).await.unwrap();
    assert!(matches!(next(&capture).await, ToCapture::Hello { holding: 0, .. }));

    capture.send(&ToProxy::Recorded, &[]).await.unwrap();
    capture.send(&ToProxy::Describe { request: 1 }, &[]).await.unwrap();
    // The answer to what was said last, with none to what was said before.
    assert!(matches!(next(&capture).await, ToCapture::Pods { request: 1, .. }));
    assert_eq!(readiness.pending(), ["pods on record"]);
    configured.send_replace(true);
    assert_eq!(next(&capture).await, ToCapture::Complete);
    assert!(readiness.pending().is_empty());
    drop(links);
    timeout(SOON, intake).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_capture_process_that_dies_before_its_answer_is_not_the_end_of_the_proxy() {
    let Fixture { parts, .. } = fixture();
    let (send, links) = mpsc::channel(1);
    let hello = ToProxy::Hello { version: VERSION };
    let capture = async {
        // Several, since a successor may come before anyone sees that one is gone.
        for _ in 0..16 {
            let (dies, link) = pair().unwrap();
            let dies = Channel::new(dies).unwrap();
            dies.send(&hello, &[]).await.unwrap();
            drop(dies);
            send.send(link).await.unwrap();
        }
        let (successor, link) = pair().unwrap();
        let successor = Channel::new(successor).unwrap();
        successor.send(&hello, &[]).await.unwrap();
        send.send(link).await.unwrap();
        let answer = successor.receive().await.unwrap().unwrap();
        assert!(matches!(answer.message, ToCapture::Hello { holding: 0, .. }));
        drop(send);
    };
    let (served, ()) = tokio::join!(Intake::run(parts, links), capture);
    served.unwrap();
}

#[tokio::test]
async fn capture_is_asked_to_end_the_node_proxy_also_if_it_was_away() {
    let Fixture { parts, readiness: _, configured: _configured, _ca } = fixture();
    let quit = parts.quit.clone();
    quit.notify_one();
    let (ours, theirs) = pair().unwrap();
    let (links, receiver) = mpsc::channel(1);
    links.send(theirs).await.unwrap();
    let _intake = tokio::spawn(Intake::run(parts, receiver));
    let capture = Channel::new(ours).unwrap();
    assert_eq!(next(&capture).await, ToCapture::Quit);
    quit.notify_one();
    assert_eq!(next(&capture).await, ToCapture::Quit);
}
