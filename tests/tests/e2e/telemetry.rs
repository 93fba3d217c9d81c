//! What the proxies say about the connections that they carry, and about themselves.

mod admin;
mod drain;
mod paths;
mod process;
mod profile;

use std::collections::BTreeSet;

use anyhow::Result;
use fairlead_lab::{
    AccessLine, FairleadNode, Host as _, Metric, Pod, Policy, PolicyAction, python, wait_for,
};

use crate::{
    clients::{SOON, curl, run_python},
    mesh::{HTTP, Mesh, vip4, vip6},
};

/// Port of the server that sends and receives a known number of bytes.
const TRANSFER: u16 = 7002;

/// Sent each way, in MiB: enough for the copying in the kernel to take over.
const MIB: u64 = 4;

/// What `transfer.py` sends besides: the length to the server, two digests to the client.
const REQUEST_BYTES: u64 = (MIB << 20) + 8;
const RESPONSE_BYTES: u64 = (MIB << 20) + 64;

/// Labels of the TCP metrics, as dashboards expect them.
const LABELS: [&str; 27] = [
    "reporter",
    "source_workload",
    "source_canonical_service",
    "source_canonical_revision",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
    "destination_service",
    "destination_service_namespace",
    "destination_service_name",
    "destination_workload",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_cluster",
    "request_protocol",
    "response_flags",
    "connection_security_policy",
    "source_region",
    "source_zone",
    "destination_region",
    "destination_zone",
];

const OPENED: &str = "istio_tcp_connections_opened_total";
const CLOSED: &str = "istio_tcp_connections_closed_total";
const RECEIVED: &str = "istio_tcp_received_bytes_total";
const SENT: &str = "istio_tcp_sent_bytes_total";

#[test]
fn each_side_logs_a_connection_once_with_identities_bytes_and_reason() -> Result<()> {
    let mesh = Mesh::new("log")?;
    let serve =
        |pod: &Pod| pod.serve(python("transfer.py", &["serve", &TRANSFER.to_string()]), TRANSFER);
    let _servers = [serve(&mesh.b)?, serve(&mesh.d)?];
    for (server, node) in [(&mesh.b, &mesh.n2), (&mesh.d, &mesh.n1)] {
        transfer(&mesh.a, server)?;
        let own = only_line(&mesh.n1, "outbound", server.name())?;
        let theirs = only_line(node, "inbound", server.name())?;
        for line in [&own, &theirs] {
            expect_ends(&mesh, line, server);
        }
        expect_bytes(&own, REQUEST_BYTES, RESPONSE_BYTES);
        expect_bytes(&theirs, RESPONSE_BYTES, REQUEST_BYTES);
        assert_eq!(own.get("src.addr"), theirs.get("src.addr"));
        for (node, reporter) in [(&mesh.n1, "source"), (node, "destination")] {
            let labels = [("reporter", reporter), ("destination_principal", &server.identity())];
            expect_totals(node, &labels, REQUEST_BYTES, RESPONSE_BYTES)?;
        }
    }
    Ok(())
}

#[test]
fn plaintext_has_its_line_and_its_bytes_without_identities() -> Result<()> {
    let mesh = Mesh::new("plainlog")?;
    let _server =
        mesh.b.serve(python("transfer.py", &["serve", &TRANSFER.to_string()]), TRANSFER)?;
    transfer(&mesh.outsider, &mesh.b)?;
    let line = only_line(&mesh.n2, "inbound", "b")?;
    assert_eq!((line.get("src.identity"), line.get("dst.identity")), (None, None), "{line:?}");
    assert!(line.is("reason", "completed") && line.is("src.workload", "outsider"), "{line:?}");
    expect_bytes(&line, RESPONSE_BYTES, REQUEST_BYTES);
    let labels = [("reporter", "destination"), ("connection_security_policy", "unknown")];
    expect_totals(&mesh.n2, &labels, REQUEST_BYTES, RESPONSE_BYTES)?;
    assert!(mesh.n1.access_log()?.is_empty());
    Ok(())
}

#[test]
fn every_connection_that_was_opened_is_closed_and_has_a_line() -> Result<()> {
    let mut mesh = Mesh::new("balance")?;
    let deny = Policy::new(PolicyAction::Deny, "shop", "not-c").from_pod(&mesh.c);
    mesh.config.policies.push(deny);
    mesh.apply()?;
    let servers =
        [vip4(10, 80), vip6(10, 81), mesh.b.v4(HTTP), mesh.b.v4(9), vip4(20, 80), mesh.d.v6(9)];
    for server in servers {
        for client in [&mesh.a, &mesh.c, &mesh.outsider] {
            curl(client, server)?;
        }
    }
    for (node, refused) in [(&mesh.n1, ["DENY", "CONNECT"]), (&mesh.n2, ["DENY", "CONNECT"])] {
        let lines = wait_for("all to be closed", SOON, || {
            let (metrics, lines) = (node.metrics()?, node.access_log()?.len());
            let (opened, closed) = (metrics.sum(OPENED, &[]), metrics.sum(CLOSED, &[]));
            Ok((same(opened, lines) && same(closed, lines)).then_some(lines))
        })?;
        assert!(lines > servers.len(), "{lines} lines");
        let metrics = node.metrics()?;
        for flags in refused {
            let failed =
                metrics.sum("istio_tcp_connections_failed_total", &[("response_flags", flags)]);
            assert!(failed > 0.0, "no {flags} of {}", node.node().name());
        }
        let open = metrics.sum("istio_tcp_sockets_open", &[("reporter", "source")]);
        assert!(same(open, 0), "{open} sockets open");
    }
    Ok(())
}

#[test]
fn the_metrics_have_the_labels_that_dashboards_expect() -> Result<()> {
    let mesh = Mesh::new("labels")?;
    assert!(curl(&mesh.a, vip4(10, 80))?.is_ok());
    assert!(curl(&mesh.outsider, mesh.b.v4(HTTP))?.is_ok());
    only_line(&mesh.n1, "outbound", "b")?;
    let expected: BTreeSet<_> = LABELS.into_iter().collect();
    for (node, reporter) in [(&mesh.n1, "source"), (&mesh.n2, "destination")] {
        let metrics = node.metrics()?;
        for name in [OPENED, CLOSED, RECEIVED, SENT] {
            let found: Vec<&Metric> = metrics.matching(name, &[]).collect();
            assert!(!found.is_empty(), "{name}");
            for metric in found {
                let labels: BTreeSet<_> = metric.labels.keys().map(String::as_str).collect();
                assert_eq!(labels, expected, "{name}");
            }
            let mutual = [
                ("reporter", reporter),
                ("source_principal", &mesh.a.identity()),
                ("destination_principal", &mesh.b.identity()),
                ("source_workload_namespace", "shop"),
                ("destination_workload_namespace", "shop"),
                ("destination_service", "b.shop.svc.cluster.local"),
                ("destination_service_name", "b"),
                ("destination_service_namespace", "shop"),
                ("request_protocol", "tcp"),
                ("connection_security_policy", "mutual_tls"),
            ];
            assert!(metrics.sum(name, &mutual) > 0.0, "{name} of {reporter}");
        }
    }
    Ok(())
}

#[test]
fn a_node_is_ready_only_when_the_pods_on_record_are_captured() -> Result<()> {
    let mut mesh = Mesh::new("ready")?;
    let settings = mesh.n1.settings();
    mesh.n1.kill()?;
    assert!(mesh.lab.node(1).http_get("127.0.0.1:15021".parse()?, "/healthz/ready").is_err());
    mesh.n1 = settings.start()?;
    for pod in ["shop/a", "tools/c", "shop/d"] {
        let (namespace, name) = pod.split_once('/').unwrap_or_default();
        let listed = mesh.n1.enrolled()?;
        let has = |line: &&str| line.contains(namespace) && line.contains(name);
        assert!(listed.lines().any(|line| has(&line)), "{pod}: {listed}");
    }
    let answer = curl(&mesh.a, vip4(10, 80))?;
    assert!(answer.is_ok(), "{answer:?}");
    let page = mesh.lab.node(1).http_get("127.0.0.1:15021".parse()?, "/healthz/ready")?;
    assert_eq!((page.status, page.body.trim()), (200, "ready"));
    Ok(())
}

fn transfer(client: &Pod, server: &Pod) -> Result<()> {
    let arguments = ["run", &server.ipv4().to_string(), &TRANSFER.to_string(), &MIB.to_string()];
    run_python(client, "transfer.py", &arguments)?;
    Ok(())
}

/// Waits for the line of the one connection to the workload `destination`.
fn only_line(node: &FairleadNode, direction: &str, destination: &str) -> Result<AccessLine> {
    let of_it =
        |line: &AccessLine| line.is("direction", direction) && line.is("dst.workload", destination);
    let line = node.wait_for_access(of_it)?;
    assert_eq!(node.access_log()?.iter().filter(|line| of_it(line)).count(), 1);
    Ok(line)
}

fn expect_ends(mesh: &Mesh, line: &AccessLine, server: &Pod) {
    let tunnel = format!("{}:15008", server.ipv4());
    let target = format!("{}:{TRANSFER}", server.ipv4());
    for (key, value) in [
        ("src.identity", mesh.a.identity().as_str()),
        ("dst.identity", &server.identity()),
        ("src.workload", "a"),
        ("src.namespace", "shop"),
        ("dst.namespace", "shop"),
        ("dst.addr", &tunnel),
        ("dst.hbone_addr", &target),
        ("reason", "completed"),
    ] {
        assert!(line.is(key, value), "{key}: {line:?}");
    }
    assert!(line.get("duration").is_some_and(|duration| duration.ends_with("ms")), "{line:?}");
}

fn expect_bytes(line: &AccessLine, sent: u64, received: u64) {
    assert!(line.is("bytes_sent", &sent.to_string()), "{sent} sent: {line:?}");
    assert!(line.is("bytes_recv", &received.to_string()), "{received} received: {line:?}");
}

fn expect_totals(
    node: &FairleadNode,
    labels: &[(&str, &str)],
    request: u64,
    response: u64,
) -> Result<()> {
    let metrics = node.metrics()?;
    for (name, bytes) in [(RECEIVED, request), (SENT, response)] {
        let total = metrics.sum(name, labels);
        assert!(same(total, usize::try_from(bytes)?), "{name}: {total} instead of {bytes}");
    }
    for name in [OPENED, CLOSED] {
        assert!(same(metrics.sum(name, labels), 1), "{name}");
    }
    Ok(())
}

/// Compares a counter with a count; counters are whole numbers far below 2^53.
pub(crate) fn same(counter: f64, count: impl TryInto<u32>) -> bool {
    count.try_into().is_ok_and(|count| (counter - f64::from(count)).abs() < 0.5)
}
