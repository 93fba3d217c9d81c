//! HTTP/2 parameters that both ends of a tunnel announce, and their PINGs.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, ensure};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio_rustls::TlsAcceptor;

use crate::peer::{
    App, Frame, HBONE, PREFACE, Scene, block_on, block_on_for, dial, read_frame, server_config,
    write_frame,
};

const ENABLE_PUSH: u16 = 0x2;
const MAX_CONCURRENT_STREAMS: u16 = 0x3;
const INITIAL_WINDOW_SIZE: u16 = 0x4;
const MAX_FRAME_SIZE: u16 = 0x5;
const MAX_HEADER_LIST_SIZE: u16 = 0x6;

/// Window of a connection before any `WINDOW_UPDATE` (RFC 9113, section 6.9.2).
const DEFAULT_WINDOW: u32 = 65_535;

/// Window of a connection: four times ambient's, which changes nothing for the other end but how many
/// readers that have stopped hold up the rest.
const CONNECTION_WINDOW: u32 = 64 << 20;

/// When the first PING is due, in seconds.
const FIRST_PING_SECONDS: u64 = 10;

#[test]
fn the_server_announces_the_parameters_of_ambient() -> Result<()> {
    let scene = Scene::new("server-par")?;
    block_on(async {
        let mut io = scene.bare_tunnel().await?;
        let settings = read_frame(&mut io).await?.settings();
        for (parameter, value) in [
            (INITIAL_WINDOW_SIZE, 4 << 20),
            (MAX_FRAME_SIZE, 1 << 20),
            (MAX_CONCURRENT_STREAMS, 200),
            (MAX_HEADER_LIST_SIZE, 64 << 10),
        ] {
            assert_eq!(settings.get(&parameter), Some(&value), "{settings:?}");
        }
        assert_eq!(connection_window(&mut io).await?, CONNECTION_WINDOW);
        Ok(())
    })
}

#[test]
fn the_client_announces_the_parameters_of_ambient() -> Result<()> {
    let scene = Scene::new("client-par")?;
    let server = App::listen(&scene.peer, HBONE)?;
    let _client = dial(&scene.pod, scene.peer.v4(8080))?;
    block_on(async {
        let mut io = raw_server(&scene, &server).await?;
        let settings = read_frame(&mut io).await?.settings();
        for (parameter, value) in [
            (INITIAL_WINDOW_SIZE, 4 << 20),
            (MAX_FRAME_SIZE, 1 << 20),
            (MAX_HEADER_LIST_SIZE, 16 << 10),
            (ENABLE_PUSH, 0),
        ] {
            assert_eq!(settings.get(&parameter), Some(&value), "{settings:?}");
        }
        assert_eq!(connection_window(&mut io).await?, CONNECTION_WINDOW);
        Ok(())
    })
}

#[test]
fn both_ends_of_a_silent_tunnel_are_pinged() -> Result<()> {
    let scene = Scene::new("ping")?;
    let server = App::listen(&scene.peer, HBONE)?;
    let _client = dial(&scene.pod, scene.peer.v4(8080))?;
    block_on_for(Duration::from_secs(FIRST_PING_SECONDS + 5), async {
        let (mut from_client, mut from_server) =
            (raw_server(&scene, &server).await?, scene.bare_tunnel().await?);
        write_frame(&mut from_client, &Frame::no_settings()).await?;
        tokio::try_join!(ping(&mut from_client), ping(&mut from_server)).map(drop)
    })
}

/// Accepts a tunnel and reads the client's preface.
async fn raw_server(
    scene: &Scene,
    server: &App,
) -> Result<impl AsyncRead + AsyncWrite + Unpin + use<>> {
    let (socket, _) = server.accept().await?;
    let config = server_config(&scene.ca, &scene.credentials(&scene.peer)?)?;
    let mut io = TlsAcceptor::from(Arc::new(config)).accept(socket).await?;
    let mut preface = vec![0; PREFACE.len()];
    io.read_exact(&mut preface).await?;
    ensure!(preface == PREFACE, "{preface:?}");
    Ok(io)
}

/// Returns the window of the connection, as the other end widens it at once.
async fn connection_window(io: &mut (impl AsyncRead + Unpin)) -> Result<u32> {
    loop {
        let frame = read_frame(io).await?;
        if let (Frame::WINDOW_UPDATE, 0, Some(more)) = (frame.kind, frame.stream, frame.number()) {
            return Ok(DEFAULT_WINDOW + more);
        }
    }
}

/// Waits for a PING.
async fn ping(io: &mut (impl AsyncRead + Unpin)) -> Result<()> {
    loop {
        let frame = read_frame(io).await?;
        if frame.kind == Frame::PING && frame.flags & Frame::ACK == 0 {
            return Ok(());
        }
    }
}
