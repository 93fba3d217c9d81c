//! Peers that take as much as they get, and what is left for the others.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::SocketAddr,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use fairlead_lab::{AccessLine, Host as _, Pod, wait_for};
use socket2::{Domain, Protocol, Socket, Type};

use crate::peer::{App, HBONE, Scene, Tunnel, block_on, dial};

/// Where the application listens.
const APP: u16 = 7000;

const SOON: Duration = Duration::from_secs(5);

/// Handshakes that a peer is tried with; it may have a quarter of this.
const MANY: usize = 1_024;

/// Handshakes between looks at the log.
const BATCH: usize = 32;

#[test]
fn a_peer_that_stalls_its_handshakes_leaves_others_theirs() -> Result<()> {
    let scene = Scene::new("stallers")?;
    let _app = App::listen(&scene.pod, APP)?;
    let (mut stalled, mut tried) = (Vec::new(), 0);
    while !scene.proxy.access_log()?.iter().any(|line| is_limit(line, "peer_handshakes")) {
        ensure!(tried < MANY, "{MANY} handshakes and more");
        for _ in 0..BATCH {
            tried += 1;
            // One that is refused may be so before it is told that it was accepted.
            let Ok(mut socket) = dial(&scene.peer, scene.pod.v4(HBONE)) else { continue };
            // The head of a record whose rest never comes; one that is refused takes nothing.
            let _ = socket.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]);
            stalled.push(socket);
        }
    }
    assert_eq!(limit_reached(&scene, "handshakes")?, 0, "nobody waits");
    block_on(async {
        let others = tunnel_of(&scene, &scene.other).await?;
        assert_eq!(others.status(scene.pod.v4(APP)).await?, 200);
        Ok(())
    })?;
    ensure!(limit_reached(&scene, "peer_handshakes")? > 0, "not counted");
    Ok(())
}

#[test]
fn a_peer_has_as_many_tunnels_as_it_may_and_others_have_theirs() -> Result<()> {
    let scene = Scene::with_args("peertunnels", &["--max-peer-tunnels", "3"])?;
    let _app = App::listen(&scene.pod, APP)?;
    let to = [scene.pod.v4(APP), scene.neighbour.v4(APP)];
    let _neighbours = App::listen(&scene.neighbour, APP)?;
    let mut tunnels = block_on(async {
        // Whichever pods of the node they are to.
        let credentials = scene.credentials(&scene.peer)?;
        let neighbour = dial(&scene.peer, scene.neighbour.v4(HBONE))?;
        let tunnels = vec![
            Tunnel::open(neighbour, &credentials).await?,
            scene.tunnel().await?,
            scene.tunnel().await?,
        ];
        assert_eq!(tunnels[0].status(to[1]).await?, 200);
        assert_eq!(tunnels[2].status(to[0]).await?, 200);
        Ok(tunnels)
    })?;
    let line = scene.line_of(refused(&scene.peer, scene.pod.v4(HBONE))?)?;
    assert!(is_limit(&line, "peer_tunnels"), "{line:?}");
    ensure!(limit_reached(&scene, "peer_tunnels")? > 0, "not counted");

    block_on(async {
        let others = tunnel_of(&scene, &scene.other).await?;
        assert_eq!(others.status(to[0]).await?, 200);
        assert_eq!(tunnels[2].status(to[0]).await?, 200, "what was open still is");
        Ok(())
    })?;
    tunnels.remove(0);
    wait_for("room for another tunnel", SOON, || {
        let another = block_on(async { scene.tunnel().await?.status(to[0]).await });
        Ok(another.is_ok().then_some(()))
    })
}

#[test]
fn a_peer_has_as_many_connections_as_it_may_and_others_have_theirs() -> Result<()> {
    let scene = Scene::with_args("peerconns", &["--max-peer-connections", "3"])?;
    let app = App::listen(&scene.pod, APP)?;
    let to = scene.pod.v4(APP);
    let tunnels = block_on(async { Ok([scene.tunnel().await?, scene.tunnel().await?]) })?;
    let (mut open, _accepted) = block_on(async {
        let mut open = vec![tunnels[0].connect(to).await?];
        open.push(tunnels[1].connect(to).await?);
        open.push(tunnels[1].connect(to).await?);
        let accepted = [app.accept().await?, app.accept().await?, app.accept().await?];
        for tunnel in &tunnels {
            assert_eq!(tunnel.status(to).await?, 503);
        }
        let others = tunnel_of(&scene, &scene.other).await?;
        assert_eq!(others.status(to).await?, 200);
        Ok((open, accepted))
    })?;
    ensure!(limit_reached(&scene, "peer_connections")? >= 2, "not counted");
    let lines = scene.proxy.access_log()?;
    assert!(lines.iter().filter(|line| is_limit(line, "peer_connections")).count() >= 2);

    open.pop();
    wait_for("room for another connection", SOON, || {
        let status = block_on(tunnels[0].status(to))?;
        Ok((status == 200).then_some(()))
    })
}

/// Connects from `pod` to what resets the connection; returns the address that it came from.
fn refused(pod: &Pod, to: SocketAddr) -> Result<SocketAddr> {
    pod.netns().enter(|| {
        let mut socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
        // Known before: the reset may come before it is known that the connection was accepted.
        socket.bind(&pod.v4(0).into())?;
        socket.set_read_timeout(Some(SOON))?;
        let own = socket.local_addr()?.as_socket().context("no address")?;
        let end = socket.connect(&to.into()).and_then(|()| socket.read(&mut [0]));
        assert_eq!(end.map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
        Ok(own)
    })
}

/// Opens a tunnel from `pod` in its own name.
async fn tunnel_of(scene: &Scene, pod: &Pod) -> Result<Tunnel> {
    Tunnel::open(dial(pod, scene.pod.v4(HBONE))?, &scene.credentials(pod)?).await
}

fn is_limit(line: &AccessLine, limit: &str) -> bool {
    line.is("reason", "limit_reached")
        && line.get("error").is_some_and(|error| error.contains(limit))
}

fn limit_reached(scene: &Scene, limit: &str) -> Result<usize> {
    let reached = scene.proxy.metrics()?.sum("fairlead_limit_reached_total", &[("limit", limit)]);
    Ok(reached.to_string().parse()?)
}
