//! How many tunnels a pair of pods has.

use std::{
    io::{Read as _, Write as _},
    net::Shutdown,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use fairlead_lab::{PodSpec, wait_for};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::peer::{App, HBONE, Manner, Scene, TunnelServer, block_on_for, dial, echo};

const SOON: Duration = Duration::from_secs(5);

/// Streams that the proxy opens in one tunnel.
const PER_TUNNEL: usize = 100;

/// Where the application listens.
const APP: u16 = 7000;

/// Handshakes of a pod at once.
const HANDSHAKES: usize = 1_024;

/// Peers that together may have so many: each may have a quarter.
const SILENT_PEERS: usize = 4;

/// Time that a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Connections at once, one more than ten tunnels carry.
const MANY: usize = 10 * PER_TUNNEL + 1;

#[test]
fn a_thousand_and_one_streams_share_as_few_tunnels_as_carry_them() -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let scene = Scene::new("many")?;
    let server = start(&scene)?;
    let mut sockets = Vec::new();
    for _ in 0..MANY {
        let mut socket = dial(&scene.pod, scene.peer.v4(8080))?;
        echo(&mut socket)?;
        sockets.push(socket);
    }
    assert_eq!(server.tunnels(), MANY.div_ceil(PER_TUNNEL));
    let mut streams = vec![0; server.tunnels()];
    for served in server.requests() {
        streams[served.tunnel] += 1;
    }
    assert!(streams.iter().all(|n| *n <= PER_TUNNEL), "{streams:?}");
    // None starves.
    for socket in sockets.iter_mut().rev() {
        echo(socket)?;
    }
    // Those that end make room, in any tunnel.
    sockets.drain(..PER_TUNNEL);
    for _ in 0..PER_TUNNEL {
        let mut socket = dial(&scene.pod, scene.peer.v4(8080))?;
        echo(&mut socket)?;
        sockets.push(socket);
    }
    assert_eq!(server.tunnels(), MANY.div_ceil(PER_TUNNEL));
    Ok(())
}

#[test]
fn a_peer_that_allows_fewer_streams_gets_more_tunnels_and_no_connection_waits() -> Result<()> {
    /// Streams that the peer allows in a tunnel.
    const FEW: u32 = 10;
    const CONNECTIONS: usize = 51;
    let scene = Scene::new("few")?;
    let credentials = scene.credentials(&scene.peer)?;
    let server = TunnelServer::start_with(Manner::Few(FEW), &scene.peer, &scene.ca, &credentials)?;
    // At once, before the peer has said what it allows.
    let sockets = (0..CONNECTIONS).map(|_| dial(&scene.pod, scene.peer.v4(8080)));
    let mut sockets = sockets.collect::<Result<Vec<_>>>()?;
    for socket in &mut sockets {
        echo(socket)?;
    }
    for socket in sockets.iter_mut().rev() {
        echo(socket)?;
    }
    let mut streams = vec![0; server.tunnels()];
    for served in server.requests() {
        streams[served.tunnel] += 1;
    }
    assert_eq!(streams.iter().sum::<u32>(), u32::try_from(CONNECTIONS)?);
    assert!(streams.iter().all(|n| *n <= FEW), "{streams:?}");
    Ok(())
}

#[test]
fn a_bulk_transfer_gets_company_in_another_tunnel() -> Result<()> {
    let scene = Scene::new("bulk")?;
    let server = start(&scene)?;
    let mut bulk = dial(&scene.pod, scene.peer.v4(8080))?;
    echo(&mut bulk)?;
    let (mut upload, mut download) = (bulk.try_clone()?, bulk.try_clone()?);
    thread::scope(|scope| {
        let writer = scope.spawn(move || while upload.write_all(&[0; 1 << 13]).is_ok() {});
        let reader = scope.spawn(move || {
            let mut buffer = vec![0; 1 << 20];
            while matches!(download.read(&mut buffer), Ok(1..)) {}
        });
        let tunnel = wait_for("a second tunnel", SOON, || {
            echo(&mut dial(&scene.pod, scene.peer.v4(8080))?)?;
            let requests = server.requests();
            let last = requests.last().context("no request")?;
            Ok((last.tunnel != 0).then_some(last.tunnel))
        });
        bulk.shutdown(Shutdown::Both)?;
        for thread in [writer, reader] {
            ensure!(thread.join().is_ok(), "a thread of the transfer panicked");
        }
        assert_eq!((tunnel?, server.tunnels()), (1, 2));
        Ok(())
    })
}

#[test]
fn peers_that_say_nothing_keep_others_waiting_no_longer_than_a_handshake_may_take() -> Result<()> {
    let scene = Scene::new("silent")?;
    let app = App::listen(&scene.pod, APP)?;
    // No peer alone takes all that there are.
    let mut silent = Vec::new();
    for number in 1..=SILENT_PEERS {
        let peer = scene.lab.node(2).add_pod(PodSpec::new(&format!("silent{number}")))?;
        for _ in 0..HANDSHAKES / SILENT_PEERS {
            silent.push(dial(&peer, scene.pod.v4(HBONE))?);
        }
    }
    block_on_for(HANDSHAKE + SOON, async {
        let tunnel = scene.tunnel().await?;
        let _stream = tunnel.connect(scene.pod.v4(APP)).await?;
        app.accept().await.map(drop)
    })?;
    drop(silent);
    let metrics = scene.proxy.metrics()?;
    let waits = metrics.sum("fairlead_limit_reached_total", &[("limit", "handshakes")]);
    ensure!(waits >= 1.0, "the limit is not counted");
    Ok(())
}

fn start(scene: &Scene) -> Result<TunnelServer> {
    TunnelServer::start(&scene.peer, &scene.ca, &scene.credentials(&scene.peer)?)
}
