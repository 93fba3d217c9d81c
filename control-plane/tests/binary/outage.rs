//! An API server that misbehaves while the program runs.

use std::time::Duration;

use anyhow::{Context as _, Result};
use fairlead_kube_api::Faults;

use crate::{
    client::{Client, certify},
    cluster::{CART, POD, cluster, pod, start},
    plane::{Plane, eventually},
};

/// When the API server has last answered, by the metrics.
async fn answered(plane: &Plane) -> Result<f64> {
    let metrics = plane.page("/metrics").await?;
    let name = "fairlead_cluster_answered_timestamp_seconds ";
    let value = metrics.lines().find_map(|line| line.strip_prefix(name));
    Ok(value.context("no such metric")?.parse()?)
}

async fn wait_answered_after(plane: &Plane, time: f64) -> Result<()> {
    eventually("the API server is seen to answer", async || {
        (answered(plane).await.ok()? > time).then_some(())
    })
    .await
}

#[tokio::test]
async fn what_a_misbehaving_server_keeps_back_is_made_up_for_without_a_restart() -> Result<()> {
    let server = cluster().await?;
    let mut plane = start(&server, "good").await?;
    let mut client = Client::connect(&plane)?;
    client.until(|known| known.contains_key(POD)).await?;
    wait_answered_after(&plane, answered(&plane).await?).await?;

    // Refusals, and no watch; what happens meanwhile is forgotten before it can be asked for.
    server.set_faults(Faults { refuse: u32::MAX, ..Faults::default() });
    server.drop_watches();
    server.apply(&pod("meanwhile", "10.0.0.8"))?;
    server.compact();
    plane.line("cannot ask for the lease").await?;
    let silent = answered(&plane).await?;
    plane.line("cannot ask for the lease").await?;
    assert!(answered(&plane).await? <= silent, "the state is shown to grow stale");
    // What is known is served.
    Client::connect(&plane)?.until(|known| known.contains_key(POD)).await?;
    certify(&plane, CART).await??;

    server.set_faults(Faults { delay: Duration::from_secs(5), ..Faults::default() });
    client.until(|known| known.contains_key("Kubernetes//Pod/default/meanwhile")).await?;
    server.apply(&pod("slowly", "10.0.0.9"))?;
    client.until(|known| known.contains_key("Kubernetes//Pod/default/slowly")).await?;
    server.set_faults(Faults::default());
    wait_answered_after(&plane, silent).await
}
