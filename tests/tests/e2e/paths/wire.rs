//! What crosses the wire between the nodes.

use anyhow::Result;
use fairlead_lab::{Capture, CaptureFile, CaptureOptions};

use super::ENCRYPT_ALL;
use crate::{
    clients::{curl, curl_with},
    mesh::{HTTP, Mesh, vip4, vip6},
};

/// In the header of every request that must not be readable.
const SECRET: &str = "X-Secret: swordfish-in-the-clear";

/// The version of TLS 1.3 in its handshake.
const TLS_1_3: &str = "0x0304";

#[test]
fn the_wire_shows_tls_1_3_to_the_tunnel_port_and_nothing_else() -> Result<()> {
    let mesh = Mesh::new("wire")?;
    let capture = mesh.lab.capture_wire()?;
    for server in [vip4(10, 80), vip6(10, 80), mesh.b.v4(HTTP), mesh.b.v6(HTTP)] {
        let answer = curl_with(&mesh.a, server, &["-H", SECRET])?;
        assert!(answer.is_ok(), "{server}: {answer:?}");
    }
    let wire = capture.finish()?;
    assert_eq!(wire.dropped(), 0);
    assert_eq!(wire.ports_dialled()?.keys().collect::<Vec<_>>(), [&15008]);
    assert_eq!(wire.count("tcp && !(tcp.port == 15008)")?, 0);
    assert_eq!(readable(&wire)?, Vec::<&str>::new());
    expect_tls_1_3(&wire)
}

#[test]
fn what_must_not_be_seen_of_the_mesh_is_seen_without_it() -> Result<()> {
    // Proves that the search of the other tests finds what it looks for.
    let mesh = Mesh::new("clear")?;
    let capture = mesh.lab.capture_wire()?;
    assert!(curl_with(&mesh.outsider, mesh.b.v4(HTTP), &["-H", SECRET])?.is_ok());
    let wire = capture.finish()?;
    assert_eq!(readable(&wire)?.len(), 3);
    Ok(())
}

#[test]
fn the_short_cut_puts_nothing_on_the_pods_interface() -> Result<()> {
    let mesh = Mesh::new("short")?;
    let capture = Capture::start(&mesh.d, "eth0", CaptureOptions::default())?;
    for server in [vip4(20, 80), mesh.d.v6(HTTP)] {
        assert!(curl(&mesh.a, server)?.is_ok());
    }
    assert_eq!(capture.finish()?.count("tcp")?, 0);
    Ok(())
}

#[test]
fn without_the_short_cut_pods_of_one_node_talk_through_a_tunnel() -> Result<()> {
    let mesh = Mesh::with_args("noshort", ENCRYPT_ALL)?;
    let capture = Capture::start(&mesh.d, "eth0", CaptureOptions::default())?;
    for server in [vip4(20, 80), mesh.d.v6(HTTP)] {
        assert!(curl_with(&mesh.a, server, &["-H", SECRET])?.is_ok());
    }
    let wire = capture.finish()?;
    assert_eq!(wire.ports_dialled()?.keys().collect::<Vec<_>>(), [&15008]);
    assert_eq!(readable(&wire)?, Vec::<&str>::new());
    expect_tls_1_3(&wire)
}

/// Returns which parts of the request and its answer can be read.
fn readable(wire: &CaptureFile) -> Result<Vec<&'static str>> {
    let mut seen = Vec::new();
    for part in ["GET / HTTP/1.1", SECRET, "peer="] {
        if wire.contains(part.as_bytes())? {
            seen.push(part);
        }
    }
    Ok(seen)
}

fn expect_tls_1_3(wire: &CaptureFile) -> Result<()> {
    let version = "tls.handshake.extensions.supported_version";
    for (hello, number) in [("client", 1), ("server", 2)] {
        let filter = format!("tls.handshake.type == {number}");
        let versions = wire.fields(&filter, &[version])?;
        assert!(!versions.is_empty(), "no {hello} hello");
        assert!(
            versions.iter().flatten().all(|version| version == TLS_1_3),
            "{hello} {versions:?}"
        );
    }
    let protocols =
        wire.fields("tls.handshake.type == 1", &["tls.handshake.extensions_alpn_str"])?;
    assert!(protocols.iter().flatten().all(|protocol| protocol == "h2"), "{protocols:?}");
    assert_eq!(wire.count("tls.handshake.extensions_server_name")?, 0);
    Ok(())
}
