//! Clients that knock at a pod's HBONE port.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, ensure};
use fairlead_lab::{Host as _, python};
use rcgen::{BasicConstraints, DnType, IsCa, KeyUsagePurpose, SanType};
use rustls::{AlertDescription, ClientConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::peer::{
    App, Ca, Credentials, Frame, HBONE, PREFACE, Scene, Tunnel, block_on, client_config,
    connect_head, dial, handshake, only_alpn, set_names, workload_params, write_frame,
};

/// Where the application listens that no refused client may reach.
const APP: u16 = 7000;

/// How long a certificate has been expired: certificates have whole seconds.
const MOMENT: Duration = Duration::from_secs(2);

/// When a certificate becomes valid; not before the test is over.
const SOON: Duration = Duration::from_mins(1);

/// A client that must be refused.
struct Case {
    what: &'static str,
    config: ClientConfig,
    alert: AlertDescription,
    reason: &'static str,
}

#[test]
fn a_client_without_tls_1_3_gets_an_alert_and_is_counted() -> Result<()> {
    let scene = Scene::new("tls12")?;
    let app = App::listen(&scene.pod, APP)?;
    let before = scene.closed("TLS_FAILURE")?;
    let address = scene.pod.v4(HBONE);
    let arguments = [address.ip().to_string(), HBONE.to_string(), "TLSv1_2".to_owned()];
    let client = scene.peer.run(python("tls_client.py", &arguments))?.checked()?;
    ensure!(client.stdout.contains("ALERT_PROTOCOL_VERSION"), "{}", client.stdout);
    let port = client.stdout.split_whitespace().next().context("no port")?.parse()?;
    let reason = scene.reason_of(scene.peer.v4(port))?;
    assert_eq!(reason, "protocol_version");
    assert_eq!(scene.closed("TLS_FAILURE")?, before + 1);
    assert!(app.is_untouched());
    assert_served(&scene, &app)
}

#[test]
fn a_client_that_is_no_workload_of_the_mesh_reaches_neither_http_2_nor_the_application()
-> Result<()> {
    let scene = Scene::new("strangers")?;
    let app = App::listen(&scene.pod, APP)?;
    let before = scene.closed("TLS_FAILURE")?;
    let cases = strangers(&scene)?;
    let count = cases.len();
    for case in cases {
        let what = case.what;
        let (client, alert) = refused(&scene, case.config).context(what)?;
        assert_eq!(alert, case.alert, "{what}");
        let line = scene.line_of(client).context(what)?;
        assert!(line.is("reason", case.reason), "{what}: {line:?}");
        assert!(line.get("dst.hbone_addr").is_none(), "{what}: {line:?}");
        assert!(line.get("src.identity").is_none(), "{what}: {line:?}");
        assert!(app.is_untouched(), "{what}");
    }
    assert_eq!(scene.closed("TLS_FAILURE")?, before + count);
    assert_served(&scene, &app)
}

#[test]
fn an_identity_that_is_not_written_as_spiffe_asks_is_refused_and_never_normalised() -> Result<()> {
    let scene = Scene::new("spiffe")?;
    let app = App::listen(&scene.pod, APP)?;
    let long = format!("spiffe://cluster.local/ns/shop/sa/{}", "x".repeat(2049));
    for id in [
        "spiffe://cluster.local/ns/../sa/peer",
        "spiffe://cluster.local/ns/shop/../shop/sa/peer",
        "spiffe://cluster.local//ns/shop/sa/peer",
        "spiffe://cluster.local/ns//sa/peer",
        "spiffe://cluster.local/ns/shop/sa/",
        "spiffe://cluster.local/ns/sh%2eop/sa/peer",
        "spiffe://cluster.local/ns/shop/sa/%2e%2e",
        "spiffe://CLUSTER.LOCAL/ns/shop/sa/peer",
        "spiffe://cluster.local:443/ns/shop/sa/peer",
        "spiffe://user@cluster.local/ns/shop/sa/peer",
        "spiffe://cluster.local/ns/shop/sa/peer?x=y",
        "spiffe://cluster.local/ns/shop/sa/peer#x",
        "spiffe://cluster.local",
        "https://cluster.local/ns/shop/sa/peer",
        &long,
    ] {
        let what = &id[..id.len().min(60)];
        let credentials = scene.ca.workload(id)?;
        let (client, _alert) =
            refused(&scene, client_config(Some(&credentials))?).context(what.to_owned())?;
        assert_eq!(scene.reason_of(client)?, "peer_identity", "{what}");
        assert!(app.is_untouched(), "{what}");
    }
    assert_served(&scene, &app)
}

#[test]
fn the_pod_shows_its_own_certificate() -> Result<()> {
    let scene = Scene::new("own-cert")?;
    let credentials = scene.credentials(&scene.peer)?;
    block_on(async {
        for pod in [&scene.pod, &scene.neighbour] {
            let dialled = dial(&scene.peer, pod.v6(HBONE))?;
            let tunnel = Tunnel::open(dialled, &credentials).await?;
            let (certificate, id) = (tunnel.server_certificate(), pod.identity());
            ensure!(certificate.windows(id.len()).any(|window| window == id.as_bytes()), "{id}");
        }
        Ok(())
    })
}

/// The clients that trust.md lists, and how each is told.
fn strangers(scene: &Scene) -> Result<Vec<Case>> {
    use AlertDescription::{
        CertificateExpired, CertificateRequired, CertificateUnknown, NoApplicationProtocol,
        UnknownCA,
    };
    let own = scene.peer.identity();
    let (good, foreign) = (scene.credentials(&scene.peer)?, Ca::foreign()?.workload(&own)?);
    let spoiled = |spoil: fn(&mut rcgen::CertificateParams)| -> Result<Credentials> {
        let mut params = workload_params(&own)?;
        spoil(&mut params);
        scene.ca.issue(&params)
    };
    let mut two_names = workload_params(&own)?;
    set_names(&mut two_names, &[&own, &own])?;
    let dns = SanType::DnsName("peer.shop".try_into()?);
    let mut dns_only = workload_params(&own)?;
    dns_only.subject_alt_names = vec![dns];
    let elsewhere = scene.ca.workload("spiffe://elsewhere/ns/shop/sa/peer")?;
    let no_name = spoiled(|params| {
        params.subject_alt_names.clear();
        params.distinguished_name.push(DnType::CommonName, "spiffe://cluster.local/ns/a/sa/b");
    })?;
    let ca = spoiled(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))?;
    let usage = spoiled(|params| params.key_usages = vec![KeyUsagePurpose::KeyEncipherment])?;
    let expired = spoiled(|params| params.not_after = (SystemTime::now() - MOMENT).into())?;
    let future = spoiled(|params| params.not_before = (SystemTime::now() + SOON).into())?;
    let long_chain = scene.credentials(&scene.peer)?.with_intermediates(100);
    let with = |what, credentials: &Credentials, alert, reason| -> Result<Case> {
        Ok(Case { what, config: client_config(Some(credentials))?, alert, reason })
    };
    let http_1 = only_alpn(client_config(Some(&good))?, "http/1.1");
    Ok(vec![
        Case {
            what: "no certificate",
            config: client_config(None)?,
            alert: CertificateRequired,
            reason: "no_peer_cert",
        },
        Case { what: "HTTP/1.1", config: http_1, alert: NoApplicationProtocol, reason: "alpn" },
        with("another root", &foreign, UnknownCA, "untrusted_peer")?,
        with("another trust domain", &elsewhere, CertificateUnknown, "peer_identity")?,
        with("two names", &scene.ca.issue(&two_names)?, CertificateUnknown, "peer_identity")?,
        with("a DNS name", &scene.ca.issue(&dns_only)?, CertificateUnknown, "peer_identity")?,
        with("no name", &no_name, CertificateUnknown, "peer_identity")?,
        with("a CA", &ca, CertificateUnknown, "untrusted_peer")?,
        with("another key usage", &usage, CertificateUnknown, "peer_identity")?,
        with("expired", &expired, CertificateExpired, "expired_peer")?,
        with("not valid yet", &future, CertificateExpired, "expired_peer")?,
        with("101 certificates", &long_chain, CertificateUnknown, "untrusted_peer")?,
    ])
}

/// Knocks, sends a request at once, and returns the client's address and the alert that answers.
/// Fails if the server says anything else.
fn refused(scene: &Scene, config: ClientConfig) -> Result<(SocketAddr, AlertDescription)> {
    let socket = dial(&scene.peer, scene.pod.v4(HBONE))?;
    let client = socket.local_addr()?;
    let authority = scene.pod.v4(APP).to_string();
    block_on(async {
        let error = match handshake(socket, config).await {
            Err(error) => error,
            // With TLS 1.3 a client may speak before the server has looked at its certificate.
            Ok(mut io) => {
                let request = Frame::headers(1, &connect_head(authority.as_bytes(), &[]));
                // Fails where the alert is there already.
                let _ = io.write_all(PREFACE).await;
                for frame in [Frame::no_settings()].iter().chain(&request) {
                    let _ = write_frame(&mut io, frame).await;
                }
                let mut received = Vec::new();
                let end = io.read_to_end(&mut received).await;
                ensure!(received.is_empty(), "received {received:?}");
                end.err().context("closed without an alert")?.into()
            }
        };
        Ok((client, alert_in(&error)?))
    })
}

fn alert_in(error: &anyhow::Error) -> Result<AlertDescription> {
    let io = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    match io.and_then(|error| error.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::AlertReceived(alert)) => Ok(*alert),
        _ => Err(anyhow::anyhow!("no alert: {error:#}")),
    }
}

/// The proxy is as it was: a workload of the mesh reaches the application.
fn assert_served(scene: &Scene, app: &App) -> Result<()> {
    block_on(async {
        let tunnel = scene.tunnel().await?;
        let mut stream = tunnel.connect(scene.pod.v4(APP)).await?;
        let (mut socket, client) = app.accept().await?;
        assert_eq!(client.ip(), scene.peer.v4(0).ip());
        socket.write_all(b"welcome").await?;
        stream.expect(b"welcome").await
    })
}
