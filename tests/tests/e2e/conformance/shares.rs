//! How requests are shared out among backends.

use std::collections::HashMap;

use anyhow::{Context as _, Result, ensure};

use super::{calls::ECHO, get, http_route, route_of, scene::Scene};

/// Requests that are counted.
const REQUESTS: u32 = 1000;

/// How many may go elsewhere than expected. By Hoeffding's inequality it are more with a probability
/// below 2 exp(-2 * 115² / 1000), which is 7 in 10^12.
const TOLERATED: u32 = 115;

/// Checks that this many of a thousand requests went to each version.
fn check_shares(counts: &HashMap<String, u32>, expected: [(&str, u32); 2]) -> Result<()> {
    ensure!(counts.values().sum::<u32>() == REQUESTS, "{counts:?}");
    for (version, share) in expected {
        let count = counts.get(version).copied().unwrap_or_default();
        ensure!(count.abs_diff(share) <= TOLERATED, "{counts:?}");
    }
    Ok(())
}

#[test]
fn requests_are_shared_out_by_the_weights_of_backends() -> Result<()> {
    let mut scene = Scene::new("gshares")?;
    // MeshHTTPRouteWeight
    let backends = "{backendRefs: [{name: echo-v1, port: 80, weight: 70}, {name: echo-v2, port: 80, \
                    weight: 30}]}";
    scene.apply(&http_route("weight", "echo", &[backends]))?;
    super::check(&scene, &get("echo"))?;
    let counts = scene.count(&format!("http://echo/[1-{REQUESTS}]"))?;
    check_shares(&counts, [("echo-v1", 700), ("echo-v2", 300)])?;
    // MeshGRPCRouteWeight
    let backends = "{backendRefs: [{name: echo-v1, port: 7070, weight: 70}, {name: echo-v2, port: \
                    7070, weight: 30}]}";
    scene.apply(&route_of("GRPCRoute", ["shop", "weight"], "echo:7070", &[backends]))?;
    let mut client = scene.call_echo()?;
    let mut counts = HashMap::new();
    for _ in 0..REQUESTS {
        let report = client.call(ECHO, &[])?.with_context(|| scene.log())?;
        *counts.entry(report.server).or_default() += 1;
    }
    check_shares(&counts, [("echo-v1", 700), ("echo-v2", 300)])
}
