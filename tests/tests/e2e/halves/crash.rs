//! A half that is killed while clients come and talk: it runs again before anybody gives up.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use fairlead_lab::{FairleadNode, Half, Host as _, PodSpec, TcpSocket, TcpState, wait_for};

use super::{PATIENCE, Scene, ensure_none};
use crate::traffic::Opened;

/// Connections opened a second, in the mesh.
const RATE: usize = 400;

/// Long-lived streams, half of them on one node.
const STREAMS: usize = 40;

/// Longest time from a proxy's death to the answer to a connection made after it; the supervisor's
/// part of it is 100 ms.
const RESTART_TIME: Duration = Duration::from_secs(1);

/// Time from the end of a tunnel's socket to that of the tunnel in the proxy that had the socket.
const NOTICE: Duration = Duration::from_millis(20);

/// Port of HBONE tunnels.
const HBONE: u16 = 15008;

/// Kills a half and waits until nothing of the process is left; returns when it was killed and when
/// it was gone.
fn kill_and_wait(node: &FairleadNode, half: Half) -> Result<[Instant; 2]> {
    let process = format!("/proc/{}/fd/0", node.pid_of(half)?);
    let killed = Instant::now();
    node.kill_half(half)?;
    wait_for("the end of the process", PATIENCE, || {
        Ok(fs::symlink_metadata(&process).is_err().then_some(()))
    })?;
    Ok([killed, Instant::now()])
}

/// Returns the tunnels that leave `a`.
fn tunnels(scene: &Scene) -> Result<Vec<TcpSocket>> {
    let sockets = scene.mesh.a.tcp_sockets()?.into_iter();
    let is_tunnel = |s: &TcpSocket| s.state == TcpState::Established && s.remote.port() == HBONE;
    Ok(sockets.filter(is_tunnel).collect())
}

/// Waits until nobody puts another stream into one of `tunnels` any more, whose other end has died.
fn wait_for_the_end_of(tunnels: &[TcpSocket], scene: &Scene) -> Result<Instant> {
    wait_for("the end of the tunnels", PATIENCE, || {
        let open = self::tunnels(scene)?;
        Ok(tunnels.iter().all(|tunnel| !open.contains(tunnel)).then_some(()))
    })?;
    Ok(Instant::now() + NOTICE)
}

/// Returns the shortest time from `killed` to the end of a connection that began later.
fn first_answer(opened: &[Opened], killed: Instant, gone: Instant) -> Result<Duration> {
    let answered = opened.iter().flat_map(|opened| &opened.answered);
    let later = answered.filter(|[started, _]| *started > gone);
    let first = later.map(|[_, ended]| *ended - killed).min();
    first.context("no connection was answered after the kill")
}

/// Kills the proxy of a node under load; every connection made after its end is answered.
fn kill_proxy(name: &str, number: usize) -> Result<()> {
    let mut scene = Scene::new(name, &[])?;
    let before = scene.states()?;
    let openers = scene.open(RATE)?;
    let lost = tunnels(&scene)?;
    let [killed, gone] = kill_and_wait(scene.nodes()[number], Half::Proxy)?;
    let noticed = wait_for_the_end_of(&lost, &scene)?;
    openers.go_on(RATE)?;
    let opened = openers.finish()?;

    let node = &*scene.nodes()[number];
    let failures = opened.iter().flat_map(|opened| &opened.failures);
    // The connections that the process had are lost with it.
    ensure_none(failures.filter(|failure| failure.started > noticed), &[node])?;
    let first = first_answer(&opened, killed, gone)?;
    let waited = node.metrics()?.sum("fairlead_connections_waited_total", &[]);
    println!(
        "{name}: gone after {:?}, the first answer after {first:?}, {waited} waited",
        gone - killed
    );
    ensure!(first < RESTART_TIME, "the first answer came after {first:?}");
    ensure!(waited > 0.0, "no connection has waited");
    let log = node.log()?;
    ensure!(log.contains("connections have waited"), "{log}");
    scene.wait_for_states(&before)?;
    scene.finish()?;
    Ok(())
}

#[test]
fn connections_made_while_their_clients_proxy_is_away_wait_for_it() -> Result<()> {
    kill_proxy("waitnear", 0)
}

#[test]
fn connections_made_while_their_servers_proxy_is_away_wait_for_it() -> Result<()> {
    kill_proxy("waitfar", 1)
}

#[test]
fn no_client_notices_the_death_of_capture_and_pods_come_and_go_right_after() -> Result<()> {
    let mut scene = Scene::new("uncaptured", &[])?;
    let spare = scene.mesh.lab.node(1).add_pod(PodSpec::new("spare").namespace("shop"))?;
    let before = scene.states()?;
    let streams = scene.talk(STREAMS)?;
    let openers = scene.open(RATE)?;
    for node in scene.nodes() {
        kill_and_wait(node, Half::Capture)?;
    }
    let gone = Instant::now();
    wait_for("a pod is enrolled", PATIENCE, || {
        Ok(scene.mesh.n1.enrol(&spare).is_ok().then_some(()))
    })?;
    scene.mesh.n1.release(&spare)?;
    println!("a pod was enrolled and released {:?} after capture was gone", gone.elapsed());
    openers.go_on(RATE)?;
    streams.wait_more(STREAMS)?;
    let (reports, opened) = (streams.finish()?, openers.finish()?);

    let ended = reports.iter().filter_map(|report| report.failure.as_ref());
    let failures = ended.chain(opened.iter().flat_map(|opened| &opened.failures));
    ensure_none(failures, &[&scene.mesh.n1, &scene.mesh.n2])?;
    scene.wait_for_states(&before)?;
    scene.finish()?;
    Ok(())
}
