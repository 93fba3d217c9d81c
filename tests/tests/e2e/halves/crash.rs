//! A half that is killed while clients come and talk: it runs again before anybody gives up.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use fairlead_lab::{FairleadNode, Half, Host as _, PodSpec, TcpSocket, TcpState, wait_for};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::{PATIENCE, Scene, ensure_none};

/// Connections opened a second, in the mesh.
const RATE: usize = 400;

/// Long-lived streams, half of them on one node.
const STREAMS: usize = 40;

/// Time from the end of a tunnel's socket to that of the tunnel in the proxy that had the socket.
const NOTICE: Duration = Duration::from_millis(20);

const SECONDS_A_DAY: f64 = 86_400.0;

/// Port of HBONE tunnels.
const HBONE: u16 = 15008;

/// Time for which a supervisor is kept from starting a proxy again, so that connections have to wait.
const ABSENCE: Duration = Duration::from_millis(100);

/// Time from a proxy's death, as its supervisor logs it, to the start of the next one.
const RESTART_DELAY: Duration = Duration::from_millis(100);

/// Kills a half and waits until nothing of the process is left.
fn kill_and_wait(node: &FairleadNode, half: Half) -> Result<()> {
    let process = format!("/proc/{}/fd/0", node.pid_of(half)?);
    node.kill_half(half)?;
    wait_for("the end of the process", PATIENCE, || {
        Ok(fs::symlink_metadata(&process).is_err().then_some(()))
    })
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

/// Returns the time from the end of a proxy to the start of the next one.
fn restart_delay(log: &str) -> Result<Duration> {
    let mut ended = None;
    for line in log.lines().filter(|line| line.contains("::supervise")) {
        let line: Value = serde_json::from_str(line).context(line.to_owned())?;
        if line["role"] != "proxy" {
            continue;
        }
        let time = line["time"].as_str().context("no time")?;
        match (line["message"].as_str(), ended) {
            (Some("ended"), _) => ended = Some(seconds_of_day(time)?),
            (Some("started"), Some(ended)) => {
                let delay = (seconds_of_day(time)? - ended).rem_euclid(SECONDS_A_DAY);
                return Ok(Duration::from_secs_f64(delay));
            }
            _ => {}
        }
    }
    bail!("no restart in {log}")
}

/// Reads `2026-01-31T12:34:56.789Z`.
fn seconds_of_day(time: &str) -> Result<f64> {
    let clock = time.split_once('T').context(time.to_owned())?.1.trim_end_matches('Z');
    clock.split(':').try_fold(0.0, |seconds, part| Ok(seconds * 60.0 + part.parse::<f64>()?))
}

/// Kills the proxy of a node under load; every connection made after its end is answered.
fn kill_proxy(name: &str, number: usize) -> Result<()> {
    let mut scene = Scene::new(name, &[])?;
    let before = scene.states()?;
    let openers = scene.open(RATE)?;
    let lost = tunnels(&scene)?;
    scene.nodes()[number].signal(Signal::SIGSTOP)?;
    kill_and_wait(scene.nodes()[number], Half::Proxy)?;
    thread::sleep(ABSENCE);
    scene.nodes()[number].signal(Signal::SIGCONT)?;
    let noticed = wait_for_the_end_of(&lost, &scene)?;
    openers.go_on(RATE)?;
    let opened = openers.finish()?;

    let node = &*scene.nodes()[number];
    let failures = opened.iter().flat_map(|opened| &opened.failures);
    // The connections that the process had are lost with it.
    ensure_none(failures.filter(|failure| failure.started > noticed), &[node])?;
    let waited = node.metrics()?.sum("fairlead_connections_waited_total", &[]);
    ensure!(waited > 0.0, "no connection has waited");
    let log = node.log()?;
    ensure!(log.contains("connections have waited"), "{log}");
    let delay = restart_delay(&log)?;
    println!("{name}: {waited} waited; started again after {delay:?}");
    ensure!(delay < RESTART_DELAY, "it was started {delay:?} after its end");
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
