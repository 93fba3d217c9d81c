//! Handshakes that make no sense, or never end.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use fairlead_lab::wait_for;

use crate::peer::{HBONE, Scene, block_on, dial};

/// Handshakes that stall at once; trust.md asks for 10,000 on a machine that does nothing else.
const STALLED: usize = 200;

/// Memory that a stalled handshake may cost, in KiB: twice the buffer that is read into.
const STALLED_KIB: u64 = 256;

/// The proxy's time for a handshake, and slack.
const STALLED_LIMIT: Duration = Duration::from_secs(15);

/// Memory that refused garbage may leave behind, in KiB.
const GARBAGE_KIB: u64 = 8 << 10;

const GARBAGE_SIZES: [usize; 6] = [1, 5, 100, 1 << 10, 16 << 10, 256 << 10];

#[test]
fn garbage_in_place_of_a_handshake_closes_that_connection_only() -> Result<()> {
    let scene = Scene::new("garbage")?;
    block_on(scene.tunnel())?;
    let before = scene.proxy.resources()?.resident_kib;
    let hello = [0x16, 0x03, 0x01];
    for size in GARBAGE_SIZES {
        let noise = noise(size);
        let framed = [&hello[..], &u16::MAX.to_be_bytes(), &noise].concat();
        let plausible =
            [&hello[..], &512_u16.to_be_bytes(), &[1, 0, 1, 252, 3, 3], &noise].concat();
        for garbage in [&noise, &framed, &plausible] {
            let client = closed_after(&scene, garbage).with_context(|| format!("{size} bytes"))?;
            let reason = scene.reason_of(client)?;
            ensure!(reason.starts_with("tls_") || reason == "protocol_version", "{reason}");
        }
    }
    block_on(scene.tunnel())?;
    let grown = scene.proxy.resources()?.resident_kib.saturating_sub(before);
    assert!(grown < GARBAGE_KIB, "{grown} KiB more");
    Ok(())
}

#[test]
fn stalled_handshakes_end_and_meanwhile_others_are_served() -> Result<()> {
    let scene = Scene::new("stalled")?;
    block_on(scene.tunnel())?;
    let before = scene.proxy.resources()?.resident_kib;
    let mut stalled = Vec::new();
    for _ in 0..STALLED {
        let mut socket = dial(&scene.peer, scene.pod.v4(HBONE))?;
        // The head of a record whose rest never comes.
        socket.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01])?;
        stalled.push(socket);
    }
    block_on(scene.tunnel()).context("others are served")?;
    let grown = scene.proxy.resources()?.resident_kib.saturating_sub(before);
    assert!(grown < STALLED_KIB * STALLED as u64, "{grown} KiB more");

    wait_for("the end of all stalled handshakes", STALLED_LIMIT, || {
        let lines = scene.proxy.access_log()?;
        let ended = lines.iter().filter(|line| line.is("reason", "tls_timeout")).count();
        Ok((ended == STALLED).then_some(()))
    })?;
    for socket in &mut stalled {
        // A reset, since the proxy has not read what was sent, or an end.
        assert!(!matches!(socket.read(&mut [0]), Ok(1..)));
    }
    block_on(scene.tunnel()).map(drop)
}

/// Sends `garbage`, and the end of stream; returns the client's address once the proxy has closed.
fn closed_after(scene: &Scene, garbage: &[u8]) -> Result<std::net::SocketAddr> {
    let mut socket = dial(&scene.peer, scene.pod.v4(HBONE))?;
    let client = socket.local_addr()?;
    // The proxy may close before it has read everything.
    let _ = socket.write_all(garbage);
    let _ = socket.shutdown(Shutdown::Write);
    drain(&mut socket)?;
    Ok(client)
}

/// Reads to the end, or to a reset.
fn drain(socket: &mut TcpStream) -> Result<()> {
    let mut answer = Vec::new();
    match socket.take(1 << 20).read_to_end(&mut answer) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            Err(error).context("not closed")
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Bytes without a pattern, the same each time (xorshift).
fn noise(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()[0]
    };
    (0..size).map(|_| next()).collect()
}
