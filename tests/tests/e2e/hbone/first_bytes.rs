//! What an application writes goes ahead of the peer's answer, and never twice.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use fairlead_lab::{Pod, wait_for};

use crate::peer::{Late, Manner, Scene, TunnelServer, VIP, block_on, dial, echo};

const SOON: Duration = Duration::from_secs(5);

/// Connections to a service until each of its two endpoints was surely chosen first.
const MANY: usize = 40;

#[test]
fn first_bytes_and_a_half_close_go_ahead_of_the_answer() -> Result<()> {
    let scene = Scene::new("ahead")?;
    let _server = server(&scene, &scene.peer, Late::Echo)?;
    let target = scene.peer.v4(8080);
    first_stream(&scene, target)?;
    for length in [1, 1000, 1 << 20] {
        let mut socket = dial(&scene.pod, target)?;
        let sent: Vec<u8> = (0..length).map(|n: usize| n.to_le_bytes()[0]).collect();
        let mut writer = socket.try_clone()?;
        let echoed = std::thread::scope(|scope| {
            let write = scope.spawn(|| {
                writer.write_all(&sent)?;
                writer.shutdown(Shutdown::Write)
            });
            let mut echoed = Vec::new();
            socket.read_to_end(&mut echoed)?;
            write.join().map_err(|_| ErrorKind::Other)??;
            std::io::Result::Ok(echoed)
        })?;
        ensure!(echoed == sent, "{} bytes of {length}", echoed.len());
        let client = socket.local_addr()?.to_string();
        let length = length.to_string();
        let line = scene.proxy.wait_for_access(|line| line.is("src.addr", &client))?;
        assert!(line.is("bytes_sent", &length) && line.is("bytes_recv", &length), "{line:?}");
    }
    Ok(())
}

#[test]
fn bytes_that_were_refused_reach_another_endpoint_whole() -> Result<()> {
    let scene = Scene::new("refused-late")?;
    let refusing = server(&scene, &scene.peer, Late::Unavailable)?;
    let echoing = server(&scene, &scene.other, Late::Echo)?;
    first_stream(&scene, scene.peer.v4(8080))?;
    first_stream(&scene, scene.other.v4(8080))?;
    for _ in 0..MANY {
        echo(&mut dial(&scene.pod, SocketAddr::from(VIP))?)?;
    }
    assert_eq!(echoing.requests().len(), 1 + MANY);
    assert_ne!(refusing.requests().len(), 1, "nobody was refused");
    Ok(())
}

#[test]
fn a_stream_that_was_not_processed_moves_to_another_tunnel_with_its_bytes() -> Result<()> {
    let scene = Scene::new("refuse-stream")?;
    let server = server(&scene, &scene.peer, Late::RefuseStream)?;
    let target = scene.peer.v4(8080);
    let mut old = first_stream(&scene, target)?;
    echo(&mut dial(&scene.pod, target)?)?;
    let tunnels: Vec<_> = server.requests().iter().map(|served| served.tunnel).collect();
    assert_eq!(tunnels, [0, 0, 1]);
    echo(&mut old)
}

#[test]
fn after_bytes_were_sent_a_broken_tunnel_is_the_end_and_no_other_endpoint_is_tried() -> Result<()> {
    let scene = Scene::new("vanish")?;
    let vanishing = server(&scene, &scene.peer, Late::Vanish)?;
    let echoing = server(&scene, &scene.other, Late::Echo)?;
    first_stream(&scene, scene.other.v4(8080))?;
    first_stream(&scene, scene.peer.v4(8080))?;
    let mut lost = 0;
    for _ in 0..MANY {
        let mut socket = dial(&scene.pod, SocketAddr::from(VIP))?;
        let client = socket.local_addr()?;
        if let Err(error) = echo(&mut socket) {
            let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
            assert_eq!(kind, Some(ErrorKind::ConnectionReset), "{error:#}");
            assert_eq!(scene.reason_of(client)?, "tunnel_lost");
            lost += 1;
            first_stream(&scene, scene.peer.v4(8080))?;
        }
    }
    assert_ne!(lost, 0, "no tunnel broke");
    assert_eq!(echoing.requests().len(), 1 + MANY - lost);
    let asked = vanishing.requests().len();
    assert_eq!(asked, 1 + 2 * lost, "a lost stream was asked for once");
    Ok(())
}

#[test]
fn a_client_that_resets_while_nobody_answers_is_done() -> Result<()> {
    let scene = Scene::new("reset-early")?;
    let server = server(&scene, &scene.peer, Late::Echo)?;
    let target = scene.peer.v4(8080);
    first_stream(&scene, target)?;
    let socket = dial(&scene.pod, target)?;
    let client = socket.local_addr()?;
    wait_for("the request", SOON, || Ok((server.requests().len() == 2).then_some(())))?;
    block_on(async {
        socket.set_nonblocking(true)?;
        Ok(tokio::net::TcpStream::from_std(socket)?.set_zero_linger()?)
    })?;
    assert_eq!(scene.reason_of(client)?, "client_reset");
    Ok(())
}

fn server(scene: &Scene, pod: &Pod, late: Late) -> Result<TunnelServer> {
    TunnelServer::start_with(Manner::Late(late), pod, &scene.ca, &scene.credentials(pod)?)
}

/// Opens the stream that shows the proxy that the tunnel works.
fn first_stream(scene: &Scene, target: SocketAddr) -> Result<TcpStream> {
    let mut socket = dial(&scene.pod, target)?;
    echo(&mut socket).context("the first stream")?;
    Ok(socket)
}
