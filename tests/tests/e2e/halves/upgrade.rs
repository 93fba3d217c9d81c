//! An upgrade under load, by a successor or in place: nobody notices.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use fairlead_lab::{FairleadNode, Half, wait_for};
use nix::sys::signal::Signal;

use super::{PATIENCE, Scene, ends_well, ensure_none, upgrade};
use crate::traffic::{StreamReport, Traffic};

/// Connections opened a second, in the mesh.
const RATE: usize = 1000;

/// Long-lived streams, half of them on one node.
const STREAMS: usize = 200;

/// Streams in the tests of the deadline.
const FEW_STREAMS: usize = 8;

/// Time for open connections in the tests of the deadline.
const SHORT_DRAIN: Duration = Duration::from_secs(3);

/// Time after the deadline within which a busy machine has ended all streams.
const SLACK: Duration = Duration::from_secs(3);

/// Descriptors of a proxy that has carried traffic, beside those of one that has not: tunnels that
/// wait for the next connection, sockets that are ready for it.
const KEPT_DESCRIPTORS: usize = 24;

/// What an upgrade leaves behind, to be waited for.
enum Predecessor {
    /// A node proxy of its own.
    Node(Box<FairleadNode>),
    /// Processes of the node proxy that goes on.
    Processes,
}

/// Renews both halves of `node` in place.
fn renew(node: &mut FairleadNode) -> Result<Predecessor> {
    let before = pids(node)?;
    node.signal(Signal::SIGHUP)?;
    wait_for("the proxy before drains", PATIENCE, || {
        let renewed = pids(node)?.difference(&before).count() == 2;
        Ok((renewed && node.log()?.matches("draining a proxy").count() > 0).then_some(()))
    })
    .with_context(|| node.log().unwrap_or_default())?;
    Ok(Predecessor::Processes)
}

fn pids(node: &FairleadNode) -> Result<BTreeSet<i32>> {
    let halves = [node.pids_of(Half::Capture)?, node.pids_of(Half::Proxy)?];
    Ok(halves.concat().into_iter().map(nix::unistd::Pid::as_raw).collect())
}

// === impl Predecessor ===

impl Predecessor {
    /// Waits for its end; `node` is what goes on.
    fn ends_well(self, node: &FairleadNode) -> Result<()> {
        match self {
            Self::Node(predecessor) => ends_well(*predecessor),
            Self::Processes => {
                wait_for("the processes before end", PATIENCE, || {
                    Ok((pids(node)?.len() == 2).then_some(()))
                })?;
                let log = node.log()?;
                ensure!(!log.contains("not ended in time"), "{log}");
                Ok(())
            }
        }
    }
}

/// Changes both nodes with `change` while clients talk to both.
fn change_under_load(
    name: &str,
    change: impl Fn(&mut FairleadNode) -> Result<Predecessor>,
) -> Result<()> {
    let mut scene = Scene::new(name, &[])?;
    let before = scene.states()?;
    let fresh = descriptors(&mut scene)?;
    let streams = scene.talk(STREAMS)?;
    let openers = scene.open(RATE)?;

    let mut predecessors = Vec::new();
    for node in scene.nodes() {
        let started = Instant::now();
        predecessors.push(change(node)?);
        println!("{} is changed after {:?}", node.node().name(), started.elapsed());
        openers.go_on(RATE)?;
        streams.wait_more(STREAMS)?;
    }
    let reports = finish(streams)?;
    for (node, predecessor) in scene.nodes().into_iter().zip(predecessors) {
        predecessor.ends_well(node)?;
    }
    openers.go_on(RATE / 2)?;
    let opened = openers.finish()?;

    let nodes = [&scene.mesh.n1, &scene.mesh.n2];
    let ended = reports.iter().filter_map(|report| report.failure.as_ref());
    ensure_none(ended, &nodes).context("long-lived streams")?;
    ensure_none(opened.iter().flat_map(|opened| &opened.failures), &nodes)
        .context("new connections")?;
    scene.wait_for_states(&before)?;
    wait_for("descriptors are closed", PATIENCE, || {
        let now = descriptors(&mut scene)?;
        let few = |(now, fresh): (&usize, &usize)| *now <= fresh + KEPT_DESCRIPTORS;
        Ok(now.iter().zip(&fresh).all(few).then_some(()))
    })
    .with_context(|| format!("at the start: {fresh:?}, now: {:?}", descriptors(&mut scene)))?;
    scene.finish()?;
    Ok(())
}

fn finish(streams: Traffic<Vec<StreamReport>>) -> Result<Vec<StreamReport>> {
    let reports = streams.finish()?;
    let rounds: Vec<_> = reports.iter().map(|report| report.rounds).collect();
    println!(
        "{} streams, each {:?} to {:?} rounds",
        reports.len(),
        rounds.iter().min(),
        rounds.iter().max()
    );
    Ok(reports)
}

fn descriptors(scene: &mut Scene) -> Result<Vec<usize>> {
    scene.nodes().into_iter().map(|node| Ok(node.resources()?.descriptors)).collect()
}

#[test]
fn an_upgrade_of_both_nodes_under_load_loses_no_connection_and_no_byte() -> Result<()> {
    change_under_load("upgrade", |node| Ok(Predecessor::Node(upgrade(node)?.into())))
}

#[test]
fn a_renewal_in_place_of_both_nodes_under_load_loses_no_connection_and_no_byte() -> Result<()> {
    change_under_load("renew", renew)
}

/// Upgrades a node, and returns the streams from `a` with the times between which it began to drain.
fn outlive(scene: &mut Scene, node: usize) -> Result<(Vec<StreamReport>, [Instant; 2])> {
    let streams = scene.talk(FEW_STREAMS)?;
    let from = Instant::now();
    let predecessor = upgrade(scene.nodes()[node])?;
    let to = Instant::now();
    ends_well(predecessor)?;
    Ok((streams.finish()?, [from, to]))
}

fn ended_at_the_deadline(report: &StreamReport, [from, to]: [Instant; 2]) -> Result<()> {
    let failure = report.failure.as_ref().with_context(|| format!("not ended: {report:?}"))?;
    let early = failure.ended < from + SHORT_DRAIN;
    let late = failure.ended > to + SHORT_DRAIN + SLACK;
    ensure!(!early && !late, "{:?} after the upgrade: {report:?}", failure.ended - from);
    Ok(())
}

#[test]
fn streams_that_outlive_the_drain_period_of_their_clients_node_end_at_its_end() -> Result<()> {
    let seconds = SHORT_DRAIN.as_secs().to_string();
    let mut scene = Scene::new("outlive", &["--drain-timeout", &seconds])?;
    let (reports, drained) = outlive(&mut scene, 0)?;
    reports.iter().try_for_each(|report| ended_at_the_deadline(report, drained))?;
    scene.finish()?;
    Ok(())
}

#[test]
fn streams_that_outlive_the_drain_period_of_their_servers_node_end_at_its_end() -> Result<()> {
    let seconds = SHORT_DRAIN.as_secs().to_string();
    let mut scene = Scene::new("outlived", &["--drain-timeout", &seconds])?;
    let (reports, drained) = outlive(&mut scene, 1)?;
    for report in &reports {
        match report.target.as_str() {
            "b" => ended_at_the_deadline(report, drained)?,
            _ => ensure!(report.failure.is_none(), "the node of {report:?} was not upgraded"),
        }
    }
    scene.finish()?;
    Ok(())
}
