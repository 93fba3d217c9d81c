//! Both halves of both nodes are killed again and again, at moments that nobody has chosen.

use std::{
    env, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use fairlead_lab::{AccessLine, FairleadNode, Half, wait_for};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::{PATIENCE, Scene};
use crate::{
    clients::curl,
    mesh::{HTTP, Mesh},
    traffic::{Opened, SECRET, Traffic, WRONG_BYTES, open_connections},
};

/// Sets the seconds of killing.
const DURATION_VARIABLE: &str = "FAIRLEAD_KILL_SECONDS";

/// Seconds of killing unless told otherwise.
const DURATION: u64 = 10;

/// Sets the seed of the moments and victims.
const SEED_VARIABLE: &str = "FAIRLEAD_KILL_SEED";

/// Seed unless told otherwise.
const SEED: u64 = 3;

/// Bounds of the pause between two kills, in milliseconds: a start takes about 100.
const PAUSE_MS: std::ops::Range<u64> = 20..600;

/// Connections opened a second.
const RATE: usize = 200;

fn setting(variable: &str, default: u64) -> Result<u64> {
    match env::var(variable) {
        Ok(text) => text.parse().with_context(|| format!("{variable}={text}")),
        Err(_) => Ok(default),
    }
}

/// Kills for a while; returns how often which half was killed.
fn kill_at_random(nodes: [&FairleadNode; 2]) -> Result<[usize; 2]> {
    let seed = setting(SEED_VARIABLE, SEED)?;
    let end = Instant::now() + Duration::from_secs(setting(DURATION_VARIABLE, DURATION)?);
    let mut random = StdRng::seed_from_u64(seed);
    let mut kills = [0, 0];
    while Instant::now() < end {
        thread::sleep(Duration::from_millis(random.random_range(PAUSE_MS)));
        let node = nodes[usize::from(random.random::<bool>())];
        let half = if random.random() { Half::Capture } else { Half::Proxy };
        // One that has just been killed is not there.
        if node.kill_half(half).is_ok() {
            kills[half as usize] += 1;
        }
    }
    println!("seed {seed}: killed capture {} times and the proxy {} times", kills[0], kills[1]);
    Ok(kills)
}

/// Fails if a connection had an identity that is not that of its end's address.
fn check_identities(mesh: &Mesh, line: &AccessLine) -> Result<()> {
    for (address, identity) in [("src.addr", "src.identity"), ("dst.addr", "dst.identity")] {
        let (Some(address), Some(identity)) = (line.get(address), line.get(identity)) else {
            continue;
        };
        let pods = [&mesh.a, &mesh.b, &mesh.c, &mesh.d];
        let ip = address.parse::<std::net::SocketAddr>().context(address)?.ip();
        let own = pods.iter().find(|pod| ip == pod.ipv4() || ip == pod.ipv6());
        // A service's address is nobody's own.
        ensure!(own.is_none_or(|pod| pod.identity() == identity), "{line:?}");
    }
    Ok(())
}

fn wrong(opened: &Opened) -> impl Iterator<Item = &str> {
    let texts = opened.failures.iter().map(|failure| failure.what.as_str());
    texts.filter(|what| what.contains(WRONG_BYTES))
}

#[test]
fn whatever_is_killed_nothing_leaks_nobody_is_taken_for_another_and_all_recovers() -> Result<()> {
    let scene = Scene::new("kills", &[])?;
    let before = scene.states()?;
    let capture = scene.mesh.lab.capture_wire()?;
    let targets = scene.targets().concat();
    let clients = Traffic::start(&scene.mesh.a, move |cue| {
        open_connections("a".to_owned(), targets, RATE, cue)
    });
    clients.wait_more(RATE / 2)?;
    let kills = kill_at_random([&scene.mesh.n1, &scene.mesh.n2])?;
    ensure!(kills.iter().all(|count| *count > 0), "{kills:?}");

    let Mesh { n1, n2, a, b, d, .. } = &scene.mesh;
    wait_for("connections succeed again", PATIENCE, || {
        let answers = [b.v4(HTTP), b.v6(HTTP), d.v4(HTTP)].map(|server| curl(a, server));
        Ok(answers.into_iter().all(|answer| answer.is_ok_and(|a| a.is_ok())).then_some(()))
    })?;
    clients.wait_more(RATE)?;
    scene.wait_for_states(&before)?;
    let opened = clients.finish()?;
    println!("{}", opened.summary());
    let wrong: Vec<_> = wrong(&opened).collect();
    ensure!(wrong.is_empty(), "{wrong:?}");

    let wire = capture.finish()?;
    assert_eq!(wire.dropped(), 0);
    assert!(!wire.contains(SECRET.as_bytes())?, "plaintext crossed the wire");
    for node in [n1, n2] {
        let lines = node.access_log()?;
        ensure!(!lines.is_empty(), "no access log");
        lines.iter().try_for_each(|line| check_identities(&scene.mesh, line))?;
    }
    scene.finish()?;
    Ok(())
}
