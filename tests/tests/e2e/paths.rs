//! Every path of a connection, from the client to the application.

mod ends;
mod wire;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use anyhow::Result;
use fairlead_lab::{AccessLine, FairleadNode, Host as _, PodSpec, python};

use crate::{
    clients::{Answer, curl},
    mesh::{ECHO, HTTP, Mesh, service, vip4, vip6},
};

/// Encrypts also what the short cut would pass on directly.
const ENCRYPT_ALL: &[&str] = &["--same-node-encryption"];

#[test]
fn the_server_sees_the_client_and_the_client_the_address_it_asked_for() -> Result<()> {
    let mesh = Mesh::new("ends")?;
    for server in far_and_near(&mesh) {
        expect_both_ends(&mesh, server)?;
    }
    Ok(())
}

#[test]
fn both_ends_see_the_same_when_the_node_encrypts_to_itself() -> Result<()> {
    let mesh = Mesh::with_args("encall", ENCRYPT_ALL)?;
    for server in far_and_near(&mesh) {
        expect_both_ends(&mesh, server)?;
    }
    Ok(())
}

#[test]
fn an_ipv6_socket_that_speaks_ipv4_is_captured() -> Result<()> {
    let mesh = Mesh::new("mapped")?;
    for v4 in [vip4(10, 80), mesh.b.v4(HTTP), vip4(20, 80), mesh.d.v4(HTTP)] {
        let answer = curl(&mesh.a, mapped(v4))?;
        assert!(answer.is_ok(), "{v4}: {answer:?}");
        assert_eq!(answer.seen("peer"), mesh.a.ipv4().to_string(), "{v4}");
        let line = line_of(&mesh.n1, &answer)?;
        assert!(line.is("src.identity", &mesh.a.identity()), "{line:?}");
        assert!(line.is("direction", "outbound") && line.is("reason", "completed"), "{line:?}");
    }
    Ok(())
}

#[test]
fn a_pod_reaches_itself_through_its_own_service() -> Result<()> {
    let mesh = Mesh::new("hairpin")?;
    for (pod, node, number) in [(&mesh.d, &mesh.n1, 20), (&mesh.b, &mesh.n2, 10)] {
        for server in [vip4(number, 80), vip6(number, 80)] {
            let answer = curl(pod, server)?;
            assert!(answer.is_ok(), "{server}: {answer:?}");
            assert_eq!(answer.remote, server.ip().to_string());
            let own = if server.is_ipv4() { pod.v4(0).ip() } else { pod.v6(0).ip() };
            assert_eq!(answer.seen("peer"), own.to_string());
            let line = line_of(node, &answer)?;
            assert!(line.is("src.identity", &pod.identity()), "{line:?}");
            assert!(line.is("dst.identity", &pod.identity()), "{line:?}");
        }
    }
    Ok(())
}

#[test]
fn loopback_and_own_addresses_are_untouched() -> Result<()> {
    let mesh = Mesh::new("own")?;
    let loopback = [SocketAddr::from(([127, 0, 0, 1], HTTP)), (Ipv6Addr::LOCALHOST, HTTP).into()];
    for server in loopback.into_iter().chain([mesh.d.v4(HTTP), mesh.d.v6(HTTP)]) {
        let answer = curl(&mesh.d, server)?;
        assert!(answer.is_ok(), "{server}: {answer:?}");
        assert_eq!(answer.seen("port"), answer.local_port, "{server}");
    }
    // Whatever ended before this connection is in the log when its line is.
    let last = curl(&mesh.d, vip4(10, 80))?;
    line_of(&mesh.n1, &last)?;
    assert_eq!(mesh.n1.access_log()?.len(), 1, "{:?}", mesh.n1.access_log()?);
    Ok(())
}

#[test]
fn what_the_mesh_does_not_know_is_reached_in_plaintext() -> Result<()> {
    let mesh = Mesh::new("unknown")?;
    let stranger = mesh.lab.node(2).add_pod(PodSpec::new("stranger"))?;
    let _http = stranger.serve(python("http_server.py", &[HTTP.to_string()]), HTTP)?;
    let capture = mesh.lab.capture_wire()?;
    for server in [stranger.v4(HTTP), stranger.v6(HTTP)] {
        let answer = curl(&mesh.a, server)?;
        assert!(answer.is_ok(), "{server}: {answer:?}");
        assert_eq!(answer.seen("peer"), mesh.a_address(server).to_string());
        let line = line_of(&mesh.n1, &answer)?;
        assert_eq!(line.get("src.identity"), None, "{line:?}");
        assert!(line.is("dst.addr", &server.to_string()), "{line:?}");
    }
    let nobody = SocketAddr::from((mesh.lab.node(2).ipv4(), 9999));
    assert!(curl(&mesh.a, nobody)?.is_refused());
    let wire = capture.finish()?;
    assert_eq!(wire.ports_dialled()?.get(&15008), None);
    assert!(wire.contains(b"GET / HTTP/1.1")?);
    Ok(())
}

#[test]
fn a_port_that_the_service_does_not_declare_is_refused() -> Result<()> {
    let mesh = Mesh::new("port")?;
    for server in [vip4(10, 81), vip6(10, HTTP), vip4(20, 81)] {
        let answer = curl(&mesh.a, server)?;
        assert!(answer.is_refused(), "{server}: {answer:?}");
        expect_no_endpoint(&mesh, server)?;
    }
    Ok(())
}

#[test]
fn a_service_without_endpoints_is_refused() -> Result<()> {
    let mut mesh = Mesh::new("empty")?;
    mesh.config.add_service(service("empty", 30), []);
    mesh.apply()?;
    for server in [vip4(30, 80), vip6(30, 80)] {
        let answer = curl(&mesh.a, server)?;
        assert!(answer.is_refused(), "{server}: {answer:?}");
        expect_no_endpoint(&mesh, server)?;
    }
    Ok(())
}

#[test]
fn a_port_that_nobody_listens_on_is_refused_and_says_so() -> Result<()> {
    let mesh = Mesh::new("closed")?;
    for (server, endpoint, node) in [
        (mesh.b.v4(9999), mesh.b.v4(9999), &mesh.n2),
        (mesh.b.v6(9999), mesh.b.v6(9999), &mesh.n2),
        (vip4(10, ECHO), mesh.b.v4(ECHO), &mesh.n2),
        (mesh.d.v4(9999), mesh.d.v4(9999), &mesh.n1),
    ] {
        let answer = curl(&mesh.a, server)?;
        assert!(answer.is_refused(), "{server}: {answer:?}");
        let line = node.wait_for_access(|line| {
            line.is("src.workload", "a")
                && line.is("direction", "inbound")
                && line.is("reason", "connect_refused")
                && line.get("dst.hbone_addr") == Some(endpoint.to_string())
        })?;
        assert!(line.is("src.identity", &mesh.a.identity()), "{line:?}");
    }
    Ok(())
}

/// All ways to the HTTP servers of `b`, on the other node, and of `d`, on the same.
fn far_and_near(mesh: &Mesh) -> [SocketAddr; 8] {
    let [b4, b6] = [mesh.b.v4(HTTP), mesh.b.v6(HTTP)];
    let [d4, d6] = [mesh.d.v4(HTTP), mesh.d.v6(HTTP)];
    [vip4(10, 80), vip6(10, 80), b4, b6, vip4(20, 80), vip6(20, 80), d4, d6]
}

fn expect_both_ends(mesh: &Mesh, server: SocketAddr) -> Result<()> {
    let answer = curl(&mesh.a, server)?;
    assert!(answer.is_ok(), "{server}: {answer:?}");
    assert_eq!(answer.remote, server.ip().to_string());
    assert_eq!(answer.seen("peer"), mesh.a_address(server).to_string(), "{server}");
    assert_eq!(answer.seen("port"), answer.local_port, "{server}");
    Ok(())
}

fn expect_no_endpoint(mesh: &Mesh, server: SocketAddr) -> Result<()> {
    let line = mesh.n1.wait_for_access(|line| line.is("dst.addr", &server.to_string()))?;
    assert!(line.is("reason", "no_healthy_endpoint"), "{line:?}");
    assert!(line.is("direction", "outbound"), "{line:?}");
    Ok(())
}

/// Waits for the line of the client's side of the connection that `answer` came through.
fn line_of(node: &FairleadNode, answer: &Answer) -> Result<AccessLine> {
    let port = format!(":{}", answer.local_port);
    node.wait_for_access(|line| {
        line.is("direction", "outbound")
            && line.get("src.addr").is_some_and(|source| source.ends_with(&port))
    })
}

fn mapped(v4: SocketAddr) -> SocketAddr {
    let IpAddr::V4(address) = v4.ip() else { return v4 };
    (address.to_ipv6_mapped(), v4.port()).into()
}
