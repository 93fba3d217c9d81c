//! A hand-over that breaks off, or that the other side does not understand, harms nothing.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::PathBuf,
    thread,
};

use anyhow::{Result, anyhow, ensure};
use fairlead_lab::{FairleadNode, Half, Lab, MeshConfig, PodSpec, wait_for};
use nix::sys::{
    signal::{Signal, kill},
    socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket},
};

use super::{PATIENCE, Scene, ends_well, ensure_none, upgrade};
use crate::clients::SOON;

/// Connections opened a second while hand-overs fail.
const RATE: usize = 100;

/// Streams that stay open over upgrades.
const STREAMS: usize = 8;

/// Longest message of the protocol.
const MESSAGE_BYTES: usize = 65536;

/// How far a successor gets before it dies.
const DEATHS: [Death; 4] = [
    Death { says: None, hears: 0 },
    Death { says: Some(TAKE_OVER), hears: 0 },
    Death { says: Some(TAKE_OVER), hears: 1 },
    Death { says: Some(TAKE_OVER), hears: 4 },
];

const TAKE_OVER: &str = r#"{"type":"take_over","version":1}"#;

#[derive(Clone, Copy, Debug)]
struct Death {
    says: Option<&'static str>,
    /// Messages that it takes.
    hears: usize,
}

fn handover_path(node: &FairleadNode) -> PathBuf {
    node.run_dir().join("handover.sock")
}

fn seqpacket() -> Result<OwnedFd> {
    Ok(socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?)
}

/// Speaks to the predecessor on `node` as a successor does.
fn approach(node: &FairleadNode, says: Option<&str>) -> Result<UnixStream> {
    let socket = seqpacket()?;
    connect(socket.as_raw_fd(), &UnixAddr::new(&handover_path(node))?)?;
    // Of another type than the library expects, but read and written in the same way.
    let mut successor = UnixStream::from(socket);
    if let Some(text) = says {
        successor.write_all(text.as_bytes())?;
    }
    Ok(successor)
}

/// Returns the next message, without what it carries; empty at the end.
fn hear(channel: &mut UnixStream) -> Result<String> {
    let mut message = vec![0; MESSAGE_BYTES];
    let length = channel.read(&mut message)?;
    Ok(String::from_utf8_lossy(&message[..length]).into_owned())
}

/// Waits until `node` has noticed `failures` hand-overs that failed.
fn wait_for_failures(node: &FairleadNode, failures: usize) -> Result<()> {
    wait_for("the hand-over fails", PATIENCE, || {
        let log = node.log()?;
        let count = log.matches("going on: nothing was handed over").count();
        Ok((count == failures).then_some(()))
    })
}

#[test]
fn successors_that_die_in_the_middle_leave_a_predecessor_that_works_and_can_be_upgraded()
-> Result<()> {
    let mut scene = Scene::new("halfway", &[])?;
    let spare = scene.mesh.lab.node(1).add_pod(PodSpec::new("spare").namespace("shop"))?;
    let before = scene.states()?;
    let openers = scene.open(RATE)?;
    for (failures, death) in (1..).zip(DEATHS) {
        let mut successor = approach(&scene.mesh.n1, death.says)?;
        for number in 0..death.hears {
            ensure!(
                !hear(&mut successor)?.is_empty(),
                "{death:?}: the end after {number} messages"
            );
        }
        drop(successor);
        wait_for_failures(&scene.mesh.n1, failures)?;
        scene.mesh.n1.enrol(&spare)?;
        scene.mesh.n1.release(&spare)?;
        openers.go_on(RATE / 2)?;
    }
    let predecessor = upgrade(&mut scene.mesh.n1)?;
    openers.go_on(RATE)?;
    let opened = openers.finish()?;
    let failures = opened.iter().flat_map(|opened| &opened.failures);
    ensure_none(failures, &[&predecessor, &scene.mesh.n1, &scene.mesh.n2])?;
    ends_well(predecessor)?;
    scene.wait_for_states(&before)?;
    scene.finish()?;
    Ok(())
}

#[test]
fn a_proxy_that_drains_since_an_earlier_upgrade_and_speaks_late_drains_nobody() -> Result<()> {
    let mut scene = Scene::new("late", &[])?;
    let streams = scene.talk(STREAMS)?;
    let openers = scene.open(RATE)?;
    let oldest = upgrade(&mut scene.mesh.n1)?;
    let late = oldest.pid_of(Half::Proxy)?;
    kill(late, Signal::SIGSTOP)?;
    let older = upgrade(&mut scene.mesh.n1)?;
    kill(late, Signal::SIGCONT)?;
    wait_for("all three proxies are served", PATIENCE, || {
        Ok((scene.mesh.n1.log()?.matches("serving a proxy").count() == 3).then_some(()))
    })?;
    openers.go_on(RATE)?;
    streams.wait_more(2 * STREAMS)?;
    let (reports, opened) = (streams.finish()?, openers.finish()?);
    let ended = reports.iter().filter_map(|report| report.failure.as_ref());
    let failures = ended.chain(opened.iter().flat_map(|opened| &opened.failures));
    ensure_none(failures, &[&scene.mesh.n1, &scene.mesh.n2])?;
    let log = scene.mesh.n1.log()?;
    ensure!(!log.contains(r#""message":"draining","open""#), "the newest proxy drains: {log}");
    [oldest, older].into_iter().try_for_each(ends_well)?;
    scene.finish()?;
    Ok(())
}

#[test]
fn a_successor_of_an_unknown_version_is_refused_and_the_node_goes_on() -> Result<()> {
    let scene = Scene::new("version", &[])?;
    let before = scene.states()?;
    let openers = scene.open(RATE)?;
    let mut successor = approach(&scene.mesh.n1, Some(r#"{"type":"take_over","version":0}"#))?;
    assert_eq!(hear(&mut successor)?, "", "something was handed over");
    wait_for_failures(&scene.mesh.n1, 1)?;
    let log = scene.mesh.n1.log()?;
    ensure!(log.contains("version 0"), "{log}");
    openers.go_on(RATE)?;
    let opened = openers.finish()?;
    let failures = opened.iter().flat_map(|opened| &opened.failures);
    ensure_none(failures, &[&scene.mesh.n1, &scene.mesh.n2])?;
    scene.wait_for_states(&before)?;
    scene.finish()?;
    Ok(())
}

/// Listens in the place of a predecessor and answers one successor with version 0.
fn answer_with_version_0(listener: &UnixListener) -> Result<String> {
    let (mut successor, _) = listener.accept()?;
    let request = hear(&mut successor)?;
    successor.write_all(br#"{"type":"hello","version":0}"#)?;
    Ok(request)
}

#[test]
fn a_predecessor_of_an_unknown_version_is_left_alone_and_the_successor_says_so() -> Result<()> {
    let lab = Lab::new("ancient")?;
    let config = lab.dir().join("config").join("mesh.yaml");
    fs::create_dir_all(config.with_file_name(""))?;
    MeshConfig::default().write(&config)?;
    let settings =
        FairleadNode::on(lab.node(1)).local_config(&config).local_ca(&lab.dir().join("ca"));
    let run_dir = lab.dir().join("run-n1");
    fs::create_dir_all(&run_dir)?;
    let listener = seqpacket()?;
    bind(listener.as_raw_fd(), &UnixAddr::new(&run_dir.join("handover.sock"))?)?;
    listen(&listener, Backlog::new(1)?)?;
    let predecessor = thread::spawn(move || answer_with_version_0(&UnixListener::from(listener)));
    let output = settings.start_unready()?.ended(PATIENCE)?;
    assert_eq!(predecessor.join().map_err(|_| anyhow!("a panic"))??, TAKE_OVER);
    assert!(!output.success(), "{output:?}");
    ensure!(output.elapsed < SOON, "it took {:?}", output.elapsed);
    let said = output.stdout + &output.stderr;
    ensure!(said.contains("speaks version 0") && said.contains("SIGTERM"), "{said}");
    Ok(())
}
