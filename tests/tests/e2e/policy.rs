//! Who may connect to whom, and that every path has the same answer.

mod conditions;
mod live;
mod plaintext;

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use fairlead_lab::{
    AccessLine, FairleadNode, PeerAuthentication, PeerMode, Pod, Policy, PolicyAction, Scope,
    WorkloadEntry, wait_for,
};

use crate::{
    clients::{SOON, curl, run_python},
    mesh::{GREETER, HTTP, Mesh, vip4, vip6},
};

#[test]
fn an_allow_policy_lets_its_principal_pass_and_names_itself_to_all_others() -> Result<()> {
    let mut mesh = Mesh::new("allow")?;
    mesh.config.policies.push(only_a(&mesh));
    mesh.apply()?;
    for server in servers(&mesh) {
        assert!(curl(&mesh.a, server)?.is_ok(), "{server}");
        let answer = curl(&mesh.c, server)?;
        assert!(answer.is_refused(), "{server}: {answer:?}");
    }
    for (node, pod) in [(&mesh.n2, "b"), (&mesh.n1, "d")] {
        let line = refusal(node, "c", pod)?;
        assert!(line.is("reason", "not_allowed"), "{line:?}");
        assert!(line.is("policy", "shop/only-a"), "{line:?}");
        assert!(line.is("src.identity", &mesh.c.identity()), "{line:?}");
    }
    Ok(())
}

#[test]
fn a_refused_client_sees_a_reset_and_no_byte() -> Result<()> {
    let mut mesh = Mesh::new("reset")?;
    for pod in [mesh.b.clone(), mesh.d.clone()] {
        mesh.serve(&pod, "server_first.py", GREETER)?;
    }
    mesh.config.policies.push(only_a(&mesh));
    mesh.apply()?;
    for number in [10, 20] {
        let server = vip4(number, GREETER);
        let arguments = ["expect", &server.ip().to_string(), &server.port().to_string()];
        assert_eq!(run_python(&mesh.c, "reset.py", &arguments)?, "reset\n", "{server}");
        assert_eq!(run_python(&mesh.a, "reset.py", &arguments)?, "data\n", "{server}");
    }
    Ok(())
}

#[test]
fn deny_beats_allow() -> Result<()> {
    let mut mesh = Mesh::new("deny")?;
    let deny = Policy::new(PolicyAction::Deny, "shop", "not-a").from_pod(&mesh.a);
    let allow = Policy::new(PolicyAction::Allow, "shop", "both");
    mesh.config.policies.extend([allow.from_pod(&mesh.a).from_pod(&mesh.c), deny]);
    mesh.apply()?;
    for server in servers(&mesh) {
        assert!(curl(&mesh.a, server)?.is_refused(), "{server}");
        assert!(curl(&mesh.c, server)?.is_ok(), "{server}");
    }
    for (node, pod) in [(&mesh.n2, "b"), (&mesh.n1, "d")] {
        let line = refusal(node, "a", pod)?;
        assert!(line.is("reason", "denied_by_policy"), "{line:?}");
        assert!(line.is("policy", "shop/not-a"), "{line:?}");
    }
    Ok(())
}

#[test]
fn a_policy_on_trial_refuses_nothing_and_says_what_it_would_refuse() -> Result<()> {
    let mut mesh = Mesh::new("trial")?;
    let deny = Policy::new(PolicyAction::Deny, "shop", "not-a").from_pod(&mesh.a).on_trial();
    mesh.config.policies.push(deny);
    mesh.apply()?;
    for server in servers(&mesh) {
        assert!(curl(&mesh.a, server)?.is_ok(), "{server}");
    }
    for node in [&mesh.n1, &mesh.n2] {
        wait_for("the report", SOON, || {
            let log = node.log()?;
            let reported =
                log.lines().any(|l| l.contains("would be denied") && l.contains("not-a"));
            Ok(reported.then_some(()))
        })?;
    }
    Ok(())
}

#[test]
fn a_policy_of_the_whole_mesh_applies_everywhere() -> Result<()> {
    let mut mesh = Mesh::new("global")?;
    let deny = Policy::new(PolicyAction::Deny, "istio-system", "not-c").scope(Scope::Global);
    mesh.config.policies.push(deny.from_pod(&mesh.c));
    mesh.apply()?;
    for server in servers(&mesh) {
        assert!(curl(&mesh.a, server)?.is_ok(), "{server}");
        assert!(curl(&mesh.c, server)?.is_refused(), "{server}");
    }
    Ok(())
}

#[test]
fn a_policy_with_a_selector_applies_only_where_it_is_named() -> Result<()> {
    let mut mesh = Mesh::new("selector")?;
    let allow = only_a(&mesh).scope(Scope::WorkloadSelector);
    mesh.config.policies.push(allow);
    let b = mesh.b.clone();
    entry(&mut mesh, &b)?.authorization_policies.push("shop/only-a".to_owned());
    mesh.apply()?;
    assert!(curl(&mesh.c, vip4(10, 80))?.is_refused());
    assert!(curl(&mesh.c, vip4(20, 80))?.is_ok());
    Ok(())
}

#[test]
fn a_policy_that_nobody_knows_denies() -> Result<()> {
    let mut mesh = Mesh::new("absent")?;
    for pod in [mesh.b.clone(), mesh.d.clone()] {
        entry(&mut mesh, &pod)?.authorization_policies.push("shop/absent".to_owned());
    }
    mesh.apply()?;
    for server in servers(&mesh) {
        let answer = curl(&mesh.a, server)?;
        assert!(answer.is_refused(), "{server}: {answer:?}");
    }
    for (node, pod) in [(&mesh.n2, "b"), (&mesh.n1, "d")] {
        let line = refusal(node, "a", pod)?;
        assert!(line.is("reason", "unknown_policy"), "{line:?}");
        assert!(line.is("policy", "shop/absent"), "{line:?}");
    }
    Ok(())
}

#[test]
fn policy_holds_when_the_node_encrypts_to_itself() -> Result<()> {
    let mut mesh = Mesh::with_args("encpol", &["--same-node-encryption"])?;
    mesh.config.policies.push(only_a(&mesh));
    mesh.config
        .peer_authentications
        .push(PeerAuthentication::of_namespace("shop", PeerMode::Strict));
    mesh.apply()?;
    for server in servers(&mesh) {
        assert!(curl(&mesh.a, server)?.is_ok(), "{server}");
        assert!(curl(&mesh.c, server)?.is_refused(), "{server}");
    }
    let line = refusal(&mesh.n1, "c", "d")?;
    assert!(line.is("policy", "shop/only-a"), "{line:?}");
    Ok(())
}

/// Every way to `b`, on the other node, and to `d`, on the same: none may differ in its answer.
fn servers(mesh: &Mesh) -> [SocketAddr; 8] {
    [
        vip4(10, 80),
        vip6(10, 80),
        mesh.b.v4(HTTP),
        mesh.b.v6(HTTP),
        vip4(20, 80),
        vip6(20, 80),
        mesh.d.v4(HTTP),
        mesh.d.v6(HTTP),
    ]
}

/// Allows connections to namespace `shop` from `a` only.
fn only_a(mesh: &Mesh) -> Policy {
    Policy::new(PolicyAction::Allow, "shop", "only-a").from_pod(&mesh.a)
}

/// Waits for the line about a connection from `source` that the node of `destination` refused.
fn refusal(node: &FairleadNode, source: &str, destination: &str) -> Result<AccessLine> {
    node.wait_for_access(|line| {
        line.is("direction", "inbound")
            && line.is("src.workload", source)
            && line.is("dst.workload", destination)
            && line.get("error").is_some()
    })
}

fn entry<'a>(mesh: &'a mut Mesh, pod: &Pod) -> Result<&'a mut WorkloadEntry> {
    mesh.config.workload_mut(pod).context("not configured")
}
