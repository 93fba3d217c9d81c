//! Names that pods ask for: those of the mesh are answered by the proxy, all others by the name
//! server that was asked, with unmodified clients.

mod absence;
mod answers;
mod caching;
mod forwarding;
mod ports;

use std::net::IpAddr;

use anyhow::{Context as _, Result};
use fairlead_lab::{Child, Host as _, Output, Pod, python, resolving};

use crate::{clients::run_python, mesh::Mesh};

/// Port of name servers.
const DNS: u16 = 53;

/// A name of the mesh.
const B: &str = "b.shop.svc.cluster.local";

/// The IPv4 address of that name.
const B_ADDRESS: &str = "10.96.0.10";

/// The address of all names that only the name server knows.
const OTHER_ADDRESS: &str = "192.0.2.1";

/// The mesh and a name server outside of it.
struct Scene {
    mesh: Mesh,
    server: Child,
}

// === impl Scene ===

impl Scene {
    fn new(name: &str) -> Result<Self> {
        Self::with_args(name, &[])
    }

    fn with_args(name: &str, args: &[&str]) -> Result<Self> {
        let mesh = Mesh::with_args(name, args)?;
        let server = mesh.outsider.serve(python("name_server.py", &[DNS.to_string()]), DNS)?;
        Ok(Self { mesh, server })
    }

    /// The addresses of the name server.
    fn servers(&self) -> [IpAddr; 2] {
        let server = &self.mesh.outsider;
        [server.ipv4().into(), server.ipv6().into()]
    }

    /// Asks a name server with `dns_client.py`.
    fn ask(pod: &Pod, way: &str, server: IpAddr, what: &str) -> Result<String> {
        run_python(pod, "dns_client.py", &[way, &server.to_string(), what])
    }

    /// Asks with dig, which retries over TCP what does not fit.
    fn dig(&self, pod: &Pod, arguments: &[&str]) -> Result<Output> {
        let server = format!("@{}", self.mesh.outsider.ipv4());
        let mut command = vec!["dig", &server, "+tries=1", "+timeout=10"];
        command.extend(arguments);
        pod.run(command)?.checked()
    }

    /// Returns what dig says in short, line by line.
    fn dig_short(&self, pod: &Pod, arguments: &[&str]) -> Result<Vec<String>> {
        let arguments: Vec<_> = ["+short"].iter().chain(arguments).copied().collect();
        let said = self.dig(pod, &arguments)?;
        let mut lines: Vec<_> = said.stdout.lines().map(str::to_owned).collect();
        lines.sort_unstable();
        Ok(lines)
    }

    /// Runs a shell command in the pod with the resolver configuration of a pod of its namespace.
    fn with_resolv_conf(&self, pod: &Pod, command: &str) -> Result<Output> {
        let server = self.mesh.outsider.ipv4().into();
        pod.run(resolving(pod, server, ["sh", "-c", command])?)
    }

    /// Returns how often the name server was asked for `name`, in whatever way.
    fn times_asked(&self, name: &str) -> Result<usize> {
        Ok(self.server.stdout()?.matches(&format!(" {name} ")).count())
    }

    /// Asserts a metric of node 1, summed over all series with these labels.
    fn assert_metric(&self, name: &str, labels: &[(&str, &str)], expected: u32) -> Result<()> {
        let found = self.mesh.n1.metrics()?.sum(name, labels);
        assert!((found - f64::from(expected)).abs() < 0.1, "{name} {labels:?}: {found}");
        Ok(())
    }
}

fn first_line(said: &str) -> Result<&str> {
    said.lines().next().context("nothing was said")
}

#[test]
fn a_name_of_the_mesh_is_answered_by_the_proxy_and_any_other_by_the_name_server() -> Result<()> {
    let scene = Scene::new("dns")?;
    for server in scene.servers() {
        for way in ["musl", "connected"] {
            for (name, address) in [(B, B_ADDRESS), ("other.example", OTHER_ADDRESS)] {
                let said = Scene::ask(&scene.mesh.a, way, server, name)?;
                let expected = format!("from {server} port 53 result 0: A {address}");
                assert_eq!(first_line(&said)?, expected, "{way}");
            }
        }
    }
    assert_eq!(scene.times_asked(B)?, 0, "the name server was asked for a name of the mesh");
    assert_ne!(scene.times_asked("other.example")?, 0);
    Ok(())
}

#[test]
fn without_the_option_all_names_are_the_name_servers() -> Result<()> {
    let scene = Scene::with_args("dns-off", &["--dns-capture=false"])?;
    for way in ["musl", "connected"] {
        let said = Scene::ask(&scene.mesh.a, way, scene.servers()[0], B)?;
        assert!(first_line(&said)?.ends_with(OTHER_ADDRESS), "{said}");
    }
    assert_eq!(scene.dig_short(&scene.mesh.a, &["+tcp", B])?, [OTHER_ADDRESS]);
    Ok(())
}

#[test]
fn queries_are_counted_by_type_protocol_and_source() -> Result<()> {
    let scene = Scene::new("dns-metrics")?;
    let a = &scene.mesh.a;
    Scene::ask(a, "musl", scene.servers()[0], B)?;
    Scene::ask(a, "connected", scene.servers()[0], "other.example")?;
    scene.dig(a, &["+tcp", "other.example", "SRV"])?;
    for (kind, protocol, asked, passed_on) in
        [("A", "udp", 2, 1), ("AAAA", "udp", 1, 0), ("SRV", "tcp", 1, 1)]
    {
        let labels = [("request_query_type", kind), ("request_protocol", protocol)];
        for (name, expected) in [
            ("istio_dns_requests_total", asked),
            ("istio_dns_upstream_requests_total", passed_on),
            ("istio_dns_upstream_request_duration_seconds_count", passed_on),
            ("istio_dns_upstream_failures_total", 0),
        ] {
            scene.assert_metric(name, &labels, expected)?;
        }
    }
    Ok(())
}
