//! Datagrams that are no DNS queries: what passes, what is refused, and that both are counted.

use anyhow::Result;
use fairlead_lab::{Child, Host as _, PeerAuthentication, PeerMode, Pod, python, wait_for};

use crate::{
    clients::{SOON, run_python},
    mesh::Mesh,
};

/// Port of the servers: that of QUIC.
const PORT: u16 = 443;

fn serve(pod: &Pod) -> Result<Child> {
    let mut server = pod.spawn(python("udp.py", &["serve", &PORT.to_string()]))?;
    server.wait_for_output("ready", SOON)?;
    Ok(server)
}

/// Sends a datagram and returns what came of it: `answer`, `nothing`, or the error's name.
fn send(from: &Pod, way: &str, to: &Pod, v6: bool) -> Result<String> {
    let address = if v6 { to.ipv6().to_string() } else { to.ipv4().to_string() };
    let said = run_python(from, "udp.py", &[way, &address, &PORT.to_string(), "hello"])?;
    let answered = said.trim() == format!("answer hello from {address}");
    Ok(if answered { "answer" } else { said.trim() }.to_owned())
}

/// Waits until so many datagrams of a pod are counted, and no more.
fn wait_for_count(
    mesh: &Mesh,
    pod: &Pod,
    (direction, outcome): (&str, &str),
    expected: u32,
) -> Result<()> {
    let what = format!("{expected} datagrams of {} {direction} {outcome}", pod.name());
    wait_for(&what, SOON, || {
        let counted = count(mesh, pod, direction, outcome)?;
        Ok(((counted - f64::from(expected)).abs() < 0.1).then_some(()))
    })
}

fn count(mesh: &Mesh, pod: &Pod, direction: &str, outcome: &str) -> Result<f64> {
    let node = if pod.node() == mesh.n1.node().name() { &mesh.n1 } else { &mesh.n2 };
    let labels = [
        ("namespace", pod.namespace()),
        ("pod", pod.name()),
        ("direction", direction),
        ("outcome", outcome),
    ];
    Ok(node.metrics()?.sum("fairlead_pod_datagrams_total", &labels))
}

#[test]
fn datagrams_pass_and_are_counted_at_both_ends() -> Result<()> {
    let mesh = Mesh::new("udp-pass")?;
    let _server = serve(&mesh.b)?;
    for v6 in [false, true] {
        assert_eq!(send(&mesh.a, "send", &mesh.b, v6)?, "answer");
        assert_eq!(send(&mesh.a, "connect", &mesh.b, v6)?, "answer");
        assert_eq!(send(&mesh.outsider, "connect", &mesh.b, v6)?, "answer");
    }
    wait_for_count(&mesh, &mesh.a, ("outbound", "passed"), 4)?;
    // Answers to the sockets that were not connected.
    wait_for_count(&mesh, &mesh.a, ("inbound", "passed"), 2)?;
    wait_for_count(&mesh, &mesh.b, ("inbound", "passed"), 6)?;
    wait_for_count(&mesh, &mesh.b, ("outbound", "passed"), 6)?;
    wait_for_count(&mesh, &mesh.b, ("inbound", "refused"), 0)
}

#[test]
fn where_it_is_so_wanted_a_strict_pod_takes_no_datagrams_but_answers_and_their_senders_know()
-> Result<()> {
    let mut mesh = Mesh::with_args("udp-strict", &["--datagrams=strict"])?;
    let (_strict, _open) = (serve(&mesh.b)?, serve(&mesh.outsider)?);
    let strict = PeerAuthentication::of_pod(&mesh.b, PeerMode::Strict);
    mesh.config.peer_authentications.push(strict);
    mesh.apply()?;
    let refused = |mesh: &Mesh, from: &Pod| {
        wait_for("the refusal", SOON, || {
            Ok((send(from, "connect", &mesh.b, false)? == "error ECONNREFUSED").then_some(()))
        })
    };
    refused(&mesh, &mesh.a)?;
    for (from, v6) in [(&mesh.a, true), (&mesh.outsider, false), (&mesh.outsider, true)] {
        assert_eq!(send(from, "connect", &mesh.b, v6)?, "error ECONNREFUSED");
    }
    wait_for("the count of what was refused", SOON, || {
        Ok((count(&mesh, &mesh.b, "inbound", "refused")? > 3.5).then_some(()))
    })?;
    for (way, v6) in [("send", false), ("send", true), ("connect", false), ("connect", true)] {
        assert_eq!(send(&mesh.b, way, &mesh.outsider, v6)?, "answer", "an answer to its own");
    }

    // What is in force stays so while capture is started anew.
    mesh.n2.kill_half(fairlead_lab::Half::Capture)?;
    assert_eq!(send(&mesh.a, "connect", &mesh.b, false)?, "error ECONNREFUSED");
    mesh.config.peer_authentications.clear();
    mesh.apply()?;
    wait_for("an answer", SOON * 2, || {
        Ok((send(&mesh.a, "connect", &mesh.b, false)? == "answer").then_some(()))
    })
}

#[test]
fn datagrams_pass_to_strict_pods_too() -> Result<()> {
    let mut mesh = Mesh::new("udp-option")?;
    let _server = serve(&mesh.b)?;
    let strict = PeerAuthentication::of_namespace("shop", PeerMode::Strict);
    mesh.config.peer_authentications.push(strict);
    mesh.apply()?;
    assert_eq!(send(&mesh.outsider, "connect", &mesh.b, false)?, "answer");
    Ok(())
}

#[test]
fn an_option_refuses_all_datagrams_but_queries() -> Result<()> {
    let mesh = Mesh::with_args("udp-refuse", &["--datagrams=refuse"])?;
    let _servers = [serve(&mesh.a)?, serve(&mesh.outsider)?];
    for way in ["send", "connect"] {
        for v6 in [false, true] {
            assert_eq!(send(&mesh.a, way, &mesh.outsider, v6)?, "error EPERM", "{way}");
        }
    }
    wait_for_count(&mesh, &mesh.a, ("outbound", "refused"), 4)?;
    assert_eq!(send(&mesh.outsider, "connect", &mesh.a, false)?, "error ECONNREFUSED");
    wait_for_count(&mesh, &mesh.a, ("inbound", "refused"), 1)?;
    // What stays in the pod is its own affair.
    assert_eq!(send(&mesh.a, "send", &mesh.a, false)?, "answer");
    let server = mesh.outsider.serve(python("name_server.py", &["53"]), 53)?;
    for way in ["musl", "connected"] {
        let address = mesh.outsider.ipv4().to_string();
        let said = run_python(&mesh.a, "dns_client.py", &[way, &address, "other.example"])?;
        assert!(said.contains("A 192.0.2.1"), "{said}");
    }
    assert!(server.stdout()?.contains("other.example"));
    Ok(())
}
