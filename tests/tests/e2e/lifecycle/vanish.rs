//! Pods that go away without a word, and pods that take over their addresses.

use anyhow::{Context as _, Result};
use fairlead_lab::{Host as _, Pod, PodSpec, WorkloadEntry, python, wait_for};

use super::listed;
use crate::{
    bpf::Entries,
    clients::{SOON, curl, end_of, run_python, say, talk},
    descriptors::of_connections,
    mesh::{ECHO, HTTP, Mesh},
};

/// Connections before descriptors are counted: more than it takes for each worker thread to serve one.
const WARM_UP: &str = "200";

/// Last number of the addresses that two pods have one after the other.
const ADDRESS: u8 = 77;

/// Adds a pod with the shared address to node 2, with servers.
fn add_pod(mesh: &mut Mesh, name: &str, service_account: &str) -> Result<Pod> {
    let spec = PodSpec::new(name).namespace("shop").service_account(service_account);
    let pod = mesh.lab.node(2).add_pod(spec.host_number(ADDRESS))?;
    mesh.serve_echo(&pod)?;
    mesh.serve(&pod, "http_server.py", HTTP)?;
    Ok(pod)
}

#[test]
fn a_pod_that_disappears_is_released_with_all_that_it_had() -> Result<()> {
    let mut mesh = Mesh::new("vanish")?;
    let b = mesh.b.clone();
    mesh.serve_echo(&b)?;
    // What each worker thread opens once stays.
    let (host, port) = (b.ipv4().to_string(), ECHO.to_string());
    run_python(&mesh.a, "short_connections.py", &[&host, &port, WARM_UP, "4"])?;
    let (entries, descriptors) = (Entries::of(&mesh.n2)?, of_connections(&mesh.n2)?);
    let pod = add_pod(&mut mesh, "v", "old")?;
    mesh.config.workloads.push(WorkloadEntry::of(&pod));
    mesh.apply()?;
    mesh.n2.enrol(&pod)?;
    assert_eq!(Entries::of(&mesh.n2)?.listeners, entries.listeners + 3);
    let mut open = talk(&mesh.a, pod.v4(ECHO))?;
    say(&mut open, "hello")?;

    // Its peer may hear nothing of the end: no packet leaves the pod any more.
    pod.delete()?;
    wait_for("the pod is released", SOON, || Ok(listed(&mesh.n2, "v")?.is_none().then_some(())))?;
    wait_for("its entries and pins are gone", SOON, || {
        Ok((Entries::of(&mesh.n2)? == entries).then_some(()))
    })?;
    wait_for("its sockets are closed", SOON, || {
        Ok((of_connections(&mesh.n2)? <= descriptors).then_some(()))
    })
    .with_context(|| format!("{descriptors} before, now {:?}", of_connections(&mesh.n2)))
}

#[test]
fn a_pod_that_takes_over_an_address_has_its_own_identity_and_no_byte_of_the_other() -> Result<()> {
    let mut mesh = Mesh::new("reuse")?;
    let old = add_pod(&mut mesh, "old", "old")?;
    mesh.config.workloads.push(WorkloadEntry::of(&old));
    mesh.apply()?;
    mesh.n2.enrol(&old)?;
    assert!(curl(&mesh.a, old.v4(HTTP))?.is_ok());
    assert!(curl(&old, mesh.d.v4(HTTP))?.is_ok());
    let mut open = talk(&mesh.a, old.v4(ECHO))?;
    say(&mut open, "hello")?;

    // No wait in between: the address is in use again at once.
    old.delete()?;
    let new = add_pod(&mut mesh, "new", "new")?;
    mesh.n2.enrol(&new)?;
    // The configuration still says that the old pod is there: whoever answers is not it.
    let answer = curl(&mesh.a, new.v4(HTTP))?;
    assert!(answer.is_refused(), "{answer:?}");
    open.send_line("send for the old pod only")?;
    end_of(&mut open)?;
    assert!(!open.stdout()?.contains("received for the old pod only"));

    mesh.config.workloads.retain(|workload| workload.name != "old");
    mesh.config.workloads.push(WorkloadEntry::of(&new));
    mesh.apply()?;
    let seen = (mesh.n1.access_log()?.len(), mesh.n2.access_log()?.len());
    assert!(curl(&mesh.a, new.v4(HTTP))?.is_ok());
    assert!(curl(&new, mesh.d.v4(HTTP))?.is_ok());
    mesh.n1.wait_for_access(|line| line.is("src.identity", &new.identity()))?;
    mesh.n2.wait_for_access(|line| line.is("dst.identity", &new.identity()))?;
    let lines = [&mesh.n1.access_log()?[seen.0..], &mesh.n2.access_log()?[seen.1..]].concat();
    for line in lines {
        for key in ["src.identity", "dst.identity"] {
            assert!(!line.is(key, &old.identity()), "{line:?}");
        }
    }
    Ok(())
}

#[test]
fn an_identity_belongs_to_the_namespace_of_a_socket_whatever_process_holds_it() -> Result<()> {
    let mut mesh = Mesh::new("pairing")?;
    let b = mesh.b.clone();
    mesh.serve_echo(&b)?;
    let connect =
        |host: &dyn Fn(Vec<String>) -> Result<fairlead_lab::Output>, way: &str, pod: &Pod| {
            let netns = pod.netns().path().to_string_lossy().into_owned();
            let (ip, port) = (b.ipv4().to_string(), ECHO.to_string());
            let args = [way, ip.as_str(), port.as_str(), "who am I", netns.as_str()];
            let said = host(python("connect_as.py", &args))?.checked()?.stdout;
            let port = said.lines().find_map(|line| line.strip_prefix("local_port "));
            Ok::<_, anyhow::Error>(format!("{}:{}", pod.ipv4(), port.context("no port")?))
        };
    // A process of one pod with a socket of another pod's namespace; a process of the node that
    // enters a pod's namespace.
    let (a, c) = (mesh.a.clone(), mesh.c.clone());
    let foreign = connect(&|command| a.run(command), "foreign", &c)?;
    let entered = connect(&|command| mesh.lab.node(1).run(command), "enters", &a)?;
    for (client, owner) in [(foreign, c), (entered, a)] {
        for node in [&mesh.n1, &mesh.n2] {
            let line = node.wait_for_access(|line| line.is("src.addr", &client))?;
            assert!(line.is("src.identity", &owner.identity()), "{line:?}");
        }
    }
    Ok(())
}
