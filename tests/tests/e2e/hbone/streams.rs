//! Bytes through a tunnel, and every way in which a connection ends.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use fairlead_lab::wait_for;
use h2::Reason;
use nix::sys::signal::Signal;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::peer::{App, Scene, Stream, block_on};

/// Where the application listens.
const APP: u16 = 7000;

const SOON: Duration = Duration::from_secs(5);

/// More than all windows and buffers on the way hold, in bytes.
const LARGE: usize = 32 << 20;

#[test]
fn bytes_flow_both_ways_and_half_close_is_kept() -> Result<()> {
    let scene = Scene::new("half-close")?;
    let app = App::listen(&scene.pod, APP)?;
    block_on(async {
        let tunnel = scene.tunnel().await?;
        for target in [scene.pod.v4(APP), scene.pod.v4(APP)] {
            let mut stream = tunnel.connect(target).await?;
            let (mut socket, _) = app.accept().await?;
            stream.write(b"question")?;
            expect(&mut socket, b"question").await?;
            stream.end()?;
            expect_end(&mut socket).await?;

            let late = vec![7; LARGE];
            let (sent, received) = tokio::join!(
                async {
                    socket.write_all(&late).await?;
                    anyhow::Ok(socket.shutdown().await?)
                },
                async {
                    stream.expect(&late).await?;
                    stream.expect_end().await
                }
            );
            sent.and(received)?;
        }
        Ok(())
    })?;
    let line = scene.proxy.wait_for_access(|line| line.is("bytes_sent", &LARGE.to_string()))?;
    assert!(line.is("reason", "completed") && line.is("bytes_recv", "8"), "{line:?}");
    assert!(line.is("src.identity", &scene.peer.identity()), "{line:?}");
    assert!(line.is("dst.identity", &scene.pod.identity()), "{line:?}");
    Ok(())
}

#[test]
fn the_application_may_end_its_direction_first() -> Result<()> {
    let scene = Scene::new("server-first")?;
    let app = App::listen(&scene.pod, APP)?;
    block_on(async {
        let tunnel = scene.tunnel().await?;
        let mut stream = tunnel.connect(scene.pod.v4(APP)).await?;
        let (mut socket, _) = app.accept().await?;
        socket.write_all(b"220 ready").await?;
        socket.shutdown().await?;
        stream.expect(b"220 ready").await?;
        stream.expect_end().await?;
        stream.write(b"still here")?;
        stream.end()?;
        expect(&mut socket, b"still here").await?;
        expect_end(&mut socket).await
    })
}

#[test]
fn a_reset_by_the_application_resets_its_stream_and_no_other() -> Result<()> {
    let scene = Scene::new("app-reset")?;
    let app = App::listen(&scene.pod, APP)?;
    block_on(async {
        let tunnel = scene.tunnel().await?;
        let mut bystander = tunnel.connect(scene.pod.v4(APP)).await?;
        let (mut beside, _) = app.accept().await?;
        let mut stream = tunnel.connect(scene.pod.v4(APP)).await?;
        let (socket, _) = app.accept().await?;
        socket.set_zero_linger()?;
        drop(socket);
        assert_eq!(stream.expect_reset().await?, Reason::CONNECT_ERROR);
        bystander.write(b"unharmed")?;
        expect(&mut beside, b"unharmed").await
    })?;
    scene.proxy.wait_for_access(|line| line.is("reason", "server_reset")).map(drop)
}

#[test]
fn a_reset_of_the_stream_resets_the_application() -> Result<()> {
    let scene = Scene::new("stream-reset")?;
    let app = App::listen(&scene.pod, APP)?;
    block_on(async {
        let tunnel = scene.tunnel().await?;
        for reason in [Reason::CANCEL, Reason::CONNECT_ERROR, Reason::INTERNAL_ERROR] {
            let mut stream = tunnel.connect(scene.pod.v4(APP)).await?;
            let (mut socket, _) = app.accept().await?;
            stream.reset(reason);
            let end = socket.read_u8().await.map_err(|error| error.kind());
            assert_eq!(end, Err(std::io::ErrorKind::ConnectionReset), "{reason:?}");
        }
        Ok(())
    })?;
    scene.proxy.wait_for_access(|line| line.is("reason", "client_reset")).map(drop)
}

#[test]
fn a_tunnel_that_breaks_does_not_look_like_an_end_to_the_application() -> Result<()> {
    let scene = Scene::new("broken")?;
    let app = App::listen(&scene.pod, APP)?;
    block_on(async {
        let tunnel = scene.tunnel().await?;
        let mut stream = tunnel.connect(scene.pod.v4(APP)).await?;
        let (mut socket, _) = app.accept().await?;
        stream.write(b"half a message")?;
        expect(&mut socket, b"half a message").await?;
        drop(tunnel);
        let end = socket.read_u8().await.map_err(|error| error.kind());
        assert_eq!(end, Err(std::io::ErrorKind::ConnectionReset));
        Ok(())
    })
}

#[test]
fn a_drain_lets_open_streams_finish_and_takes_no_new_ones() -> Result<()> {
    let mut scene = Scene::new("drain")?;
    let app = App::listen(&scene.pod, APP)?;
    let (target, closed) = (scene.pod.v4(APP), scene.pod.v4(APP + 1));
    let (tunnel, mut stream, mut socket) = block_on(async {
        let tunnel = scene.tunnel().await?;
        let stream = tunnel.connect(target).await?;
        Ok((tunnel, stream, app.accept().await?.0))
    })?;
    assert_eq!(block_on(tunnel.status(closed))?, 503);
    scene.proxy.signal(Signal::SIGTERM)?;
    wait_for("a GOAWAY", SOON, || Ok(block_on(tunnel.status(closed)).err()))?;
    block_on(async {
        round_trip(&mut stream, &mut socket).await?;
        stream.end()?;
        expect_end(&mut socket).await?;
        socket.write_all(b"farewell").await?;
        socket.shutdown().await?;
        stream.expect(b"farewell").await?;
        stream.expect_end().await
    })?;
    let finished = Instant::now();
    let stopped = scene.proxy.stop()?;
    ensure!(stopped.success(), "{}", stopped.status);
    ensure!(finished.elapsed() < SOON, "ended {:?} after its last stream", finished.elapsed());
    Ok(())
}

async fn round_trip(stream: &mut Stream, socket: &mut TcpStream) -> Result<()> {
    stream.write(b"ping")?;
    expect(socket, b"ping").await?;
    socket.write_all(b"pong").await?;
    stream.expect(b"pong").await
}

async fn expect(socket: &mut TcpStream, expected: &[u8]) -> Result<()> {
    let mut received = vec![0; expected.len()];
    socket.read_exact(&mut received).await?;
    ensure!(received == expected, "received {received:?}");
    Ok(())
}

async fn expect_end(socket: &mut TcpStream) -> Result<()> {
    let mut byte = [0];
    ensure!(socket.read(&mut byte).await? == 0, "received {byte:?} in place of the end");
    Ok(())
}
