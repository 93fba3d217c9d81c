//! Steps 1 and 2: a pod reaches another through the mesh.

use super::look::{curl, only_tunnels};
use super::mesh::{HBONE, access_after, vip, vip_v6};
use super::report::Report;
use anyhow::Result;
use fairlead_lab::mesh::{HTTP, Mesh};
use fairlead_lab::{CaptureFile, shown_identity};

/// Path of a request whose appearance on the wire would be plaintext.
const SECRET: &str = "words-that-nobody-else-may-read";

/// TLS 1.3 in a `supported_versions` extension (RFC 8446 section 4.2.1).
const TLS_1_3: &str = "0x0304";

/// Step 1: through the virtual address of a service.
pub(super) fn service(mesh: &mut Mesh, report: &Report) -> Result<()> {
    let capture = mesh.lab.capture_wire()?;
    report.did("a", &format!("curl -v http://{}/{SECRET}", vip(80)));
    let fetch = curl(&mesh.a, vip(80), SECRET)?;
    fetch.succeeded(report, "answer")?;
    report.same("curl's peer is the virtual address", &fetch.peer, &"10.96.0.10 port 80")?;
    let client = mesh.a.ipv4().to_string();
    report.same("client that the application in b sees", &fetch.answered("peer"), &client)?;

    report.did("the wire", "packets between the nodes");
    let wire = capture.finish()?;
    only_tunnels(report, &wire, SECRET)?;
    tls_version(report, &wire)?;
    certificates(mesh, report)
}

/// Step 2: through the addresses of pods.
pub(super) fn pod_addresses(mesh: &mut Mesh, report: &Report) -> Result<()> {
    let (a, b, d) = (&mesh.a, &mesh.b, &mesh.d);
    for (subject, server) in [
        ("b on the other node, IPv4", b.v4(HTTP)),
        ("b on the other node, IPv6", b.v6(HTTP)),
        ("service b, IPv6", vip_v6(80)),
        ("d on the same node, IPv4", d.v4(HTTP)),
        ("d on the same node, IPv6", d.v6(HTTP)),
    ] {
        report.did("a", &format!("curl http://{server}/"));
        let fetch = curl(a, server, "")?;
        fetch.succeeded(report, subject)?;
        let own = if server.is_ipv4() { a.v4(0).ip() } else { a.v6(0).ip() };
        let seen = fetch.answered("peer");
        report.same("client that the application sees", &seen, &own.to_string())?;
    }
    report.did("n1", "access log of the connection from a to d");
    let line = access_after(&mesh.n1, 0, |line| line.is("dst.workload", "d"))?;
    let identities = ["src.identity", "dst.identity"].map(|key| line.get(key).unwrap_or_default());
    report.same("source identity", &identities[0], &a.identity())?;
    report.same("destination identity", &identities[1], &d.identity())
}

fn tls_version(report: &Report, wire: &CaptureFile) -> Result<()> {
    let server_hello = "tls.handshake.type == 2";
    let mut versions =
        wire.fields(server_hello, &["tls.handshake.extensions.supported_version"])?.concat();
    versions.dedup();
    let seen = if versions == [TLS_1_3] { "1.3".to_owned() } else { versions.join(" ") };
    report.same("TLS version", &seen, &"1.3")
}

/// In TLS 1.3 certificates cross the wire encrypted, so each end is asked for its own.
fn certificates(mesh: &Mesh, report: &Report) -> Result<()> {
    let root = mesh.ca_dir().join("root-cert.pem");
    for (node, pod) in [(mesh.lab.node(1), &mesh.b), (mesh.lab.node(2), &mesh.a)] {
        let server = pod.v4(HBONE);
        report.did(node.name(), &format!("openssl s_client -connect {server} -alpn h2"));
        let identity = shown_identity(node, server, &root)?;
        let subject = format!("certificate of {}", pod.name());
        report.same(&subject, &identity, &pod.identity())?;
    }
    report.did("n2", "access log of the connection from a to b");
    let from_a = mesh.a.ipv4().to_string();
    let line = access_after(&mesh.n2, 0, |line| {
        line.get("src.addr").is_some_and(|source| source.starts_with(&from_a))
    })?;
    let peer = line.get("src.identity").unwrap_or_default();
    report.same("identity that a proved to b's proxy", &peer, &mesh.a.identity())
}
