use std::time::Duration;

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

#[tokio::test]
async fn a_proxy_takes_over_once_it_knows_the_mesh_and_not_before() {
    let (identities, _dir) = fixtures::identities();
    let node = fixtures::node();
    let readiness = Readiness::default();
    let (configured, is_configured) = watch::channel(false);
    let (endpoints, _given) = mpsc::channel(1);
    let (drain, _drains) = mpsc::channel(1);
    let parts = Parts {
        configured: is_configured,
        workers: Arc::new(Workers::start(&node, 1).unwrap()),
        node,
        identities,
        trust_domain: TrustDomain::default(),
        recorded: readiness.gate("pods on record"),
        endpoints,
        drain,
    };
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
