//! What a pod's tunnel may be asked for, and how it answers.

use std::{future::pending, net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use fairlead_lab::{MeshConfig, Pod, Policy, PolicyAction, ServiceEntry, wait_for};
use http::{Method, Request};
use serde_json::json;
use tokio::io::AsyncRead;

use crate::peer::{
    App, DENIED_ADDRESS_PORT, Frame, HBONE, INTRUDER, Listener, Scene, VIP, block_on, connect_head,
    read_frame, write_frame,
};

/// Where the application listens.
const APP: u16 = 7000;

const SOON: Duration = Duration::from_secs(5);

/// The first byte of a header block whose status is 200 (RFC 7541, appendix A).
const STATUS_200: u8 = 0x88;

#[test]
fn a_tunnel_leads_to_its_own_pod_only() -> Result<()> {
    let scene = Scene::new("ssrf")?;
    let app = App::listen(&scene.pod, APP)?;
    let neighbour = App::listen(&scene.neighbour, APP)?;
    let at = |address: &str| Ok::<_, anyhow::Error>(SocketAddr::new(address.parse()?, APP));
    let node = scene.lab.node(1);
    let targets = [
        at("127.0.0.1")?,
        at("::1")?,
        at("0.0.0.0")?,
        at("::")?,
        at("169.254.169.254")?,
        at("fe80::1")?,
        at("::ffff:127.0.0.1")?,
        SocketAddr::new(node.ipv4().into(), 15020),
        SocketAddr::new(node.ipv6().into(), 15020),
        scene.neighbour.v4(APP),
        scene.neighbour.v6(APP),
        scene.peer.v4(APP),
        scene.pod.v6(APP),
        SocketAddr::from(VIP),
    ];
    block_on(async {
        let tunnel = scene.tunnel().await?;
        for target in targets {
            assert_eq!(tunnel.status(target).await?, 400, "{target}");
            let target = target.ip().to_canonical().to_string();
            let line = scene.proxy.wait_for_access(|line| {
                line.get("dst.hbone_addr").is_some_and(|address| address.contains(&target))
            })?;
            assert!(line.is("reason", "destination_not_allowed"), "{line:?}");
        }
        assert_eq!(tunnel.status(scene.pod.v4(APP)).await?, 200);
        Ok(())
    })?;
    assert!(!app.is_untouched());
    assert!(neighbour.is_untouched());
    Ok(())
}

#[test]
fn each_refusal_has_its_status_and_its_reason() -> Result<()> {
    let scene = Scene::new("status")?;
    let app = App::listen(&scene.pod, APP)?;
    let reserved = App::listen(&scene.pod, DENIED_ADDRESS_PORT)?;
    let intruder = scene.ca.workload(INTRUDER)?;
    block_on(async {
        let (good, denied) = (scene.tunnel().await?, scene.tunnel_as(&intruder).await?);
        for (tunnel, port, status, reason) in [
            (&good, 15001, 503, "illegal_port"),
            (&good, 15006, 503, "illegal_port"),
            (&good, HBONE, 503, "illegal_port"),
            (&good, 7001, 503, "connect_refused"),
            (&good, DENIED_ADDRESS_PORT, 401, "denied_by_policy"),
            (&denied, APP, 401, "denied_by_policy"),
        ] {
            let target = scene.pod.v4(port).to_string();
            assert_eq!(tunnel.status(&target).await?, status, "{target}");
            let client = tunnel.local().to_string();
            let line = scene.proxy.wait_for_access(|line| {
                // Left out where it is the tunnel's own address.
                let asked = line.get("dst.hbone_addr").or_else(|| line.get("dst.addr"));
                asked.is_some_and(|asked| asked == target) && line.is("src.addr", &client)
            })?;
            assert!(line.is("reason", reason), "{line:?}");
        }
        let get = Request::builder().method(Method::GET).uri("http://10.1.0.2:7000/").body(())?;
        let (answer, _send) = good.request(get).await?;
        assert_eq!(answer.status(), 400);
        assert!(answer.headers().get("baggage").is_none());
        scene.proxy.wait_for_access(|line| line.is("reason", "bad_request"))?;
        Ok(())
    })?;
    let line = scene.proxy.wait_for_access(|line| line.is("src.identity", INTRUDER))?;
    assert!(line.is("policy", "shop/no-intruder"), "{line:?}");
    assert!(app.is_untouched() && reserved.is_untouched());
    Ok(())
}

#[test]
fn a_forged_forwarded_header_changes_no_decision_and_no_address() -> Result<()> {
    let scene = Scene::new("forged")?;
    let app = App::listen(&scene.pod, APP)?;
    let own = scene.peer.ipv4();
    block_on(async {
        let tunnel = scene.tunnel().await?;
        // Only 10.9.9.9 may go there.
        for forged in ["for=10.9.9.9", "for=\"10.9.9.9:4242\"", "for=\"[::ffff:10.9.9.9]:1\""] {
            let reserved = scene.pod.v4(DENIED_ADDRESS_PORT);
            let refused = tunnel.connect_forwarded(reserved, forged).await.err();
            let refused = refused.context("accepted")?.to_string();
            assert!(refused.contains("401"), "{refused}");

            let _stream = tunnel.connect_forwarded(scene.pod.v4(APP), forged).await?;
            assert_eq!(app.accept().await?.1.ip(), own, "{forged}");
        }
        // The client's own port is the one thing that may be said, for the tunnel's own address.
        let honest = format!("for=\"{own}:4242\"");
        let _stream = tunnel.connect_forwarded(scene.pod.v4(APP), &honest).await?;
        assert_eq!(app.accept().await?.1, SocketAddr::from((own, 4242)));
        Ok(())
    })
}

#[test]
fn the_answer_describes_the_destination() -> Result<()> {
    let scene = Scene::new("baggage")?;
    let app = App::listen(&scene.pod, APP)?;
    block_on(async {
        let tunnel = scene.tunnel().await?;
        let stream = tunnel.connect(scene.pod.v4(APP)).await?;
        app.accept().await?;
        assert_eq!(
            stream.headers.get("baggage").context("no baggage")?,
            "k8s.cluster.name=c1,k8s.namespace.name=shop,k8s.deployment.name=shopfront,\
             service.name=front,service.version=v2,cloud.region=r1,cloud.availability_zone=z1"
        );
        Ok(())
    })
}

#[test]
fn a_malformed_authority_costs_its_stream_and_nothing_else() -> Result<()> {
    let scene = Scene::new("authority")?;
    let app = App::listen(&scene.pod, APP)?;
    check_authorities(&scene.listener(APP)?, scene.pod.v6(APP), || scene.proxy.log())?;
    // What is well formed was served once.
    block_on(async { app.accept().await.map(drop) })?;
    assert!(app.is_untouched());
    Ok(())
}

/// Checks that malformed authorities are not served, `v6` being the target's other address, that they
/// forge no lines of the `log`, and that the target, which must listen, is served after them.
pub(crate) fn check_authorities(
    listener: &Listener,
    v6: SocketAddr,
    log: impl Fn() -> Result<String>,
) -> Result<()> {
    let (ip, port, v6) = (listener.target().ip(), listener.target().port(), v6.ip());
    let huge = vec![b'1'; 1 << 20];
    let authorities = [
        format!("user@{ip}:{port}"),
        format!("user:password@{ip}:{port}"),
        format!("{ip}:0"),
        format!("{ip}:65536"),
        format!("{ip}:99999999999999999999"),
        format!("{ip}:-1"),
        format!("{ip}:{port}x"),
        format!("{ip}: {port}"),
        format!("{ip}:"),
        format!("{ip}"),
        format!("0x0a.1.0.2:{port}"),
        format!("010.1.0.2:{port}"),
        format!("{ip}:{port}/"),
        format!("{ip}:{port}/../x"),
        format!("http://{ip}:{port}"),
        format!("[{v6}%eth0]:{port}"),
        format!("[fe80::1%251]:{port}"),
        format!("{v6}:{port}"),
        format!("[{ip}]:{port}"),
        format!("localhost:{port}"),
        format!("pod.shop.svc.cluster.local:{port}"),
        format!("{ip}:{port}\r\nforwarded: for=10.9.9.9"),
        format!("{ip}:{port}\n{{\"scope\":\"access\"}}"),
        format!("{ip}\0:{port}"),
        String::new(),
    ];
    let authorities = authorities.iter().map(String::as_bytes);
    for authority in authorities.chain([&b"\xff\xfe:80"[..], &[0x80; 300], &huge]) {
        let shown = String::from_utf8_lossy(&authority[..authority.len().min(40)]).into_owned();
        let answer = ask(listener, authority, &[]).with_context(|| shown.clone())?;
        assert_ne!(answer, Answer::Accepted, "{shown}");
    }
    let scope = "\n{\"scope\":\"access\"}";
    assert!(!log()?.contains(scope), "an authority forges lines of the log");
    // The node is up, and what is well formed is served.
    let authority = listener.target().to_string();
    assert_eq!(ask(listener, authority.as_bytes(), &[])?, Answer::Accepted);
    Ok(())
}

#[test]
fn a_pod_is_asked_for_by_the_name_and_port_of_its_service() -> Result<()> {
    let scene = Scene::configured("byname", |config, pod| {
        let service = ServiceEntry::new("shop", "named").port(80, APP);
        config.add_service(service, [pod]);
    })?;
    let _app = App::listen(&scene.pod, APP)?;
    block_on(async {
        let tunnel = scene.tunnel().await?;
        for (authority, status) in [
            ("named.shop.svc.cluster.local:80", 200),
            ("named.shop.svc.cluster.local:81", 503),
            ("web.shop.svc.cluster.local:80", 503),
            ("nobody.shop.svc.cluster.local:80", 503),
        ] {
            assert_eq!(tunnel.status(authority).await?, status, "{authority}");
        }
        Ok(())
    })?;
    let own = scene.pod.v4(APP).to_string();
    let line = scene.proxy.wait_for_access(|line| line.is("dst.hbone_addr", &own))?;
    assert!(line.is("dst.service", "named.shop.svc.cluster.local"), "{line:?}");
    Ok(())
}

#[test]
fn odd_headers_are_ignored() -> Result<()> {
    let scene = Scene::new("headers")?;
    let _app = App::listen(&scene.pod, APP)?;
    check_odd_headers(&scene.listener(APP)?, |limit| {
        let labels = [("limit", limit)];
        Ok(scene.proxy.metrics()?.sum("fairlead_limit_reached_total", &labels))
    })
}

/// Checks that headers which are too long, or no text, are ignored, and counted, as `counted` tells.
/// The target must listen.
pub(crate) fn check_odd_headers(
    listener: &Listener,
    counted: impl Fn(&str) -> Result<f64>,
) -> Result<()> {
    let authority = listener.target().to_string();
    // All of a request's headers have room in 64 KiB.
    let long = vec![b'x'; 60 << 10];
    let forwarded = [b"for=\"", &long[..], b"\""].concat();
    for headers in [
        [("baggage", &long[..]), ("x", b"")],
        [("forwarded", &forwarded), ("x", b"")],
        [("traceparent", &long), ("x", b"")],
        [("baggage", b"k8s.namespace.name=\xff\xfe,=,,\x80"), ("traceparent", b"\xff")],
        [("forwarded", b"for=\"\xff\xfe\";host=\xc0\xaf"), ("baggage", b"=====,,,,=")],
    ] {
        let answer = ask(listener, authority.as_bytes(), &headers)?;
        assert_eq!(answer, Answer::Accepted, "{}", headers[0].0);
    }
    for limit in ["forwarded", "baggage", "traceparent"] {
        let counted = counted(limit)?;
        ensure!((1.5..2.5).contains(&counted), "{limit}: {counted} in place of 2");
    }
    // Past that the request is refused and the tunnel of others is not harmed.
    let longer = vec![b'x'; 70 << 10];
    let answer = ask(listener, authority.as_bytes(), &[("baggage", &longer)])?;
    assert_ne!(answer, Answer::Accepted);
    assert_eq!(ask(listener, authority.as_bytes(), &[])?, Answer::Accepted);
    Ok(())
}

#[test]
fn a_client_of_another_network_is_known_by_its_baggage() -> Result<()> {
    const BAGGAGE: &[u8] = b"k8s.cluster.name=far,k8s.namespace.name=forged,\
        k8s.deployment.name=shopper,service.name=shopper,cloud.region=west";
    let scene = Scene::new("far")?;
    let _app = App::listen(&scene.pod, APP)?;
    let authority = scene.pod.v4(APP).to_string();
    let opened = || {
        let labels = [
            ("reporter", "destination"),
            ("source_workload", "shopper"),
            ("source_workload_namespace", "shop"),
            ("source_canonical_service", "shopper"),
            ("source_cluster", "far"),
            ("source_region", "west"),
        ];
        anyhow::Ok(scene.proxy.metrics()?.sum("istio_tcp_connections_opened_total", &labels))
    };
    // Within the network the address says who it is.
    let answer = ask(&scene.listener(APP)?, authority.as_bytes(), &[("baggage", BAGGAGE)])?;
    assert_eq!(answer, Answer::Accepted);
    assert!(opened()? < 0.5);
    let headers = [("baggage", BAGGAGE), ("x-forwarded-network", b"elsewhere")];
    assert_eq!(ask(&scene.listener(APP)?, authority.as_bytes(), &headers)?, Answer::Accepted);
    wait_for("the client is counted", SOON, || Ok((opened()? > 0.5).then_some(())))
}

#[test]
fn a_policy_by_address_sees_the_tunnels_peer() -> Result<()> {
    let only = |config: &mut MeshConfig, _: &Pod| {
        let rule = json!({ "source_ips": ["10.2.0.0/24"], "destination_ports": [APP] });
        config.policies =
            vec![Policy::new(PolicyAction::Allow, "shop", "from-node-2").rule([rule])];
    };
    let scene = Scene::configured("by-address", only)?;
    let _app = App::listen(&scene.pod, APP)?;
    block_on(async {
        let tunnel = scene.tunnel().await?;
        assert_eq!(tunnel.status(scene.pod.v4(APP)).await?, 200);
        assert_eq!(tunnel.status(scene.pod.v4(APP + 1)).await?, 401);
        let refused = tunnel
            .connect_forwarded(scene.pod.v4(APP), &format!("for=\"{}:1\"", scene.neighbour.ipv4()))
            .await;
        ensure!(refused.is_ok(), "{refused:?}");
        Ok(())
    })
}

/// How a request made by hand was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Accepted,
    Refused,
    /// The stream was reset, or the tunnel closed: a high price, but only the peer itself pays it.
    Reset,
}

/// Asks for any `authority` on a tunnel of its own.
fn ask(listener: &Listener, authority: &[u8], headers: &[(&str, &[u8])]) -> Result<Answer> {
    block_on(async {
        let (mut receive, mut send) = tokio::io::split(listener.bare_tunnel().await?);
        let request = Frame::headers(1, &connect_head(authority, headers));
        let write = async {
            for frame in &request {
                // A server that has refused the request already need not read the rest.
                let _ = write_frame(&mut send, frame).await;
            }
            pending::<()>().await;
        };
        tokio::select! {
            answer = read_answer(&mut receive) => Ok(answer),
            () = write => Ok(Answer::Reset),
        }
    })
}

async fn read_answer(io: &mut (impl AsyncRead + Unpin)) -> Answer {
    while let Ok(frame) = read_frame(io).await {
        match (frame.kind, frame.payload.first()) {
            (Frame::HEADERS, Some(&STATUS_200)) => return Answer::Accepted,
            (Frame::HEADERS, _) => return Answer::Refused,
            (Frame::RST_STREAM | Frame::GOAWAY, _) => break,
            _ => {}
        }
    }
    Answer::Reset
}
