//! Destinations that the mesh does not know.

use anyhow::Result;
use fairlead_lab::{PodSpec, WorkloadEntry};

use crate::{
    clients::curl,
    mesh::{HTTP, Mesh, vip4, vip6},
};

#[test]
fn where_only_the_registry_may_be_reached_everything_else_is_refused() -> Result<()> {
    let mut mesh = Mesh::with_args("registry", &["--outbound-policy", "registry-only"])?;
    let stranger = mesh.lab.node(2).add_pod(PodSpec::new("stranger"))?;
    mesh.serve(&stranger, "http_server.py", HTTP)?;
    for server in [stranger.v4(HTTP), stranger.v6(HTTP)] {
        let answer = curl(&mesh.a, server)?;
        assert!(answer.is_refused(), "{server}: {answer:?}");
        let explained = mesh.n1.explain(&mesh.a, server)?;
        let result = &explained["decision"]["result"];
        assert_eq!(result["passes"], false, "{explained:#}");
        let line = mesh.n1.wait_for_access(|line| line.is("dst.addr", &server.to_string()))?;
        assert!(line.is("reason", "destination_unknown"), "{line:?}");
        assert_eq!(result["reason"], "destination_unknown");
        assert_eq!(result["because"].as_str(), line.get("error").as_deref());
    }
    let refused = [("response_flags", "DENY"), ("reporter", "source")];
    let refused = mesh.n1.metrics()?.sum("istio_tcp_connections_closed_total", &refused);
    assert!((refused - 2.0).abs() < 0.1, "{refused}");
    // Services, workloads of the mesh, and workloads outside that the mesh knows.
    let known = [vip4(10, 80), vip6(20, 80), mesh.b.v4(HTTP), mesh.outsider.v6(HTTP)];
    for server in known {
        assert!(curl(&mesh.a, server)?.is_ok(), "{server}");
    }
    // Who is not enrolled is not asked.
    assert!(curl(&mesh.outsider, stranger.v4(HTTP))?.is_ok());

    mesh.config.workloads.push(WorkloadEntry::of(&stranger).plaintext());
    mesh.apply()?;
    for server in [stranger.v4(HTTP), stranger.v6(HTTP)] {
        assert!(curl(&mesh.a, server)?.is_ok(), "{server}");
    }
    Ok(())
}
