//! Pods enter and leave the mesh while they run, and vanish.

mod churn;
mod conflicts;
mod vanish;

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use fairlead_lab::{Child, FairleadNode, Host as _, Pod, PodSpec, WorkloadEntry};
use serde_json::Value;

use crate::{
    clients::{say, talk},
    mesh::{ECHO, Mesh},
};

/// Port of HBONE tunnels.
const HBONE: u16 = 15008;

/// Longest that an enrolment may take, in milliseconds; 10 is the aim on an idle machine.
const ENROLMENT_MS: f64 = 50.0;

/// Adds a pod to node 1 and to the configuration, not enrolled.
fn add_pod(mesh: &mut Mesh, name: &str) -> Result<Pod> {
    let spec = PodSpec::new(name).namespace("shop").service_account(name);
    let pod = mesh.lab.node(1).add_pod(spec)?;
    mesh.config.workloads.push(WorkloadEntry::of(&pod));
    mesh.apply()?;
    Ok(pod)
}

/// Returns what `pod list` says of the pod called `name`.
fn listed(node: &FairleadNode, name: &str) -> Result<Option<Value>> {
    let list = node.pod_command(&["list", "-o", "json"])?.checked()?.stdout;
    let pods: Vec<Value> = serde_json::from_str(&list).context(list)?;
    Ok(pods.into_iter().find(|pod| pod["name"] == name))
}

/// Opens a connection from a pod to `server`, and one to it from `client`.
fn talk_both_ways(client: &Pod, pod: &Pod, server: &Pod) -> Result<[Child; 2]> {
    let mut pair = [talk(client, pod.v6(ECHO))?, talk(pod, server.v4(ECHO))?];
    say_all(&mut pair, "opened")?;
    Ok(pair)
}

fn say_all<'a>(clients: impl IntoIterator<Item = &'a mut Child>, text: &str) -> Result<()> {
    clients.into_iter().try_for_each(|client| say(client, text))
}

/// Does `work` and returns its result, with the ports that were dialled on the wire meanwhile.
fn watching<T>(mesh: &Mesh, work: impl FnOnce() -> Result<T>) -> Result<(T, BTreeMap<u16, usize>)> {
    let capture = mesh.lab.capture_wire()?;
    let result = work()?;
    Ok((result, capture.finish()?.ports_dialled()?))
}

#[test]
fn connections_survive_enrolment_and_release_and_only_new_ones_change() -> Result<()> {
    let mut mesh = Mesh::new("lifecycle")?;
    let e = add_pod(&mut mesh, "e")?;
    let b = mesh.b.clone();
    mesh.serve_echo(&b)?;
    mesh.serve_echo(&e)?;

    let (mut before, dialled) = watching(&mesh, || talk_both_ways(&mesh.outsider, &e, &b))?;
    assert_eq!(dialled.get(&ECHO), Some(&1), "{dialled:?}");
    mesh.n1.enrol(&e)?;
    say_all(&mut before, "after the enrolment")?;

    let (mut during, dialled) = watching(&mesh, || talk_both_ways(&mesh.outsider, &e, &b))?;
    assert_eq!(dialled.keys().collect::<Vec<_>>(), [&HBONE], "{dialled:?}");
    mesh.n1.release(&e)?;
    assert_eq!(listed(&mesh.n1, "e")?.context("forgotten too early")?["state"], "draining");
    say_all(before.iter_mut().chain(&mut during), "after the release")?;

    let (mut after, dialled) = watching(&mesh, || {
        let mut client = talk(&e, b.v4(ECHO))?;
        say(&mut client, "opened")?;
        Ok(client)
    })?;
    assert_eq!(dialled.keys().collect::<Vec<_>>(), [&ECHO], "{dialled:?}");
    say_all(before.iter_mut().chain(&mut during).chain([&mut after]), "to the end")?;
    drop(during);
    let line = mesh.n1.wait_for_access(|line| line.is("src.identity", &e.identity()))?;
    assert!(line.is("dst.identity", &b.identity()), "{line:?}");
    fairlead_lab::wait_for("e is forgotten", crate::clients::SOON, || {
        Ok(listed(&mesh.n1, "e")?.is_none().then_some(()))
    })?;
    say_all(before.iter_mut().chain([&mut after]), "after all")?;
    assert_eq!(e.netns().sysctl("net/ipv4/tcp_fwmark_accept")?, "0");
    Ok(())
}

#[test]
fn a_pod_that_was_released_is_enrolled_again_at_once_while_it_drains() -> Result<()> {
    let mut mesh = Mesh::new("again")?;
    let b = mesh.b.clone();
    mesh.serve_echo(&b)?;
    let mut open = Vec::new();
    for round in 0..5 {
        let mut client = talk(&mesh.a, b.v4(ECHO))?;
        say(&mut client, "opened")?;
        open.push(client);
        mesh.n1.release(&mesh.a)?;
        mesh.n1.enrol(&mesh.a).with_context(|| format!("round {round}"))?;
    }
    say_all(&mut open, "to the end")?;
    let (answer, dialled) = watching(&mesh, || crate::clients::curl(&mesh.a, b.v4(8080)))?;
    assert!(answer.is_ok(), "{answer:?}");
    assert!(!dialled.contains_key(&8080), "{dialled:?}");
    drop(open);
    // The end of the last connection of a former enrolment undoes nothing of the present one.
    fairlead_lab::wait_for("no connection is open", crate::clients::SOON, || {
        Ok((listed(&mesh.n1, "a")?.context("a is gone")?["connections"] == 0).then_some(()))
    })?;
    let (answer, dialled) = watching(&mesh, || crate::clients::curl(&mesh.a, b.v4(8080)))?;
    assert!(answer.is_ok(), "{answer:?}");
    assert!(!dialled.contains_key(&8080), "{dialled:?}");
    Ok(())
}

#[test]
fn the_list_of_pods_says_how_each_one_is_and_enrolment_is_quick() -> Result<()> {
    let mut mesh = Mesh::new("list")?;
    let b = mesh.b.clone();
    mesh.serve_echo(&b)?;
    let mut client = talk(&mesh.a, b.v4(ECHO))?;
    say(&mut client, "hello")?;
    let a = listed(&mesh.n1, "a")?.context("a is not listed")?;
    assert_eq!(a["state"], "ready", "{a}");
    assert_eq!(a["connections"], 1, "{a}");
    assert_eq!(a["identity"], mesh.a.identity(), "{a}");
    let table = mesh.n1.enrolled()?;
    let row = table.lines().find(|line| line.starts_with("shop/a ")).context("no row")?;
    for text in ["ready", &mesh.a.ipv4().to_string(), &mesh.a.ipv6().to_string()] {
        assert!(row.to_lowercase().contains(text), "{row}");
    }
    let mut times = Vec::new();
    for name in ["a", "c", "d"] {
        let pod = listed(&mesh.n1, name)?.context("not listed")?;
        times.extend(pod["enrolled_in_ms"].as_f64());
    }
    println!("enrolment took {times:?} ms");
    assert_eq!(times.len(), 3);
    assert!(times.iter().all(|ms| *ms < ENROLMENT_MS), "{times:?} ms");
    Ok(())
}
