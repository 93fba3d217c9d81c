//! Step 7: the proxy of node 2 is followed by another one, and no connection notices.

use super::changes::endless_requests;
use super::look::{curl, say, talk};
use super::mesh::{SOON, vip};
use super::report::Report;
use anyhow::{Result, ensure};
use fairlead_lab::mesh::{ECHO, Mesh};
use fairlead_lab::{Child, wait_for};

/// Further answers that the traffic has to get after the change.
const MORE_ANSWERS: usize = 50;

/// Starts a second `fairlead-node run` beside the first, as an upgraded container would.
pub(super) fn play(mesh: &mut Mesh, report: &Report) -> Result<()> {
    report.did(
        "a",
        &format!("curl http://{}/..., again and again; the first failure ends it", vip(80)),
    );
    let mut traffic = endless_requests(&mesh.a)?;
    let mut open = talk(&mesh.c, vip(ECHO))?;
    report.holds(
        "a connection of c that stays open",
        say(&mut open, "before")?,
        "alive",
        "alive",
    )?;

    report.did("n2", "fairlead-node run, beside the one that runs, with the same arguments");
    let successor = mesh.n2.settings().start()?;
    let predecessor = std::mem::replace(&mut mesh.n2, successor);
    let drains = || Ok(predecessor.log()?.contains("draining").then_some(()));
    wait_for("the predecessor drains", SOON, drains)?;
    more_answers(&mut traffic)?;
    report.same("requests of a that failed", &failures(&traffic)?, &0)?;
    report.holds("the open connection of c", say(&mut open, "after")?, "alive", "alive")?;
    curl(&mesh.a, vip(80), "after-the-upgrade")?.succeeded(report, "a new connection of a")?;

    report.did("c", "closes its connection");
    drop(open);
    let output = predecessor.ended(SOON)?;
    let seen = if output.success() { "ended in order" } else { "failed" };
    report.same("the predecessor", &seen, &"ended in order")?;
    more_answers(&mut traffic)?;
    report.same("requests of a that failed", &failures(&traffic)?, &0)
}

pub(super) fn failures(traffic: &Child) -> Result<usize> {
    Ok(traffic.stdout()?.lines().filter(|status| *status != "200").count())
}

/// Waits until the traffic has got further answers; it ends with its first failure.
pub(super) fn more_answers(traffic: &mut Child) -> Result<()> {
    let before = traffic.stdout()?.lines().count();
    wait_for("more answers", SOON, || {
        ensure!(traffic.is_running()?, "a request failed: {:?}", traffic.stdout()?.lines().last());
        Ok((traffic.stdout()?.lines().count() >= before + MORE_ANSWERS).then_some(()))
    })
}
