//! Steps 6 and 7: the mesh changes under running traffic, by order and by accident.

use super::look::{Fetch, curl, only_tunnels, say, talk};
use super::mesh::{ECHO, HTTP, Mesh, SOON, access_after, vip};
use super::report::Report;
use anyhow::{Context, Result};
use fairlead_lab::{Child, FairleadNode, Host as _, WorkloadEntry, wait_for};
use std::time::Instant;

/// In every request of step 7, so that it would show in plaintext.
const SECRET: &str = "kept-while-the-proxy-is-dead";

/// Requests of step 7, far more than fit into the time until the kill.
const MANY: u32 = 1_000_000;

/// Step 6: the outsider joins the mesh and leaves it again.
pub(super) fn membership(mesh: &mut Mesh, report: &Report) -> Result<()> {
    let outside = mesh.outsider.v4(ECHO);
    report.did("outsider and a", "a connection to b, and one from a to the outsider");
    let mut connections = vec![
        ("outsider to b, opened outside the mesh", talk(&mesh.outsider, vip_of_b(mesh))?),
        ("a to outsider, opened outside the mesh", talk(&mesh.a, outside)?),
    ];
    all_alive(report, &mut connections, "before")?;

    enrol(mesh, report)?;
    all_alive(report, &mut connections, "enrolled")?;
    let known = mesh.n2.access_log()?.len();
    let capture = mesh.lab.capture_wire()?;
    report.did("outsider", "a new connection to b");
    connections.push(("outsider to b, opened in the mesh", talk(&mesh.outsider, vip_of_b(mesh))?));
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

/// Step 7: the proxy of node 2 dies and comes back.
pub(super) fn crash(mesh: &mut Mesh, report: &Report) -> Result<()> {
    let capture = mesh.lab.capture_wire()?;
    report.did("a", &format!("curl http://{}/..., again and again", vip(80)));
    let mut traffic = endless_requests(mesh)?;
    let mut open = talk(&mesh.c, vip(ECHO))?;
    report.holds("a connection of c that stays open", say(&mut open, SECRET)?, "alive", "alive")?;

    let killed = kill(&mesh.n2, report)?;
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
    curl(&mesh.outsider, mesh.b.v4(HTTP), "")?.failed(report, "outsider to b")?;

    report.did("n2", "fairlead-node is started again with the same arguments");
    let dead = Instant::now();
    mesh.n2 = mesh.n2.settings().start()?;
    let fetch = first_answer(mesh)?;
    fetch.succeeded(report, "a to b")?;
    report.note("since the start", format!("{} ms", dead.elapsed().as_millis()));
    report.note("since the kill", format!("{} ms", killed.elapsed().as_millis()));
    curl(&mesh.b, mesh.d.v4(HTTP), SECRET)?.succeeded(report, "b to d")
}

fn vip_of_b(mesh: &Mesh) -> std::net::SocketAddr {
    // A service's address exists in the mesh only.
    mesh.b.v4(ECHO)
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
    let listed = mesh.n1.enrolled()?.contains("outsider");
    report.same("listed by fairlead-node pod list", &listed, &true)
}

fn release(mesh: &mut Mesh, report: &Report) -> Result<()> {
    set_membership(mesh, false)?;
    report.did("n1", "fairlead-node pod remove tools/outsider");
    let took = mesh.n1.release(&mesh.outsider)?.elapsed;
    report.note("time", format!("{} ms", took.as_millis()));
    let listed = mesh.n1.enrolled()?.contains("outsider");
    report.same("listed by fairlead-node pod list", &listed, &false)
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

fn endless_requests(mesh: &Mesh) -> Result<Child> {
    let url = format!("http://{}/{SECRET}-[1-{MANY}]", vip(80));
    let written = "%{http_code}\n";
    let mut traffic = mesh.a.spawn([
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

fn kill(proxy: &FairleadNode, report: &Report) -> Result<Instant> {
    report.did("n2", "kill -9 of fairlead-node");
    proxy.node().run(["sh", "-c", &format!("kill -9 {}", proxy.pid())])?.checked()?;
    let killed = Instant::now();
    wait_for("the end of fairlead-node", SOON, || Ok(proxy.is_ready().is_err().then_some(())))?;
    Ok(killed)
}

/// Retries, because a peer may take a moment to notice that the proxy is back.
fn first_answer(mesh: &Mesh) -> Result<Fetch> {
    wait_for("an answer after the restart", SOON, || {
        let fetch = curl(&mesh.a, vip(80), SECRET)?;
        Ok(fetch.status.is_some().then_some(fetch))
    })
}
