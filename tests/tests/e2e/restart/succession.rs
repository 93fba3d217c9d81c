//! One process after the other: what is lost, or left over, when it goes wrong half-way.

use std::{
    io::{Read as _, Write as _},
    os::{fd::AsRawFd as _, unix::net::UnixStream},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use fairlead_lab::{FairleadNode, Half, wait_for};
use nix::sys::{
    signal::Signal,
    socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket},
};

use super::second;
use crate::{
    bpf::{Entries, pin_dir, pins},
    clients::{SOON, curl},
    mesh::{HTTP, Mesh},
};

/// Processes that the map of registrations has room for.
const MAX_PROXIES: u8 = 8;

/// Waits until the log of a node has a line.
fn wait_for_log(node: &FairleadNode, text: &str) -> Result<()> {
    wait_for(text, SOON, || Ok(node.log()?.contains(text).then_some(())))
        .with_context(|| node.log().unwrap_or_default())
}

/// Asks the proxy on `node` to hand over, and hears the beginning.
fn approach(node: &FairleadNode) -> Result<UnixStream> {
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    let path = node.run_dir().join("handover.sock");
    connect(socket.as_raw_fd(), &UnixAddr::new(&path)?)?;
    // Of another type than the library expects, but read and written in the same way.
    let mut successor = UnixStream::from(socket);
    successor.write_all(br#"{"type":"take_over","version":1}"#)?;
    ensure!(successor.read(&mut [0; 256])? > 0, "nothing is handed over");
    Ok(successor)
}

#[test]
fn a_proxy_stays_exempt_from_capture_while_its_link_is_renewed() -> Result<()> {
    let mut mesh = Mesh::new("exempt")?;
    mesh.n1.signal(Signal::SIGHUP)?;
    wait_for("the proxy before drains", SOON, || {
        ensure!(Entries::of(&mesh.n1)?.proxies > 0, "no proxy is exempt");
        Ok(mesh.n1.log()?.contains("draining a proxy").then_some(()))
    })?;
    wait_for("the proxy before is forgotten", SOON, || {
        Ok((Entries::of(&mesh.n1)?.proxies == 1).then_some(()))
    })?;
    assert!(curl(&mesh.a, mesh.b.v4(HTTP))?.is_ok());
    Ok(())
}

#[test]
fn registrations_that_nobody_used_keep_no_proxy_out() -> Result<()> {
    let mesh = Mesh::new("registered")?;
    for number in 1..=MAX_PROXIES {
        let mut command = Command::new("bpftool");
        command.args(["map", "update", "pinned"]).arg(pins(&mesh.n1).join("REGISTRATIONS"));
        command.args(["key", &number.to_string(), "0", "0", "0", "0", "0", "0", "9", "value", "1"]);
        let output = command.output()?;
        ensure!(output.status.success(), "{output:?}");
    }
    mesh.n1.kill_half(Half::Proxy)?;
    wait_for("a request is answered", SOON, || {
        Ok(curl(&mesh.a, mesh.b.v4(HTTP))?.is_ok().then_some(()))
    })
    .with_context(|| mesh.n1.log().unwrap_or_default())?;
    Ok(())
}

#[test]
fn a_successor_that_cannot_listen_leaves_the_predecessor_all_that_it_had() -> Result<()> {
    let mesh = Mesh::new("cannot")?;
    let (list, entries) = (mesh.n1.enrolled()?, Entries::of(&mesh.n1)?);
    // The address for metrics is one that the predecessor has for something else.
    let taken = ["--metrics-address", "127.0.0.1:15021"];
    let output = second(&mesh, mesh.n1.run_dir(), &pin_dir(&mesh.n1), taken)?.wait(SOON)?;
    assert!(!output.success(), "{output:?}");
    let said = output.stdout + &output.stderr;
    assert!(said.contains("cannot listen on 127.0.0.1:15021"), "{said}");
    wait_for_log(&mesh.n1, "going on: nothing was handed over")?;
    assert_eq!(mesh.n1.enrolled()?, list);
    assert_eq!(Entries::of(&mesh.n1)?, entries);
    assert!(curl(&mesh.a, mesh.b.v4(HTTP))?.is_ok());
    Ok(())
}

#[test]
fn a_signal_during_a_hand_over_that_fails_ends_the_node_in_order() -> Result<()> {
    let mut mesh = Mesh::new("signal")?;
    let successor = approach(&mesh.n1)?;
    mesh.n1.signal(Signal::SIGTERM)?;
    wait_for_log(&mesh.n1, "stopping")?;
    drop(successor);
    let output = mesh.n1.ended(SOON)?;
    ensure!(output.success(), "{output:?}");
    assert!(curl(&mesh.a, mesh.b.v4(HTTP))?.is_ok(), "without the mesh");
    Ok(())
}
