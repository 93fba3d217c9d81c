//! How packets fare between nodes, as the kernel measures it for the proxy.

use anyhow::Result;
use fairlead_lab::{FairleadNode, Host as _, Pod, PodSpec, WorkloadEntry, python, wait_for};

use crate::{
    clients::{SOON, curl, run_python},
    mesh::{HTTP, Mesh, TRANSFER},
};

const ROUND_TRIPS: &str = "fairlead_tcp_round_trip_seconds_count";
const CONNECTS: &str = "fairlead_tcp_connect_seconds_count";

/// Queue of the slow wire: 75 ms at 4 Mbit/s, and full when a transfer sends faster than that.
const SLOW_WIRE: [&str; 7] = ["tbf", "rate", "4mbit", "burst", "4kb", "limit", "40000"];

/// Least mean round trip over the slow wire, in seconds: its queue is rarely empty.
const SLOW: f64 = 0.02;

/// What is sent over the slow wire each way, in MiB.
const MIB: &str = "1";

/// Returns the value of a metric about connections from `source` to `destination`.
fn path(
    node: &FairleadNode,
    name: &str,
    reporter: &str,
    source: &Pod,
    destination: &Pod,
) -> Result<f64> {
    let labels = [
        ("reporter", reporter),
        ("source_workload", source.name()),
        ("source_workload_namespace", source.namespace()),
        ("destination_workload", destination.name()),
        ("destination_workload_namespace", destination.namespace()),
    ];
    Ok(node.metrics()?.sum(name, &labels))
}

#[test]
fn connections_between_nodes_are_measured_once_and_those_within_one_are_not() -> Result<()> {
    let mut mesh = Mesh::new("measured")?;
    let far = mesh.lab.node(2).add_pod(PodSpec::new("far").namespace("tools"))?;
    mesh.serve(&far, "http_server.py", HTTP)?;
    mesh.config.workloads.push(WorkloadEntry::of(&far).plaintext());
    mesh.apply()?;
    for (client, server) in
        [(&mesh.a, &mesh.b), (&mesh.a, &mesh.b), (&mesh.a, &mesh.d), (&mesh.a, &far)]
    {
        assert!(curl(client, server.v4(HTTP))?.is_ok(), "{}", server.name());
    }
    assert!(curl(&mesh.outsider, mesh.b.v6(HTTP))?.is_ok());

    let cases = [
        // The second request finds the tunnel of the first.
        (&mesh.n1, "source", &mesh.a, &mesh.b, 2.0, Some(1.0)),
        (&mesh.n2, "destination", &mesh.a, &mesh.b, 2.0, None),
        (&mesh.n1, "source", &mesh.a, &far, 1.0, Some(1.0)),
        (&mesh.n2, "destination", &mesh.outsider, &mesh.b, 1.0, None),
        (&mesh.n1, "source", &mesh.a, &mesh.d, 0.0, None),
        (&mesh.n1, "destination", &mesh.a, &mesh.d, 0.0, None),
    ];
    for (node, reporter, source, destination, closed, connected) in cases {
        let what = format!("{} to {} by the {reporter}", source.name(), destination.name());
        wait_for(&what, SOON, || {
            let counted = path(node, ROUND_TRIPS, reporter, source, destination)?;
            Ok(((counted - closed).abs() < 0.1).then_some(()))
        })?;
        let connects = path(node, CONNECTS, reporter, source, destination)?;
        match connected {
            // The two requests may have run on two threads, each with tunnels of its own.
            Some(least) => assert!((least..=closed).contains(&connects), "{what}: {connects}"),
            None => assert!(connects.abs() < 0.1, "{what}: {connects}"),
        }
    }
    Ok(())
}

#[test]
fn a_slow_wire_that_loses_packets_shows_in_round_trips_and_retransmits() -> Result<()> {
    let mut mesh = Mesh::new("lossy")?;
    let (a, b) = (mesh.a.clone(), mesh.b.clone());
    mesh.serve(&b, "transfer.py", TRANSFER)?;
    let of = |name: &str| path(&mesh.n1, name, "source", &a, &b);
    // Both ends, so that whoever sends waits in a queue that is filled by what is sent.
    for (node, peer) in [(1, 2), (2, 1)] {
        let wire = mesh.lab.wire_name(peer);
        let shape: Vec<_> =
            ["tc", "qdisc", "add", "dev", &wire, "root"].into_iter().chain(SLOW_WIRE).collect();
        mesh.lab.node(node).run(shape)?.checked()?;
    }
    let arguments = ["run", &b.ipv4().to_string(), &TRANSFER.to_string(), MIB];
    run_python(&a, "transfer.py", &arguments)?;

    wait_for("the measured connection", SOON, || Ok((of(ROUND_TRIPS)? > 0.5).then_some(())))?;
    let mean = of("fairlead_tcp_round_trip_seconds_sum")? / of(ROUND_TRIPS)?;
    assert!(mean > SLOW, "{mean} s");
    let lost = of("fairlead_tcp_retransmitted_segments_total")?;
    assert!(lost > 0.5, "{lost} segments");

    // A direct connection is measured as well.
    let plain = python("transfer.py", &arguments);
    mesh.outsider.run(plain)?.checked()?;
    let mean_of = |name: &str| path(&mesh.n2, name, "destination", &mesh.outsider, &b);
    wait_for("the direct connection", SOON, || Ok((mean_of(ROUND_TRIPS)? > 0.5).then_some(())))?;
    let mean = mean_of("fairlead_tcp_round_trip_seconds_sum")? / mean_of(ROUND_TRIPS)?;
    assert!(mean > SLOW, "{mean} s");
    Ok(())
}
