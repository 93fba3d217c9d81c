//! The root gives way to another one while pods talk.

use std::{fs, time::Duration};

use anyhow::{Result, ensure};
use fairlead_lab::{mesh::ControlledMesh, shown_identity, wait_for};

use super::is_connected;
use crate::{
    mesh::{ECHO, vip4, vip6},
    traffic::{Target, Traffic, open_connections, serve_echo, talk_over_streams},
};

/// Lifetime of certificates, in seconds: a step of a rotation waits until none is left of before.
const TTL: &str = "10";

/// Connections opened a second.
const RATE: usize = 100;

/// Connections that stay open, and the pause between two messages of each.
const STREAMS: usize = 20;
const PAUSE: Duration = Duration::from_millis(200);

/// Time for a rotation: two lifetimes, and what a busy machine adds.
const PATIENCE: Duration = Duration::from_mins(1);

/// Port of the tunnels.
const HBONE: u16 = 15008;

#[test]
fn a_root_is_replaced_under_load_without_a_failed_request_in_the_order_of_the_steps() -> Result<()>
{
    let plane = ["--certificate-ttl", "10s"];
    let mesh = ControlledMesh::with_args("cprotate", &["--svid-ttl", TTL], &plane)?;
    let _servers = [serve_echo(&mesh.b, ECHO)?, serve_echo(&mesh.d, ECHO)?];
    let targets: Vec<_> = [("b", vip4(10, ECHO)), ("b", mesh.b.v6(ECHO)), ("d", vip6(20, ECHO))]
        .map(|(name, address)| Target::new(name, address))
        .to_vec();
    let to_streams = targets.clone();
    let streams = Traffic::start(&mesh.a, move |cue| {
        talk_over_streams("a".to_owned(), to_streams, STREAMS, PAUSE, cue)
    });
    let opened =
        Traffic::start(&mesh.a, move |cue| open_connections("a".to_owned(), targets, RATE, cue));
    opened.wait_more(RATE)?;

    let old = fs::read_to_string(mesh.plane.root_cert())?;
    let ca = mesh.plane.ca_dir();
    mesh.plane.run(&["rotate-root", "--ca-dir", &ca.to_string_lossy()])?.checked()?;
    let mut seen = Vec::new();
    wait_for("the end of the rotation", PATIENCE, || {
        let (step, roots) = (step(&mesh), roots(&mesh)?);
        let done = step == "none" && roots == 1 && seen.len() > 2;
        if seen.last() != Some(&(step.clone(), roots)) {
            seen.push((step, roots));
        }
        Ok(done.then_some(()))
    })?;
    opened.wait_more(RATE)?;
    println!("{seen:?}");
    let mut steps: Vec<_> = seen.iter().map(|(step, _)| step.as_str()).collect();
    steps.dedup();
    ensure!(steps.ends_with(&["spreading", "switched", "none"]), "{seen:?}");
    // The new root is known before it signs, and the old one until none of its certificates is left.
    let both = |step: &str| seen.contains(&(step.to_owned(), 2));
    ensure!(both("spreading") && both("switched"), "{seen:?}");
    ensure!(!fs::read_to_string(mesh.plane.root_cert())?.contains(old.trim()));
    // Whoever trusts the new root only can talk to every pod.
    for pod in [&mesh.a, &mesh.b] {
        let shown = shown_identity(&mesh.outsider, pod.v4(HBONE), &mesh.plane.root_cert())?;
        assert_eq!(shown, pod.identity());
    }
    for node in mesh.nodes() {
        ensure!(is_connected(node)?, "{}", node.complaints());
    }

    let opened = opened.finish()?;
    println!("{}", opened.summary());
    ensure!(opened.failures.is_empty(), "{:#?}", opened.failures);
    let streams = streams.finish()?;
    let ended: Vec<_> = streams.iter().filter_map(|stream| stream.failure.as_ref()).collect();
    ensure!(ended.is_empty(), "{ended:#?}");
    Ok(())
}

/// Returns the step of the rotation under way, or `none`.
fn step(mesh: &ControlledMesh) -> String {
    // There is no file without one.
    let text = fs::read_to_string(mesh.plane.ca_dir().join("rotation")).unwrap_or_default();
    text.split_whitespace().next().unwrap_or("none").to_owned()
}

fn roots(mesh: &ControlledMesh) -> Result<usize> {
    let text = fs::read_to_string(mesh.plane.root_cert())?;
    Ok(text.matches("BEGIN CERTIFICATE").count())
}
