//! Steps 6 and 8: the mesh changes under running traffic, by order and by accident.

use super::look::{Fetch, curl, map_entries, only_tunnels, pins, say, talk};
use super::mesh::{SOON, access_after, vip};
use super::report::Report;
use anyhow::{Context, Result};
use fairlead_lab::mesh::{ECHO, HTTP, Mesh};
use fairlead_lab::{Child, FairleadNode, Host as _, Pod, WorkloadEntry, wait_for};
use std::time::Instant;

/// In every request of step 8, so that it would show in plaintext.
const SECRET: &str = "kept-while-the-proxy-is-dead";

/// Requests of steps 7 and 8, far more than fit into the time.
const MANY: u32 = 1_000_000;

/// Pods that are enrolled on node 1 all the time.
const PODS_OF_N1: usize = 3;

/// Step 6: the outsider joins the mesh and leaves it again.
pub(super) fn membership(mesh: &mut Mesh, report: &Report) -> Result<()> {
    // Not the service's address, which exists in the mesh only.
    let (inside, outside) = (mesh.b.v4(ECHO), mesh.outsider.v4(ECHO));
    report.did("outsider and a", "a connection to b, and one from a to the outsider");
    let mut connections = vec![
        ("outsider to b, opened outside the mesh", talk(&mesh.outsider, inside)?),
        ("a to outsider, opened outside the mesh", talk(&mesh.a, outside)?),
    ];
    all_alive(report, &mut connections, "before")?;

    enrol(mesh, report)?;
    all_alive(report, &mut connections, "enrolled")?;
    let known = mesh.n2.access_log()?.len();
    let capture = mesh.lab.capture_wire()?;
    report.did("outsider", "a new connection to b");
    connections.push(("outsider to b, opened in the mesh", talk(&mesh.outsider, inside)?));
    curl(&mesh.outsider, mesh.b.v4(HTTP), "as-a-member")?.succeeded(report, "answer")?;
    only_tunnels(report, &capture.finish()?, "as-a-member")?;
    let line = access_after(&mesh.n2, known, |line| line.is("src.workload", "outsider"))?;
    let identity = line.get("src.identity").unwrap_or_default();
    report.same("its identity in n2's access log", &identity, &mesh.outsider.identity())?;

    release(mesh, report)?;
    all_alive(report, &mut connections, "released")?;
    let capture = mesh.lab.capture_wire()?;
    report.did("outsider", "a new connection to b");
    curl(&mesh.outsider, mesh.b.v4(HTTP), "as-a-stranger")?.succeeded(report, "answer")?;
    let shown = capture.finish()?.contains(b"as-a-stranger")?;
    let seen = if shown { "readable" } else { "unreadable" };
    report.same("the request on the wire", &seen, &"readable")
}

/// Step 8: the proxy of node 2 dies and comes back.
pub(super) fn crash(mesh: &mut Mesh, report: &Report) -> Result<()> {
    let capture = mesh.lab.capture_wire()?;
    report.did("a", &format!("curl http://{}/..., again and again", vip(80)));
    let mut traffic = endless_requests(&mesh.a)?;
    let mut open = talk(&mesh.c, vip(ECHO))?;
    report.holds("a connection of c that stays open", say(&mut open, SECRET)?, "alive", "alive")?;

    kill(&mesh.n2, report)?;
    traffic.wait(SOON).context("curl goes on without the proxy")?;
    report.note("the traffic of a", "failed");
    let ended = wait_for("the end of the connection", SOON, || {
        let output = open.stdout()?;
        Ok((output.contains("closed") || output.contains("reset")).then_some(()))
    });
    let seen = if ended.is_ok() { "ended" } else { "open" };
    report.same("the open connection of c", &seen, &"ended")?;
    report.did("a and b", "curl, while there is no proxy on n2");
    curl(&mesh.a, vip(80), SECRET)?.failed(report, "a to b")?;
    curl(&mesh.b, mesh.d.v4(HTTP), SECRET)?.failed(report, "b to d")?;
    report.did("the wire", "packets since before the kill");
    only_tunnels(report, &capture.finish()?, SECRET)?;
    report.did("outsider", "curl, from outside the mesh");
    curl(&mesh.outsider, mesh.b.v4(HTTP), "")?.failed(report, "outsider to b")?;

    report.did("n2", "fairlead-node is started again with the same arguments");
    let started = Instant::now();
    mesh.n2 = mesh.n2.settings().start()?;
    let fetch = first_answer(mesh)?;
    fetch.succeeded(report, "a to b")?;
    report.note("since the start", format!("{} ms", started.elapsed().as_millis()));
    curl(&mesh.b, mesh.d.v4(HTTP), SECRET)?.succeeded(report, "b to d")
}

fn all_alive(report: &Report, connections: &mut [(&str, Child)], text: &str) -> Result<()> {
    for (name, connection) in connections {
        let alive = say(connection, text)?;
        let seen = if alive { "alive" } else { "dead" };
        report.same(name, &seen, &"alive")?;
    }
    Ok(())
}

fn enrol(mesh: &mut Mesh, report: &Report) -> Result<()> {
    set_membership(mesh, true)?;
    report.did("n1", "fairlead-node pod add --namespace tools --name outsider ...");
    let took = mesh.n1.enrol(&mesh.outsider)?.elapsed;
    report.note("time", format!("{} ms", took.as_millis()));
    membership_is(mesh, report, "ready", PODS_OF_N1 + 1)
}

fn release(mesh: &mut Mesh, report: &Report) -> Result<()> {
    set_membership(mesh, false)?;
    report.did("n1", "fairlead-node pod remove tools/outsider");
    let took = mesh.n1.release(&mesh.outsider)?.elapsed;
    report.note("time", format!("{} ms", took.as_millis()));
    membership_is(mesh, report, "draining", PODS_OF_N1)
}

/// Looks at the outsider's state and at how many pods the kernel captures.
fn membership_is(mesh: &Mesh, report: &Report, state: &str, captured: usize) -> Result<()> {
    let list = mesh.n1.enrolled()?;
    let line = list.lines().find(|line| line.contains(mesh.outsider.name()));
    let seen = line.and_then(|line| line.split_whitespace().nth(1)).unwrap_or("not listed");
    report.same("state in fairlead-node pod list", &seen, &state)?;
    let entries = map_entries(&pins(&mesh.n1).join("ENROLLED"))?;
    report.same("pods in the BPF map ENROLLED", &entries, &captured)
}

/// Tells the proxies whether the outsider speaks HBONE.
fn set_membership(mesh: &mut Mesh, member: bool) -> Result<()> {
    let entry = WorkloadEntry::of(&mesh.outsider);
    let entry = if member { entry } else { entry.plaintext() };
    if let Some(workload) = mesh.config.workload_mut(&mesh.outsider) {
        *workload = entry;
    }
    mesh.apply()
}

pub(super) fn endless_requests(pod: &Pod) -> Result<Child> {
    let url = format!("http://{}/{SECRET}-[1-{MANY}]", vip(80));
    let written = "%{http_code}\n";
    let mut traffic = pod.spawn([
        "curl",
        "-s",
        "--fail-early",
        "-H",
        "Connection: close",
        "-o",
        "/dev/null",
        "-w",
        written,
        url.as_str(),
    ])?;
    traffic.wait_for_output("200\n200\n200\n", SOON)?;
    Ok(traffic)
}

fn kill(proxy: &FairleadNode, report: &Report) -> Result<()> {
    report.did("n2", "kill -9 of fairlead-node");
    proxy.node().run(["sh", "-c", &format!("kill -9 {}", proxy.pid())])?.checked()?;
    wait_for("the end of fairlead-node", SOON, || Ok(proxy.is_ready().is_err().then_some(())))
}

/// Retries, because a peer may take a moment to notice that the proxy is back.
fn first_answer(mesh: &Mesh) -> Result<Fetch> {
    wait_for("an answer after the restart", SOON, || {
        let fetch = curl(&mesh.a, vip(80), SECRET)?;
        Ok(fetch.status.is_some().then_some(fetch))
    })
}
