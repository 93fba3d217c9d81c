//! Connections as the kernel counts them for each pod.

use anyhow::Result;
use fairlead_lab::{FairleadNode, Pod, wait_for};

use crate::{
    bpf::Entries,
    clients::{SOON, curl},
    mesh::{HTTP, Mesh},
};

/// Connections that a client opens.
const CONNECTIONS: u32 = 20;

/// Returns how many connections of `pod` had this outcome; without one, all.
pub(super) fn counted(
    node: &FairleadNode,
    pod: &Pod,
    direction: &str,
    outcome: Option<&str>,
) -> Result<f64> {
    let mut labels =
        vec![("namespace", pod.namespace()), ("pod", pod.name()), ("direction", direction)];
    labels.extend(outcome.map(|outcome| ("outcome", outcome)));
    Ok(node.metrics()?.sum("fairlead_pod_connections_total", &labels))
}

/// Waits until so many connections are counted, and no more.
fn wait_counted(
    node: &FairleadNode,
    pod: &Pod,
    direction: &str,
    outcome: Option<&str>,
    count: u32,
) -> Result<()> {
    wait_for(&format!("{count} connections {direction} {outcome:?}"), SOON, || {
        let now = counted(node, pod, direction, outcome)?;
        Ok(((now - f64::from(count)).abs() < 0.1).then_some(()))
    })
}

#[test]
fn every_connection_of_a_pod_is_counted_by_what_became_of_it() -> Result<()> {
    let mesh = Mesh::new("counts")?;
    for _ in 0..CONNECTIONS {
        assert!(curl(&mesh.a, mesh.b.v4(HTTP))?.is_ok());
        assert!(curl(&mesh.outsider, mesh.d.v6(HTTP))?.is_ok());
    }
    wait_counted(&mesh.n1, &mesh.a, "outbound", Some("captured"), CONNECTIONS)?;
    wait_counted(&mesh.n1, &mesh.d, "inbound", Some("plaintext"), CONNECTIONS)?;
    wait_counted(&mesh.n1, &mesh.d, "inbound", None, CONNECTIONS)?;

    // The proxy, which is exempt, has opened the tunnels in the name of `a`.
    let tunnels = |(node, pod, direction, outcome)| counted(node, pod, direction, Some(outcome));
    wait_for("as many tunnels at both ends", SOON, || {
        let opened = tunnels((&mesh.n1, &mesh.a, "outbound", "bypassed"))?;
        let accepted = tunnels((&mesh.n2, &mesh.b, "inbound", "tunnel"))?;
        Ok((opened > 0.5 && (opened - accepted).abs() < 0.1).then_some(()))
    })?;
    // Connections within a pod, and those of pods outside the mesh, are nobody's business.
    assert!(curl(&mesh.d, mesh.d.v4(HTTP))?.is_ok());
    wait_counted(&mesh.n1, &mesh.d, "outbound", None, 0)?;
    wait_counted(&mesh.n1, &mesh.outsider, "outbound", None, 0)
}

#[test]
fn refused_connections_are_counted_also_those_that_no_process_has_seen() -> Result<()> {
    let mut mesh = Mesh::new("refused")?;
    assert!(curl(&mesh.c, mesh.b.v4(HTTP))?.is_ok());
    let settings = mesh.n1.settings();
    mesh.n1.kill()?;
    for server in [mesh.b.v4(HTTP), mesh.b.v6(HTTP), mesh.outsider.v4(HTTP)] {
        assert!(curl(&mesh.c, server)?.is_refused(), "{server}");
    }
    assert!(curl(&mesh.outsider, mesh.d.v4(HTTP))?.is_refused());
    mesh.n1 = settings.start()?;
    wait_counted(&mesh.n1, &mesh.c, "outbound", Some("refused"), 3)?;
    wait_counted(&mesh.n1, &mesh.c, "outbound", Some("captured"), 1)?;
    wait_counted(&mesh.n1, &mesh.d, "inbound", Some("refused"), 1)
}

#[test]
fn the_counts_of_a_pod_end_with_its_capture() -> Result<()> {
    let mesh = Mesh::new("ends")?;
    assert!(curl(&mesh.a, mesh.b.v4(HTTP))?.is_ok());
    wait_counted(&mesh.n1, &mesh.a, "outbound", Some("captured"), 1)?;
    assert_eq!(Entries::of(&mesh.n1)?.counted, 3);
    mesh.n1.release(&mesh.a)?;
    assert_eq!(Entries::of(&mesh.n1)?.counted, 2);
    wait_counted(&mesh.n1, &mesh.a, "outbound", None, 0)?;
    // It begins from nothing.
    mesh.n1.enrol(&mesh.a)?;
    assert!(curl(&mesh.a, mesh.b.v4(HTTP))?.is_ok());
    wait_counted(&mesh.n1, &mesh.a, "outbound", Some("captured"), 1)
}
