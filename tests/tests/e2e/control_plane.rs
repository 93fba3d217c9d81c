//! The mesh as a control plane describes it: every change is an edit of a file in its directory.

mod absence;
mod endpoints;
mod files;
mod identities;
mod outside;
mod policy;
mod rotation;
mod waypoints;
mod wire;

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result};
use fairlead_lab::{FairleadNode, Host, wait_for};

use crate::clients::{Answer, SOON, curl};

/// Waits until an answer of `server` is as `wanted`, and returns it.
fn wait_for_answer(
    host: &impl Host,
    server: SocketAddr,
    wanted: impl Fn(&Answer) -> bool,
) -> Result<Answer> {
    wait_for_answer_within(SOON, host, server, wanted)
}

/// The same for what takes its time.
fn wait_for_answer_within(
    limit: Duration,
    host: &impl Host,
    server: SocketAddr,
    wanted: impl Fn(&Answer) -> bool,
) -> Result<Answer> {
    let mut last = None;
    wait_for(&format!("the wanted answer of {server}"), limit, || {
        let answer = curl(host, server)?;
        let found = wanted(&answer).then(|| answer.clone());
        last = Some(answer);
        Ok(found)
    })
    .with_context(|| format!("the last was {last:?}"))
}

/// Returns whether a stream to the control plane is open.
fn is_connected(node: &FairleadNode) -> Result<bool> {
    Ok(node.metrics()?.sum("fairlead_xds_connected", &[]) > 0.0)
}

/// Time in which nodes find a control plane that is back: twice their longest wait between attempts.
const RETURN: Duration = Duration::from_secs(30);

/// Waits until all of `nodes` have a stream to the control plane, or none of them.
fn wait_connected(nodes: [&FairleadNode; 2], connected: bool) -> Result<()> {
    nodes.iter().try_for_each(|node| {
        wait_for(&format!("connected: {connected}"), RETURN, || {
            Ok((is_connected(node)? == connected).then_some(()))
        })
    })
}
