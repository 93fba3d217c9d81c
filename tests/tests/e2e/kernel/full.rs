//! A map with no room left costs the pod that comes last, and nobody else.

use std::{fmt::Write as _, fs, process::Command};

use anyhow::{Result, ensure};
use fairlead_lab::{Half, Host as _, PodSpec, wait_for};

use crate::{
    bpf::{Entries, pins},
    clients::{SOON, curl},
    mesh::{HTTP, Mesh},
    state::State,
};

/// Entries of the map of captured pods.
const MOST_PODS: usize = 1024;

/// First of the namespace cookies that no namespace has.
const NOBODY: u64 = 0xffff_ffff_0000_0000;

/// Bytes of an entry's value: the addresses of a pod.
const VALUE_BYTES: usize = 20;

/// Fills the map of captured pods of node 1 with pods that do not exist.
fn fill(mesh: &Mesh) -> Result<()> {
    let map = pins(&mesh.n1).join("ENROLLED");
    let value = " 0".repeat(VALUE_BYTES);
    let mut batch = String::new();
    for cookie in (NOBODY..).take(MOST_PODS - Entries::of(&mesh.n1)?.enrolled) {
        let key = cookie.to_ne_bytes().map(|byte| byte.to_string()).join(" ");
        writeln!(batch, "map update pinned {} key {key} value{value} noexist", map.display())?;
    }
    let file = mesh.lab.dir().join("batch");
    fs::write(&file, batch)?;
    let output = Command::new("bpftool").args(["batch", "file"]).arg(&file).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(Entries::of(&mesh.n1)?.enrolled, MOST_PODS);
    Ok(())
}

#[test]
fn a_pod_that_finds_a_full_map_is_refused_whole_and_the_others_keep_their_identities() -> Result<()>
{
    let mesh = Mesh::new("full")?;
    let late = mesh.lab.node(1).add_pod(PodSpec::new("late").namespace("shop"))?;
    let state = || State::of(&mesh.n1, &[&mesh.a, &mesh.c, &mesh.d, &late]);
    let empty = state()?;
    fill(&mesh)?;
    let full = state()?;

    let path = late.netns().path().to_string_lossy();
    let identity = ["--namespace", "shop", "--name", "late", "--service-account", "late"];
    let add = [&["add"], &identity[..], &["--netns", &path]].concat();
    for _ in 0..2 {
        let refused = mesh.n1.pod_command(&add)?;
        ensure!(!refused.success(), "{refused:?}");
        let said = refused.stdout + &refused.stderr;
        ensure!(said.contains("not in the mesh") && said.contains("ENROLLED"), "{said}");
        // Nothing of it is left half done.
        assert_eq!(state()?, full);
    }
    for client in [&mesh.a, &mesh.c] {
        let answer = curl(client, mesh.b.v4(HTTP))?;
        ensure!(answer.is_ok(), "{answer:?}");
        let address = format!("{}:{}", client.ipv4(), answer.local_port);
        let line = mesh.n2.wait_for_access(|line| line.is("src.addr", &address))?;
        ensure!(line.is("src.identity", &client.identity()), "{line:?}");
    }

    // What is captured for nobody goes with the next start of capture; there is room again.
    mesh.n1.kill_half(Half::Capture)?;
    wait_for("room", SOON, || {
        Ok(Entries::of(&mesh.n1).is_ok_and(|e| e.enrolled < MOST_PODS).then_some(()))
    })?;
    wait_for("the pod is enrolled", SOON, || {
        Ok(mesh.n1.pod_command(&add)?.success().then_some(()))
    })?;
    mesh.n1.release(&late)?;
    wait_for("the state from before", SOON, || Ok((state()? == empty).then_some(())))
}
