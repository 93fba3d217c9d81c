//! How requests are shared out among backends.

use std::collections::HashMap;

use anyhow::{Context as _, Result, ensure};

use fairlead_lab::manifest::join;

use super::{Sender, calls::ECHO, get, http_route, route_of, scene::Scene};

/// Requests that are counted.
const REQUESTS: u32 = 600;

/// How many may go elsewhere than expected. By Hoeffding's inequality it is more with a probability
/// below 2 exp(-2 * 81² / 600), which is 7 in 10^10.
const TOLERATED: u32 = 81;

/// Connections that are counted.
const CONNECTIONS: u32 = 200;

/// How many may go elsewhere than expected: more than 48 of 200 do with a probability below
/// 2 exp(-2 * 48² / 200), which is 2 in 10^10.
const TOLERATED_CONNECTIONS: u32 = 48;

/// Checks that about this many requests went to each version.
fn check_shares(counts: &HashMap<String, u32>, expected: [(&str, u32); 2]) -> Result<()> {
    ensure!(counts.values().sum::<u32>() == REQUESTS, "{counts:?}");
    for (version, share) in expected {
        let count = counts.get(version).copied().unwrap_or_default();
        ensure!(count.abs_diff(share) <= TOLERATED, "{counts:?}");
    }
    Ok(())
}

#[test]
fn requests_and_connections_are_shared_out_by_the_weights_of_backends() -> Result<()> {
    let mut scene = Scene::new("gshares")?;
    // MeshHTTPRouteWeight
    let backends = "{backendRefs: [{name: echo-v1, port: 80, weight: 70}, {name: echo-v2, port: 80, \
                    weight: 30}]}";
    scene.apply(&http_route("weight", "echo", &[backends]))?;
    super::check(&scene, &get("echo"))?;
    let counts = scene.count(&[&format!("http://echo/[1-{REQUESTS}]")])?;
    check_shares(&counts, [("echo-v1", 420), ("echo-v2", 180)])?;
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
    check_shares(&counts, [("echo-v1", 420), ("echo-v2", 180)])?;
    connections(&mut scene)
}

/// The same for connections of which nobody looks at the protocol.
fn connections(scene: &mut Scene) -> Result<()> {
    // TCPRouteWeightedRouting
    let backends = "{backendRefs: [{name: echo-v1, port: 9090, weight: 90}, {name: echo-v2, port: \
                    9090, weight: 10}]}";
    scene.apply(&route_of("TCPRoute", ["shop", "weight"], "echo:9090", &[backends]))?;
    // A server that closes has every request come on a connection of its own.
    let urls = format!("http://echo:9090/[1-{CONNECTIONS}]");
    let counts = scene.count(&["-H", "Connection: close", &urls])?;
    let count = |version: &str| counts.get(version).copied().unwrap_or_default();
    ensure!(count("echo-v1") + count("echo-v2") == CONNECTIONS, "{counts:?}");
    ensure!(count("echo-v1").abs_diff(180) <= TOLERATED_CONNECTIONS, "{counts:?}");
    // TCPRouteInvalidBackendRefNonexistent; a route for TLS comes before one for TCP.
    let nowhere = "{backendRefs: [{name: echo-v1, port: 9091}]}";
    let second = "{backendRefs: [{name: echo-v2, port: 9090}]}";
    for (kind, backend, status) in
        [("TCPRoute", nowhere, 0), ("TLSRoute", second, 200), ("TLSRoute", nowhere, 0)]
    {
        let other = route_of("TCPRoute", ["shop", "other"], "echo:9090", &[backends]);
        let routes = match kind {
            "TLSRoute" => join([other, route_of(kind, ["shop", "route"], "echo:9090", &[backend])]),
            _ => route_of(kind, ["shop", "route"], "echo:9090", &[backend]),
        };
        scene.apply(&routes)?;
        let answer = scene.send(Sender::Producer, &["http://echo:9090/"])?;
        ensure!(answer.status == status, "{kind}: {answer:?}\n{}", scene.log());
        ensure!(answer.pod().is_none_or(|pod| pod == "echo-v2"), "{kind}: {answer:?}");
    }
    Ok(())
}
