//! What is left in the kernel after the end.

use std::{collections::BTreeSet, net::SocketAddr};

use anyhow::{Context as _, Result, ensure};
use fairlead_lab::{Host as _, Pod, wait_for};

use crate::{
    bpf::{Entries, Objects, all_pins, hooks, pin_dir, pins},
    clients::{SOON, curl, curl_with},
    mesh::{HTTP, Mesh},
};

/// Routing table of captured connections.
const TABLE: &str = "15001";

/// Returns the routing of a pod that capture adds to, as `ip` shows it.
fn routing(pod: &Pod) -> Result<String> {
    let mut text = String::new();
    for family in ["-4", "-6"] {
        text += &pod.run(["ip", family, "rule", "show"])?.checked()?.stdout;
        // An error means that the table does not exist.
        text += &pod.run(["ip", family, "route", "show", "table", TABLE])?.stdout;
    }
    text += &pod.netns().sysctl("net/ipv4/tcp_fwmark_accept")?;
    Ok(text)
}

fn listening(pod: &Pod) -> Result<Vec<u16>> {
    let listens = |s: &fairlead_lab::TcpSocket| s.state == fairlead_lab::TcpState::Listen;
    let mut ports: Vec<_> =
        pod.tcp_sockets()?.iter().filter(|s| listens(s)).map(|s| s.local.port()).collect();
    ports.sort_unstable();
    Ok(ports)
}

/// Checks that a client gets a refusal, and at once.
fn assert_refused_at_once(pod: &Pod, server: SocketAddr) -> Result<()> {
    let answer = curl_with(pod, server, &["--connect-timeout", "1"])?;
    ensure!(answer.is_refused(), "{} to {server}: {answer:?}", pod.name());
    Ok(())
}

#[test]
fn nothing_is_left_in_the_kernel_after_the_end_and_pods_go_on() -> Result<()> {
    let mesh = Mesh::new("unload")?;
    assert!(curl(&mesh.a, mesh.b.v4(HTTP))?.is_ok());
    let untouched = routing(&mesh.outsider)?;
    assert_ne!(routing(&mesh.a)?, untouched);
    let (own, foreign) = (Objects::of(&mesh.n1)?, Objects::of(&mesh.n2)?);
    // Hooks of connecting and of sending, two each, and one program for each of three pods.
    assert_eq!((own.programs.len(), own.links.len()), (7, 7), "{own:?}");
    let foreign_pins = all_pins(&mesh.n2)?;
    let pin_dir = pin_dir(&mesh.n1);

    mesh.n1.stop()?.checked()?;
    wait_for("the kernel frees the objects", SOON, || {
        Ok((own.remaining()? == Objects::default()).then_some(()))
    })?;
    assert!(!pin_dir.exists(), "{} is left", pin_dir.display());
    for pod in [&mesh.a, &mesh.c, &mesh.d] {
        assert_eq!(routing(pod)?, untouched, "{}", pod.name());
    }
    assert_eq!(listening(&mesh.a)?, Vec::<u16>::new());
    // The other node's are as they were.
    assert_eq!(Objects::of(&mesh.n2)?, foreign);
    assert_eq!(all_pins(&mesh.n2)?, foreign_pins);

    for server in [mesh.b.v4(HTTP), mesh.b.v6(HTTP), mesh.outsider.v4(HTTP)] {
        let answer = curl(&mesh.a, server)?;
        assert!(answer.is_ok(), "{server}: {answer:?}");
    }
    Ok(())
}

#[test]
fn capture_that_is_kept_refuses_connections_until_a_successor_runs() -> Result<()> {
    let mut mesh = Mesh::with_args("keep", &["--keep-capture"])?;
    let a = mesh.a.clone();
    mesh.serve(&a, "http_server.py", HTTP)?;
    let (pinned, routed) = (all_pins(&mesh.n1)?, routing(&a)?);
    let (objects, dir, settings) = (Objects::of(&mesh.n1)?, pins(&mesh.n1), mesh.n1.settings());

    mesh.n1.stop()?.checked()?;
    assert_eq!(objects.remaining()?, objects);
    assert!(pinned.iter().all(|pin| pin.exists()), "of {pinned:?} {dir:?} has not all");
    assert_eq!(routing(&a)?, routed);
    for server in [mesh.b.v4(HTTP), mesh.b.v6(HTTP), mesh.outsider.v4(HTTP)] {
        assert_refused_at_once(&a, server)?;
    }
    for client in [&mesh.outsider, &mesh.b] {
        assert_refused_at_once(client, a.v4(HTTP))?;
    }
    // Neither the pod's own connections nor the pods outside the mesh are concerned.
    assert!(curl(&a, SocketAddr::from(([127, 0, 0, 1], HTTP)))?.is_ok());
    assert!(curl(&a, a.v4(HTTP))?.is_ok());
    assert!(curl(&mesh.outsider, mesh.outsider.v4(HTTP))?.is_ok());

    mesh.n1 = settings.start()?;
    for server in [mesh.b.v4(HTTP), mesh.outsider.v4(HTTP)] {
        let answer = curl(&a, server)?;
        assert!(answer.is_ok(), "{answer:?}");
    }
    Ok(())
}

#[test]
fn a_successor_replaces_what_it_finds_and_adds_nothing() -> Result<()> {
    let mut mesh = Mesh::new("successors")?;
    let count =
        |objects: &Objects| [&objects.programs, &objects.links, &objects.maps].map(BTreeSet::len);
    let (pinned, objects) = (all_pins(&mesh.n1)?, Objects::of(&mesh.n1)?);
    let (entries, first_hooks) = (Entries::of(&mesh.n1)?, hooks(&mesh.n1)?);
    for _ in 0..2 {
        let settings = mesh.n1.settings();
        mesh.n1.kill()?;
        mesh.n1 = settings.start()?;
        assert_eq!(all_pins(&mesh.n1)?, pinned);
        assert_eq!(Entries::of(&mesh.n1)?, entries);
        wait_for("the predecessor's programs are freed", SOON, || {
            Ok((count(&Objects::of(&mesh.n1)?) == count(&objects)).then_some(()))
        })
        .with_context(|| format!("{objects:?} -> {:?}", Objects::of(&mesh.n1)))?;
    }
    assert_ne!(hooks(&mesh.n1)?, first_hooks);
    assert!(curl(&mesh.a, mesh.b.v4(HTTP))?.is_ok());
    Ok(())
}
