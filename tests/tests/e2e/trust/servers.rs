//! Servers that answer where a pod should.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use fairlead_lab::wait_for;

use crate::peer::{Ca, Credentials, Scene, TunnelServer, VIP, dial, workload_params};

const SOON: Duration = Duration::from_secs(5);

/// What the application says first, and nobody but its peer may hear.
const SECRET: &[u8] = b"a secret of the application";

/// Connections that prove that a service's impostor is passed over: each picks the impostor first
/// with probability 1/2.
const TRIALS: usize = 20;

#[test]
fn a_server_that_is_not_the_pod_gets_no_byte_and_the_client_a_reset() -> Result<()> {
    let scene = Scene::new("impostor")?;
    let mut expired = workload_params(&scene.peer.identity())?;
    expired.not_after = expired.not_before + Duration::from_secs(1);
    let foreign = Ca::foreign()?.workload(&scene.peer.identity())?;
    for (what, credentials, reason) in [
        ("another workload", scene.credentials(&scene.other)?, "peer_identity_mismatch"),
        ("another root", foreign, "untrusted_peer"),
        ("expired", scene.ca.issue(&expired)?, "expired_peer"),
    ] {
        assert_no_byte_for(&scene, &credentials, reason).context(what)?;
    }
    // Nothing of it is remembered: the right one is accepted at once.
    let _server = TunnelServer::start(&scene.peer, &scene.ca, &scene.credentials(&scene.peer)?)?;
    let mut socket = dial(&scene.pod, scene.peer.v4(8080))?;
    assert_echo(&mut socket)
}

#[test]
fn a_connection_passes_over_an_impostor_to_the_next_endpoint() -> Result<()> {
    let scene = Scene::new("next")?;
    let impostor = TunnelServer::start(&scene.peer, &scene.ca, &scene.credentials(&scene.pod)?)?;
    let server = TunnelServer::start(&scene.other, &scene.ca, &scene.credentials(&scene.other)?)?;
    for _ in 0..TRIALS {
        let mut socket = dial(&scene.pod, SocketAddr::from(VIP))?;
        assert_echo(&mut socket)?;
    }
    ensure!(!impostor.failures().is_empty(), "nobody tried the impostor");
    assert_eq!(impostor.tunnels(), 0);
    assert_eq!(server.requests().len(), TRIALS);
    Ok(())
}

fn assert_no_byte_for(scene: &Scene, credentials: &Credentials, reason: &str) -> Result<()> {
    let impostor = TunnelServer::start(&scene.peer, &scene.ca, credentials)?;
    let error = speak(scene).err().context("no reset")?;
    let kind =
        error.chain().find_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
    assert_eq!(kind, Some(ErrorKind::ConnectionReset), "{error:#}");
    scene.proxy.wait_for_access(|line| line.is("reason", reason))?;
    wait_for("the handshake fails", SOON, || Ok((!impostor.failures().is_empty()).then_some(())))?;
    let failures = impostor.failures();
    // An alert in the place of the client's certificate: what follows would have been encrypted.
    ensure!(failures.iter().all(|failure| failure.contains("alert")), "{failures:?}");
    assert_eq!(impostor.tunnels(), 0);
    Ok(())
}

/// Connects, speaks and listens; the reset may come at any moment.
fn speak(scene: &Scene) -> Result<usize> {
    let mut socket = dial(&scene.pod, scene.peer.v4(8080))?;
    socket.write_all(SECRET)?;
    Ok(socket.read(&mut [0])?)
}

fn assert_echo(socket: &mut TcpStream) -> Result<()> {
    socket.write_all(SECRET)?;
    let mut echoed = vec![0; SECRET.len()];
    socket.read_exact(&mut echoed)?;
    assert_eq!(echoed, SECRET);
    Ok(())
}
