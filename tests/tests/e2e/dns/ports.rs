//! Ports that are found by their names (SRV), to clients that know nothing of the mesh.

use anyhow::Result;
use fairlead_lab::{Host as _, Pod, ServiceEntry, mesh::ControlledMesh, python, wait_for};

use super::{DNS, Scene};
use crate::{clients::SOON, mesh::HTTP};

/// What one writes for a control plane: a host that only the mesh has, and one of name servers.
const SERVICE_ENTRIES: &str = "\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: own, namespace: shop}
spec:
  hosts: [own.example]
  addresses: [240.240.0.9]
  ports: [{number: 5432, name: db, protocol: TCP}]
  resolution: STATIC
  endpoints: [{address: 192.0.2.9}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: theirs, namespace: shop}
spec:
  hosts: [theirs.example]
  addresses: [240.240.0.10]
  ports: [{number: 5432, name: db, protocol: TCP}]
  resolution: DNS
";

/// What the name server says of every port.
const OTHER_PORT: &str = "1 2 5353 target.example.";

/// Starts the mesh with a host that has two addresses and three named ports.
fn scene(name: &str) -> Result<Scene> {
    let mut scene = Scene::new(name)?;
    let entry = ServiceEntry::new("shop", "api")
        .address([240, 240, 0, 1])
        .address([0x2001, 2, 0, 0, 0, 0, 0, 1])
        .port(443, HTTP)
        .port_name("https", 443, "HTTPS")
        .port_name("Admin", 8443, "TCP")
        .port_name("quic", 443, "UDP");
    let entry = ServiceEntry { hostname: "api.example.com".to_owned(), ..entry };
    scene.mesh.config.add_service(entry, []);
    scene.mesh.apply()?;
    Ok(scene)
}

#[test]
fn ports_of_a_host_that_only_the_mesh_has_are_found_by_their_names() -> Result<()> {
    let scene = scene("dns-ports")?;
    for pod in [&scene.mesh.a, &scene.mesh.c] {
        for tcp in ["+notcp", "+tcp"] {
            for (name, expected) in [
                ("_https._tcp.api.example.com", "0 0 443 api.example.com."),
                ("_ADMIN._tcp.api.example.com", "0 0 8443 api.example.com."),
                ("_quic._udp.api.example.com", "0 0 443 api.example.com."),
                // The mesh has no such ports, nor names for those of this service.
                ("_https._udp.api.example.com", OTHER_PORT),
                ("_xmpp._tcp.api.example.com", OTHER_PORT),
                ("_http._tcp.b.shop.svc.cluster.local", OTHER_PORT),
            ] {
                assert_eq!(scene.dig_short(pod, &[tcp, name, "SRV"])?, [expected], "{name}");
            }
        }
    }
    for name in ["_https._tcp.api.example.com", "_ADMIN._tcp.api.example.com"] {
        assert_eq!(scene.times_asked(name)?, 0, "{name}");
    }
    let said = scene.dig(&scene.mesh.a, &["_https._tcp.api.example.com", "SRV"])?.stdout;
    assert!(said.contains("flags: qr aa rd ra;"), "{said}");
    // So that nobody has to ask for these.
    for address in ["A\t240.240.0.1", "AAAA\t2001:2::1"] {
        assert!(said.contains(&format!("api.example.com.\t30\tIN\t{address}")), "{said}");
    }
    Ok(())
}

#[test]
fn the_name_of_a_port_exists_and_has_no_address() -> Result<()> {
    let scene = scene("dns-port-names")?;
    let nothing = |name: &str, kind: &str| -> Result<()> {
        let said = scene.dig(&scene.mesh.a, &[name, kind])?.stdout;
        assert!(said.contains("status: NOERROR") && said.contains("ANSWER: 0"), "{said}");
        Ok(())
    };
    for kind in ["A", "AAAA"] {
        nothing("_https._tcp.api.example.com", kind)?;
        nothing("_tcp.api.example.com", kind)?;
    }
    nothing("_tcp.api.example.com", "SRV")?;
    assert_eq!(scene.times_asked("_tcp.api.example.com")?, 0);
    // Name servers are asked for the rest, also for what they deny.
    let said = scene.dig(&scene.mesh.a, &["missing._tcp.api.example.com", "SRV"])?.stdout;
    assert!(said.contains("status: NXDOMAIN"), "{said}");
    Ok(())
}

#[test]
fn ports_are_found_through_search_domains() -> Result<()> {
    let scene = scene("dns-port-search")?;
    let command = "dig +search +short _https._tcp.api.example.com SRV";
    let said = scene.with_resolv_conf(&scene.mesh.a, command)?.checked()?.stdout;
    assert_eq!(said, "_https._tcp.api.example.com.\n0 0 443 api.example.com.\n");
    assert_eq!(scene.server.stdout()?.matches("_https").count(), 0);
    Ok(())
}

#[test]
fn the_control_plane_tells_the_names_of_ports_that_only_the_mesh_has() -> Result<()> {
    let mesh = ControlledMesh::new("dns-port-plane")?;
    let server = mesh.outsider.serve(python("name_server.py", &[DNS.to_string()]), DNS)?;
    let at = format!("@{}", mesh.outsider.ipv4());
    let ask = |pod: &Pod, name: &str| -> Result<String> {
        let asked = pod.run(["dig", &at, "+short", "+tries=1", "+timeout=10", name, "SRV"])?;
        Ok(asked.checked()?.stdout)
    };
    mesh.plane.write("entries.yaml", SERVICE_ENTRIES)?;
    wait_for("the port of a service entry", SOON, || {
        Ok((ask(&mesh.a, "_db._tcp.own.example")? == "0 0 5432 own.example.\n").then_some(()))
    })?;
    // Both came at once.
    assert_eq!(ask(&mesh.a, "_db._tcp.theirs.example")?, format!("{OTHER_PORT}\n"));
    assert!(server.stdout()?.contains(" _db._tcp.theirs.example "));
    Ok(())
}
