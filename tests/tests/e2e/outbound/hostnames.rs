//! Workloads that have a host name in place of addresses, as endpoints of a `ServiceEntry` do.

use anyhow::{Context as _, Result};
use fairlead_lab::{Child, Host as _, MeshConfig, ServiceEntry, python, wait_for};

use crate::{
    clients::{SOON, curl},
    mesh::{ControlledMesh, HTTP, Mesh, vip4, vip6},
};

/// Port of name servers.
const DNS: u16 = 53;

/// The first address that the lab gives on node 1 to a pod behind `a`, `c` and `d`.
const NAME_SERVER: &str = "10.1.0.5";

/// A name server that drops what it is asked; nobody has the address.
const SILENT: &str = "10.1.0.77";

/// What one writes for a control plane.
const SERVICE_ENTRY: &str = "\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: named, namespace: shop}
spec:
  hosts: [at-10-2-0-2.example]
  addresses: [10.96.0.50]
  ports: [{number: 80, targetPort: 8080, name: http, protocol: TCP}]
  resolution: DNS
";

/// Starts the mesh with the outsider as name server of the proxies. Of `b` only `hostname` is known to
/// node 1, and whether it takes tunnels.
fn mesh_with(name: &str, hostname: &str, tunnel: &str) -> Result<(Mesh, Child)> {
    let mut mesh = Mesh::with_args(name, &["--name-servers", NAME_SERVER])?;
    assert_eq!(mesh.outsider.ipv4().to_string(), NAME_SERVER, "of the lab");
    let server = mesh.outsider.serve(python("name_server.py", &[DNS.to_string()]), DNS)?;
    rename(&mut mesh.config, hostname, tunnel)?;
    // The other node knows it as it is.
    mesh.apply()?;
    Ok((mesh, server))
}

/// Adds a service `named`, of which the one endpoint is `hostname`.
fn rename(config: &mut MeshConfig, hostname: &str, tunnel: &str) -> Result<()> {
    let service = ServiceEntry::new("shop", "named")
        .address(vip4(50, 0).ip())
        .address(vip6(50, 0).ip())
        .port(80, HTTP);
    let b = config.workloads.iter().find(|workload| workload.name == "b").context("no b")?;
    let mut named = b.clone();
    "named".clone_into(&mut named.name);
    "named".clone_into(&mut named.uid);
    tunnel.clone_into(&mut named.tunnel_protocol);
    named.addresses.clear();
    named.hostname = Some(hostname.to_owned());
    let ports = fairlead_lab::PortList { ports: service.ports.clone() };
    named.services = [(service.key(), ports)].into();
    config.workloads.push(named);
    config.services.push(service);
    Ok(())
}

/// Returns how often the name server was asked for `name`.
fn asked(server: &Child, name: &str) -> Result<usize> {
    Ok(server.stdout()?.lines().filter(|line| line.contains(&format!(" {name}"))).count())
}

#[test]
fn a_name_is_looked_up_by_the_pod_that_connects_and_kept() -> Result<()> {
    let name = "at-10-2-0-2.example";
    let (mesh, server) = mesh_with("hostname", name, "NONE")?;
    let explained = mesh.n1.explain(&mesh.a, vip4(50, 80))?;
    let attempt = &explained["decision"]["attempts"][0];
    assert_eq!(attempt["address"], format!("{name}:{HTTP}"), "{explained:#}");

    for _ in 0..3 {
        let answer = curl(&mesh.a, vip4(50, 80))?;
        assert!(answer.is_ok(), "{answer:?}");
        assert_eq!(answer.seen("own"), mesh.b.ipv4().to_string());
    }
    let line = mesh.n1.wait_for_access(|line| line.is("dst.workload", "named"))?;
    assert!(line.is("dst.addr", &mesh.b.v4(HTTP).to_string()), "{line:?}");
    assert_eq!(asked(&server, name)?, 1, "{}", server.stdout()?);
    let from = format!("from {}", mesh.a.ipv4());
    assert!(server.stdout()?.contains(&from), "the pod itself has asked: {}", server.stdout()?);

    // There is nothing of the other family, and this one does.
    assert!(curl(&mesh.a, vip6(50, 80))?.is_ok());
    // Another pod may be told something else.
    assert!(curl(&mesh.c, vip4(50, 80))?.is_ok());
    assert!(server.stdout()?.contains(&format!("from {}", mesh.c.ipv4())));
    Ok(())
}

#[test]
fn connections_that_want_the_same_name_at_once_ask_once() -> Result<()> {
    let name = "late-at-10-2-0-2.example";
    let (mesh, server) = mesh_with("hostnamemany", name, "NONE")?;
    let get = format!("curl -sS -o /dev/null --max-time 20 http://{}/", vip4(50, 80));
    // The name server takes a while to answer the first, in which the others come.
    let script = format!("seq 20 | xargs -P 20 -I @ {get}");
    mesh.a.run(["sh", "-c", &script])?.checked()?;
    assert_eq!(asked(&server, name)?, 1, "{}", server.stdout()?);
    Ok(())
}

#[test]
fn a_workload_with_a_name_may_take_tunnels() -> Result<()> {
    let (mesh, _server) = mesh_with("hostnametls", "at-10-2-0-2.example", "HBONE")?;
    assert!(curl(&mesh.a, vip4(50, 80))?.is_ok());
    let line = mesh.n1.wait_for_access(|line| line.is("dst.workload", "named"))?;
    assert!(line.is("dst.addr", &mesh.b.v4(15008).to_string()), "{line:?}");
    assert!(line.is("dst.identity", &mesh.b.identity()), "{line:?}");
    let line = mesh.n2.wait_for_access(|line| line.is("reason", "completed"))?;
    assert!(line.is("src.identity", &mesh.a.identity()), "{line:?}");
    Ok(())
}

#[test]
fn a_name_without_an_address_is_named_as_the_reason() -> Result<()> {
    let (mesh, _server) = mesh_with("noname", "missing.example", "NONE")?;
    let answer = curl(&mesh.a, vip4(50, 80))?;
    assert!(answer.is_refused(), "{answer:?}");
    let line = mesh.n1.wait_for_access(|line| line.is("reason", "name_not_resolved"))?;
    assert!(line.is("dst.addr", &vip4(50, 80).to_string()), "{line:?}");
    Ok(())
}

#[test]
fn a_name_server_that_is_silent_is_not_the_last() -> Result<()> {
    let servers = format!("{SILENT},{NAME_SERVER}");
    let mut mesh = Mesh::with_args("silentdns", &["--name-servers", &servers])?;
    let _server = mesh.outsider.serve(python("name_server.py", &[DNS.to_string()]), DNS)?;
    rename(&mut mesh.config, "at-10-2-0-2.example", "NONE")?;
    mesh.apply()?;
    let answer = curl(&mesh.a, vip4(50, 80))?;
    assert!(answer.is_ok(), "{answer:?}");
    Ok(())
}

#[test]
fn a_service_entry_that_dns_resolves_is_reached() -> Result<()> {
    let args = ["--name-servers", NAME_SERVER];
    let mesh = ControlledMesh::with_args("serviceentry", &args, &[])?;
    assert_eq!(mesh.outsider.ipv4().to_string(), NAME_SERVER, "of the lab");
    let _server = mesh.outsider.serve(python("name_server.py", &[DNS.to_string()]), DNS)?;
    mesh.plane.write("named.yaml", SERVICE_ENTRY)?;
    wait_for("the service entry", SOON, || {
        let explained = mesh.n1.explain(&mesh.a, vip4(50, 80))?;
        Ok((explained["decision"]["endpoints"]["usable"] == 1).then_some(()))
    })?;
    let answer = curl(&mesh.a, vip4(50, 80))?;
    assert!(answer.is_ok(), "{answer:?}");
    assert_eq!(answer.seen("own"), mesh.b.ipv4().to_string());
    Ok(())
}
