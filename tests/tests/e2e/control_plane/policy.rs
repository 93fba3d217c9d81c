//! Policies as files.

use anyhow::Result;
use fairlead_lab::{AccessLine, Child, FairleadNode, manifest, mesh::ControlledMesh};

use super::wait_for_answer;
use crate::{
    clients::{Answer, curl, end_of, say, talk},
    mesh::{ECHO, HTTP, vip4, vip6},
};

/// Waits for the line about a connection of `c` to `destination` that `node` refused for `reason`.
fn refusal(node: &FairleadNode, destination: &str, reason: &str) -> Result<AccessLine> {
    node.wait_for_access(|line| {
        line.is("direction", "inbound")
            && line.is("src.workload", "c")
            && line.is("dst.workload", destination)
            && line.is("reason", reason)
    })
}

#[test]
fn a_policy_that_is_written_holds_for_open_and_new_connections_until_it_is_removed() -> Result<()> {
    let mut mesh = ControlledMesh::new("cppolicy")?;
    for pod in [mesh.b.clone(), mesh.d.clone()] {
        mesh.serve(&pod, "echo.py", ECHO)?;
    }
    let servers = [vip4(10, ECHO), vip6(10, ECHO), mesh.b.v4(ECHO), vip4(20, ECHO)];
    let open = |pod| -> Result<Vec<Child>> { servers.iter().map(|to| talk(pod, *to)).collect() };
    let (mut of_a, mut of_c) = (open(&mesh.a)?, open(&mesh.c)?);
    for client in of_a.iter_mut().chain(&mut of_c) {
        say(client, "before")?;
    }

    let policy = manifest::allow_only(["shop", "only-a"], &[&mesh.a]);
    mesh.plane.write("policy.yaml", &policy)?;
    for client in &mut of_c {
        assert_eq!(end_of(client)?, "reset");
    }
    for client in &mut of_a {
        say(client, "after")?;
    }
    for server in [vip4(10, 80), mesh.b.v6(HTTP), vip4(20, 80)] {
        assert!(curl(&mesh.a, server)?.is_ok(), "{server}");
        assert!(curl(&mesh.c, server)?.is_refused(), "{server}");
    }
    for (node, pod) in [(&mesh.n2, "b"), (&mesh.n1, "d")] {
        for reason in ["denied_by_policy_change", "not_allowed"] {
            let line = refusal(node, pod, reason)?;
            assert!(line.is("policy", "shop/only-a"), "{line:?}");
        }
    }

    mesh.plane.remove("policy.yaml")?;
    for server in [vip4(10, 80), vip4(20, 80)] {
        wait_for_answer(&mesh.c, server, Answer::is_ok)?;
    }
    Ok(())
}

#[test]
fn plaintext_is_refused_once_a_namespace_is_strict() -> Result<()> {
    let mesh = ControlledMesh::new("cpstrict")?;
    for server in [mesh.b.v4(HTTP), mesh.d.v6(HTTP)] {
        assert!(curl(&mesh.outsider, server)?.is_ok(), "{server}");
    }
    mesh.plane.write("strict.yaml", &manifest::peer_authentication("shop", "STRICT"))?;
    for server in [mesh.b.v4(HTTP), mesh.d.v6(HTTP)] {
        wait_for_answer(&mesh.outsider, server, Answer::is_refused)?;
        assert!(curl(&mesh.a, server)?.is_ok(), "{server}");
    }
    mesh.plane.write("strict.yaml", &manifest::peer_authentication("shop", "PERMISSIVE"))?;
    wait_for_answer(&mesh.outsider, mesh.b.v4(HTTP), Answer::is_ok)?;
    Ok(())
}
