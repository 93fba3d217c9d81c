//! The proxy dies, is started again, renews its certificates; pods stay safe and go on.

mod records;
mod renewal;
mod succession;

use std::{net::SocketAddr, path::Path, process::Command, time::Duration};

use anyhow::{Result, ensure};
use fairlead_lab::{Child, FairleadNode, Host as _, Pod, PodSpec, wait_for};

use crate::{
    bpf::{Entries, pin_dir},
    clients::{SOON, curl, curl_with},
    mesh::{HTTP, Mesh},
};

/// Path of the requests during the crash; it must not cross the wire readable.
const SECRET: &str = "not-for-the-wire";

/// Most requests of a loop: it ends by itself if nobody ends it.
const MOST_REQUESTS: u32 = 500;

/// Time in which a connection is refused while no proxy runs, in seconds.
const REFUSAL_TIME: &str = "1";

/// Sends requests one after the other and prints a line for each: the HTTP status, 000 for none.
fn request_loop(pod: &Pod, server: SocketAddr) -> Result<Child> {
    let script = format!(
        "for i in $(seq {MOST_REQUESTS}); do \
         curl -s --max-time 2 -o /dev/null -w '%{{http_code}}\\n' 'http://{server}/{SECRET}'; \
         sleep 0.01; done"
    );
    let mut requests = pod.spawn(["sh", "-c", script.as_str()])?;
    requests.wait_for_output("200\n200\n200", SOON)?;
    Ok(requests)
}

/// Waits until a loop has got three more answers of this kind in a row.
fn wait_for_status(requests: &Child, status: &str) -> Result<()> {
    let before = requests.stdout()?.lines().count();
    let wanted = [status; 3];
    wait_for(&format!("answers with status {status}"), SOON, || {
        let said = requests.stdout()?;
        let lines: Vec<_> = said.lines().skip(before).collect();
        Ok(lines.ends_with(&wanted).then_some(()))
    })
}

fn assert_refused_at_once(pod: &Pod, server: SocketAddr) -> Result<()> {
    let answer = curl_with(pod, server, &["--connect-timeout", REFUSAL_TIME])?;
    ensure!(answer.is_refused(), "{} to {server}: {answer:?}", pod.name());
    Ok(())
}

#[test]
fn killed_during_traffic_nothing_leaks_and_after_a_restart_traffic_flows_again() -> Result<()> {
    let mut mesh = Mesh::new("killed")?;
    let (a, b) = (mesh.a.clone(), mesh.b.clone());
    mesh.serve(&a, "http_server.py", HTTP)?;
    let free = mesh.lab.node(2).add_pod(PodSpec::new("free"))?;
    let capture = mesh.lab.capture_wire()?;
    let loops = [request_loop(&a, b.v4(HTTP))?, request_loop(&b, a.v6(HTTP))?];

    let settings = mesh.n2.settings();
    mesh.n2.kill()?;
    for requests in &loops {
        wait_for_status(requests, "000")?;
    }
    for server in [a.v4(HTTP), a.v6(HTTP), mesh.outsider.v4(HTTP)] {
        assert_refused_at_once(&b, server)?;
    }
    for client in [&a, &mesh.outsider, &free] {
        assert_refused_at_once(client, b.v4(HTTP))?;
    }
    let wire = capture.finish()?;
    // Pods outside the mesh notice nothing.
    assert!(curl(&free, mesh.outsider.v4(HTTP))?.is_ok());

    mesh.n2 = settings.start()?;
    for requests in &loops {
        wait_for_status(requests, "200")?;
    }
    assert_eq!(wire.dropped(), 0);
    assert!(!wire.contains(SECRET.as_bytes())?, "plaintext crossed the wire");
    // What crossed in plaintext was refused by the pods it was for: no connection was made.
    let spoken = wire.count(&format!("tcp.port == {HTTP} && tcp.len > 0"))?;
    assert_eq!(spoken, 0, "{:?}", wire.ports_dialled());
    Ok(())
}

#[test]
fn a_pod_that_vanished_while_the_proxy_was_dead_is_forgotten() -> Result<()> {
    let mut mesh = Mesh::new("dead")?;
    let spare = mesh.lab.node(2).add_pod(PodSpec::new("spare").namespace("shop"))?;
    let entries = Entries::of(&mesh.n2)?;
    mesh.n2.enrol(&spare)?;
    let settings = mesh.n2.settings();
    mesh.n2.kill()?;
    spare.delete()?;
    mesh.n2 = settings.start()?;
    let list = mesh.n2.enrolled()?;
    assert!(list.contains("shop/b ") && !list.contains("shop/spare"), "{list}");
    assert_eq!(Entries::of(&mesh.n2)?, entries);
    assert!(curl(&mesh.a, mesh.b.v4(HTTP))?.is_ok());
    Ok(())
}

/// Starts another proxy on node 1, with an address for metrics; its others do not meet the first
/// one's.
fn second(mesh: &Mesh, run_dir: &Path, bpf_dir: &Path, metrics: [&str; 2]) -> Result<Child> {
    let mut command = Command::new(mesh.n1.binary());
    command.args(["run", "--node-name", "n1"]).args(metrics);
    command.args(["--readiness-address", "127.0.0.1:16021", "--admin-address", "127.0.0.1:16000"]);
    command.arg("--local-config").arg(mesh.config_path());
    command.arg("--local-ca").arg(mesh.ca_dir());
    command.arg("--run-dir").arg(run_dir).arg("--bpf-dir").arg(bpf_dir);
    mesh.lab.node(1).spawn(command)
}

#[test]
fn a_second_proxy_with_the_same_bpf_directory_is_refused_and_harms_nothing() -> Result<()> {
    let mesh = Mesh::new("second")?;
    let (list, entries) = (mesh.n1.enrolled()?, Entries::of(&mesh.n1)?);
    let other = mesh.lab.dir().join("other-run");
    std::fs::create_dir_all(&other)?;
    let free = ["--metrics-address", "127.0.0.1:16020"];
    let output = second(&mesh, &other, &pin_dir(&mesh.n1), free)?.wait(SOON)?;
    assert!(!output.success(), "{output:?}");
    let said = output.stdout + &output.stderr;
    assert!(said.contains("another fairlead-node") && said.contains("--bpf-dir"), "{said}");
    assert_eq!(mesh.n1.enrolled()?, list);
    assert_eq!(Entries::of(&mesh.n1)?, entries);
    assert!(curl(&mesh.a, mesh.b.v4(HTTP))?.is_ok());
    Ok(())
}

#[test]
fn a_proxy_that_is_killed_takes_no_pod_with_it_that_is_released_later() -> Result<()> {
    let mut mesh = Mesh::new("later")?;
    let settings = mesh.n1.settings();
    mesh.n1.kill()?;
    mesh.n1 = settings.start()?;
    mesh.n1.release(&mesh.c)?;
    wait_for("c is released", Duration::from_secs(5), || {
        Ok((!mesh.n1.enrolled()?.contains("tools/c ")).then_some(()))
    })?;
    assert_eq!(mesh.c.netns().sysctl("net/ipv4/tcp_fwmark_accept")?, "0");
    let capture = mesh.lab.capture_wire()?;
    assert!(curl(&mesh.c, mesh.b.v4(HTTP))?.is_ok());
    assert!(capture.finish()?.ports_dialled()?.contains_key(&HTTP));
    Ok(())
}

/// Returns the page of the admin interface that lists certificates.
fn config_dump(node: &FairleadNode) -> Result<serde_json::Value> {
    let page = node.node().http_get(SocketAddr::from(([127, 0, 0, 1], 15000)), "/config_dump")?;
    ensure!(page.status == 200, "status {}", page.status);
    Ok(serde_json::from_str(&page.body)?)
}
