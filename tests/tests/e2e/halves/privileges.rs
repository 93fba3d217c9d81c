//! The proxy process of a running node has no privilege, and needs none.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use fairlead_lab::{FairleadNode, Half, Lab, MeshConfig, process_tree};
use nix::unistd::Pid;

use super::{PATIENCE, Scene, ends_well, ensure_none, replace};
use crate::{
    clients::{SOON, curl},
    mesh::{HTTP, Mesh},
};

/// User and group of the proxy unless told otherwise.
const USER: &str = "65532";

/// Streams that stay open over upgrades.
const STREAMS: usize = 8;

/// Connections opened a second over upgrades.
const RATE: usize = 100;

fn proc_file(pid: Pid, file: &str) -> Result<String> {
    Ok(fs::read_to_string(format!("/proc/{pid}/{file}"))?)
}

/// Returns the value of a line of `/proc/PID/status`.
fn status(pid: Pid, name: &str) -> Result<String> {
    let text = proc_file(pid, "status")?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    Ok(value.with_context(|| format!("no {name} in {text}"))?.trim().to_owned())
}

/// Counts the open files of a process that are network namespaces.
fn namespaces_held(pid: Pid) -> Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let path = entry?.path();
        // One that is closed in the meantime is none. A namespace is named by its file system.
        let target = fs::read_link(&path).unwrap_or_default();
        let target = target.to_string_lossy().into_owned();
        count += usize::from(target.starts_with("net:[") || target.starts_with("/run/netns/"));
    }
    Ok(count)
}

/// Fails unless a process has no privilege and no way to one.
pub(crate) fn assert_unprivileged(pid: Pid, [user, group]: [&str; 2]) -> Result<()> {
    assert_eq!(status(pid, "Uid")?, [user; 4].join("\t"));
    assert_eq!(status(pid, "Gid")?, [group; 4].join("\t"));
    assert_eq!(status(pid, "Groups")?, "");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status(pid, set)?, "0000000000000000", "{set}");
    }
    assert_eq!(status(pid, "NoNewPrivs")?, "1");
    assert_eq!(status(pid, "Seccomp")?, "2");
    // Every thread, not only the first.
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(task?.path().join("status"))?;
        let filtered = |line: &str| line == "Seccomp:\t2";
        ensure!(text.lines().any(filtered), "{text}");
        ensure!(text.contains("CapEff:\t0000000000000000"), "{text}");
    }
    Ok(())
}

/// Fails unless a process sees `dir`, which it cannot write to, and nothing else.
fn assert_sees_only(pid: Pid, dir: &Path) -> Result<()> {
    let mounts = proc_file(pid, "mountinfo")?;
    let mut points = Vec::new();
    for line in mounts.lines() {
        let fields: Vec<_> = line.split(' ').collect();
        ensure!(fields[5].split(',').any(|option| option == "ro"), "{line}");
        points.push(PathBuf::from(fields[4]));
    }
    assert_eq!(points, [Path::new("/"), dir]);
    let mut seen = PathBuf::from("/");
    for part in dir.components().skip(1) {
        let inside =
            fs::read_dir(Path::new(&format!("/proc/{pid}/root")).join(seen.strip_prefix("/")?))?;
        let names: Vec<_> = inside.map(|entry| Ok(entry?.file_name())).collect::<Result<_>>()?;
        assert_eq!(names, [part.as_os_str()], "in {}", seen.display());
        seen.push(part);
    }
    Ok(())
}

#[test]
fn the_proxy_of_a_node_has_no_privilege_and_sees_its_configuration_only() -> Result<()> {
    let mut mesh = Mesh::new("privileges")?;
    let (proxy, capture) = (mesh.n1.pid_of(Half::Proxy)?, mesh.n1.pid_of(Half::Capture)?);
    // Connections and certificates have been made by then.
    assert!(curl(&mesh.a, mesh.b.v4(HTTP))?.is_ok());
    assert_unprivileged(proxy, [USER, USER])?;
    assert_sees_only(proxy, mesh.config_path().parent().context("no directory")?)?;
    assert_eq!(namespaces_held(proxy)?, 0);
    // Shows that a namespace would have been found.
    assert!(namespaces_held(capture)? > 0);

    mesh.config.services[0].addresses.push([10, 96, 0, 99].into());
    mesh.apply()?;
    assert!(curl(&mesh.a, ([10, 96, 0, 99], 80).into())?.is_ok());
    assert_eq!(mesh.n1.pid_of(Half::Proxy)?, proxy);
    Ok(())
}

#[test]
fn the_proxy_of_a_node_runs_as_the_user_that_it_is_told_to() -> Result<()> {
    let mesh = Mesh::with_args("user", &["--proxy-user", "64999:64998"])?;
    assert_unprivileged(mesh.n1.pid_of(Half::Proxy)?, ["64999", "64998"])?;
    assert!(curl(&mesh.a, mesh.b.v4(HTTP))?.is_ok());
    Ok(())
}

#[test]
fn a_configuration_that_the_proxys_user_may_not_read_is_refused_at_start() -> Result<()> {
    let lab = Lab::new("unreadable")?;
    let config = lab.dir().join("config").join("mesh.yaml");
    fs::create_dir_all(config.with_file_name(""))?;
    MeshConfig::default().write(&config)?;
    fs::set_permissions(&config, fs::Permissions::from_mode(0o600))?;
    let settings = FairleadNode::on(lab.node(1)).local_config(&config);
    let output = settings.local_ca(&lab.dir().join("ca")).start_unready()?.ended(PATIENCE)?;
    assert!(!output.success(), "{output:?}");
    assert!(output.elapsed < SOON, "it took {:?}", output.elapsed);
    let said = output.stdout + &output.stderr;
    for part in [&*config.to_string_lossy(), USER, "chmod", "--proxy-user"] {
        assert!(said.contains(part), "no {part} in {said}");
    }
    Ok(())
}

/// Prepares a successor of the proxy of node 1, in one process or in several.
fn successor(mesh: &Mesh, args: &[&str]) -> Result<FairleadNode> {
    FairleadNode::on(mesh.lab.node(1))
        .local_config(&mesh.config_path())
        .local_ca(&mesh.ca_dir())
        .args(args)
        .start_unready()
}

#[test]
fn one_process_serves_a_node_too_and_takes_over_from_several_and_hands_over_to_them() -> Result<()>
{
    let mut scene = Scene::new("single", &[])?;
    let before = scene.states()?;
    let streams = scene.talk(STREAMS)?;
    let openers = scene.open(RATE)?;
    let mut predecessors = Vec::new();
    for args in [&["--single-process"][..], &[]] {
        let next = successor(&scene.mesh, args)?;
        predecessors.push(replace(&mut scene.mesh.n1, next)?);
        let processes = process_tree(scene.mesh.n1.pid())?.len();
        assert_eq!(processes, if args.is_empty() { 3 } else { 1 });
        openers.go_on(RATE)?;
        streams.wait_more(STREAMS)?;
    }
    let (reports, opened) = (streams.finish()?, openers.finish()?);
    predecessors.into_iter().try_for_each(ends_well)?;
    let ended = reports.iter().filter_map(|report| report.failure.as_ref());
    let failures = ended.chain(opened.iter().flat_map(|opened| &opened.failures));
    ensure_none(failures, &[&scene.mesh.n1, &scene.mesh.n2])?;
    scene.wait_for_states(&before)?;
    scene.finish()?;
    Ok(())
}
