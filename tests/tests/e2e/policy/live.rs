//! A change of policy reaches connections that are open.

use anyhow::Result;
use fairlead_lab::{Child, PeerAuthentication, PeerMode};

use super::{only_a, refusal};
use crate::{
    clients::{end_of, say, talk},
    mesh::{ECHO, Mesh, vip4, vip6},
};

#[test]
fn a_policy_ends_the_open_connections_that_it_denies_and_no_others() -> Result<()> {
    let mut mesh = Mesh::new("live")?;
    for pod in [mesh.b.clone(), mesh.d.clone()] {
        mesh.serve_echo(&pod)?;
    }
    let servers = [vip4(10, ECHO), vip6(10, ECHO), mesh.b.v4(ECHO), vip4(20, ECHO)];
    let open = |pod| -> Result<Vec<Child>> { servers.iter().map(|to| talk(pod, *to)).collect() };
    let (mut of_a, mut of_c) = (open(&mesh.a)?, open(&mesh.c)?);
    for client in of_a.iter_mut().chain(&mut of_c) {
        say(client, "before")?;
    }

    mesh.config.policies.push(only_a(&mesh));
    mesh.apply()?;
    for client in &mut of_c {
        assert_eq!(end_of(client)?, "reset");
    }
    for client in &mut of_a {
        say(client, "after")?;
    }
    for (node, pod) in [(&mesh.n2, "b"), (&mesh.n1, "d")] {
        let line = refusal(node, "c", pod)?;
        assert!(line.is("reason", "denied_by_policy_change"), "{line:?}");
        assert!(line.is("policy", "shop/only-a"), "{line:?}");
    }
    Ok(())
}

#[test]
fn strict_mode_ends_open_plaintext_connections() -> Result<()> {
    let mut mesh = Mesh::new("livestrict")?;
    for pod in [mesh.b.clone(), mesh.d.clone()] {
        mesh.serve_echo(&pod)?;
    }
    let servers = [mesh.b.v4(ECHO), mesh.d.v6(ECHO)];
    let mut plain = Vec::new();
    for server in servers {
        plain.push(talk(&mesh.outsider, server)?);
    }
    let mut meshed = talk(&mesh.a, servers[0])?;
    for client in plain.iter_mut().chain([&mut meshed]) {
        say(client, "before")?;
    }
    mesh.config
        .peer_authentications
        .push(PeerAuthentication::of_namespace("shop", PeerMode::Strict));
    mesh.apply()?;
    for client in &mut plain {
        end_of(client)?;
    }
    say(&mut meshed, "after")
}
