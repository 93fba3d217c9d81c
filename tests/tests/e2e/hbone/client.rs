//! The proxy as a client: what a server that is not our own sees.

use std::{
    io::Read as _,
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use fairlead_lab::wait_for;

use crate::peer::{FAREWELL, Manner, Scene, Served, TunnelServer, VIP, dial, echo};

const SOON: Duration = Duration::from_secs(5);

/// Connections that share a tunnel; fewer than a tunnel carries.
const SHARING: usize = 50;

/// What describes the enrolled pod, in the order of ambient's grammar.
const BAGGAGE: &str = "k8s.cluster.name=c1,k8s.namespace.name=shop,k8s.deployment.name=shopfront,\
    service.name=front,service.version=v2,cloud.region=r1,cloud.availability_zone=z1";

#[test]
fn a_connection_to_a_pod_is_asked_for_in_ambients_words() -> Result<()> {
    let scene = Scene::new("connect")?;
    let server = start_server(&scene)?;
    for target in [scene.peer.v4(8080), scene.peer.v6(8080)] {
        let socket = open(&scene, target)?;
        let connect = last(&server)?;
        assert_head(&connect, target)?;
        assert_eq!(connect.client.ip(), socket.local_addr()?.ip());
        let forwarded = format!("for=\"{}\"", socket.local_addr()?);
        assert_eq!(header(&connect, "forwarded")?, forwarded);
    }
    Ok(())
}

#[test]
fn a_connection_to_a_service_names_the_service() -> Result<()> {
    let scene = Scene::new("service")?;
    let servers = [&scene.peer, &scene.other].map(|pod| {
        let server = TunnelServer::start(pod, &scene.ca, &scene.credentials(pod)?)?;
        Ok::<_, anyhow::Error>((pod, server))
    });
    let mut traces = Vec::new();
    for server in servers {
        let (pod, server) = server?;
        let socket = wait_for("a connection to each endpoint", SOON, || {
            let socket = open(&scene, SocketAddr::from(VIP))?;
            Ok((!server.requests().is_empty()).then_some(socket))
        })?;
        let connect = last(&server)?;
        assert_head(&connect, pod.v4(8080))?;
        let client = socket.local_addr()?;
        let expected = format!("for=\"{client}\";host=web.shop.svc.cluster.local");
        assert_eq!(header(&connect, "forwarded")?, expected);
        traces.push(header(&connect, "traceparent")?);
    }
    assert_ne!(traces[0], traces[1], "a trace is of one connection");
    Ok(())
}

#[test]
fn the_connections_of_a_pair_of_pods_share_a_tunnel() -> Result<()> {
    let scene = Scene::new("pool")?;
    let server = start_server(&scene)?;
    let sockets = (0..SHARING).map(|_| open(&scene, scene.peer.v4(8080)));
    let sockets = sockets.collect::<Result<Vec<_>>>()?;
    assert_eq!((server.tunnels(), server.requests().len()), (1, SHARING));
    // Those that ended make room, and the tunnel outlives them.
    drop(sockets);
    open(&scene, scene.peer.v4(8080))?;
    assert_eq!(server.tunnels(), 1);
    Ok(())
}

#[test]
fn pods_do_not_share_tunnels() -> Result<()> {
    let scene = Scene::new("own-tunnels")?;
    let server = start_server(&scene)?;
    for pod in [&scene.pod, &scene.neighbour] {
        echo(&mut dial(pod, scene.peer.v4(8080))?)?;
    }
    assert_eq!(server.tunnels(), 2);
    let clients: Vec<_> = server.requests().iter().map(|connect| connect.client.ip()).collect();
    assert_eq!(clients, [scene.pod.v4(0).ip(), scene.neighbour.v4(0).ip()]);
    Ok(())
}

#[test]
fn after_a_goaway_old_streams_finish_and_new_ones_get_another_tunnel() -> Result<()> {
    let scene = Scene::new("goaway")?;
    let server = start_server(&scene)?;
    let target = scene.peer.v4(8080);
    let mut old = open(&scene, target)?;
    server.leave(0)?;
    wait_for("a second tunnel", SOON, || {
        open(&scene, target)?;
        Ok((server.tunnels() == 2).then_some(()))
    })?;
    assert_eq!(last(&server)?.tunnel, 1);
    for _ in 0..3 {
        echo(&mut old)?;
    }
    old.shutdown(std::net::Shutdown::Write)?;
    assert_eq!(old.read(&mut [0])?, 0, "an end, as before");
    open(&scene, target)?;
    assert_eq!(server.tunnels(), 2);
    Ok(())
}

#[test]
fn what_a_server_said_before_it_wants_no_more_arrives() -> Result<()> {
    let scene = Scene::new("no-more")?;
    let credentials = scene.credentials(&scene.peer)?;
    let _server = TunnelServer::start_with(Manner::Leave, &scene.peer, &scene.ca, &credentials)?;
    for _ in 0..SHARING {
        let mut socket = dial(&scene.pod, scene.peer.v4(8080))?;
        let mut said = Vec::new();
        socket.read_to_end(&mut said)?;
        assert_eq!(said, FAREWELL);
    }
    Ok(())
}

fn start_server(scene: &Scene) -> Result<TunnelServer> {
    TunnelServer::start(&scene.peer, &scene.ca, &scene.credentials(&scene.peer)?)
}

/// Opens a connection from the pod and uses it once.
fn open(scene: &Scene, target: SocketAddr) -> Result<TcpStream> {
    let mut socket = dial(&scene.pod, target)?;
    echo(&mut socket)?;
    Ok(socket)
}

fn last(server: &TunnelServer) -> Result<Served> {
    server.requests().pop().context("no request")
}

/// Checks all that every CONNECT has in common.
fn assert_head(connect: &Served, authority: SocketAddr) -> Result<()> {
    let request = &connect.request;
    assert_eq!(request.method(), http::Method::CONNECT);
    let uri = request.uri();
    assert_eq!(uri.authority().map(http::uri::Authority::as_str), Some(&*authority.to_string()));
    assert!(uri.scheme().is_none() && uri.path_and_query().is_none(), "{uri:?}");
    assert_eq!(header(connect, "baggage")?, BAGGAGE);

    let trace = header(connect, "traceparent")?;
    let parts: Vec<_> = trace.split('-').collect();
    let lengths: Vec<_> = parts.iter().map(|part| part.len()).collect();
    assert_eq!(lengths, [2, 32, 16, 2], "{trace}");
    assert_eq!((parts[0], parts[3]), ("00", "00"), "{trace}");
    let hex = |part: &&str| part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    assert!(parts.iter().all(hex), "{trace}");

    let mut names: Vec<_> = request.headers().keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["baggage", "forwarded", "traceparent"]);
    Ok(())
}

fn header(connect: &Served, name: &str) -> Result<String> {
    let mut values = connect.request.headers().get_all(name).iter();
    let value = values.next().with_context(|| format!("no {name}"))?.to_str()?.to_owned();
    ensure!(values.next().is_none(), "more than one {name}");
    Ok(value)
}
