//! What `fairlead-node explain` says is what a connection then does.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result};
use fairlead_lab::{
    FairleadNode, PeerAuthentication, PeerMode, Pod, PodSpec, Policy, PolicyAction, Waypoint,
};
use serde_json::Value;

use crate::{
    clients::curl,
    mesh::{HTTP, Mesh, vip4, vip6},
};

/// Asks, connects, and compares; returns the answer.
fn agree(node: &FairleadNode, pod: &Pod, server: SocketAddr) -> Result<Value> {
    let explained = node.explain(pod, server)?;
    let result = &explained["decision"]["result"];
    let passes = result["passes"].as_bool().with_context(|| explained.to_string())?;
    let answer = curl(pod, server)?;
    assert_eq!(passes, answer.is_ok(), "{server}: {answer:?}\n{explained:#}");
    assert!(passes || answer.is_refused(), "{server}: {answer:?}");
    Ok(explained)
}

#[test]
fn what_is_said_of_allowed_and_denied_connections_is_what_they_meet() -> Result<()> {
    let mut mesh = Mesh::new("explain")?;
    let allow = Policy::new(PolicyAction::Allow, "shop", "only-a").from_pod(&mesh.a);
    mesh.config.policies.push(allow);
    mesh.apply()?;
    let far = [vip4(10, 80), vip6(10, 80), mesh.b.v4(HTTP), mesh.b.v6(HTTP)];
    let near = [vip4(20, 80), vip6(20, 80), mesh.d.v4(HTTP), mesh.d.v6(HTTP)];
    for (server, transport) in far
        .iter()
        .map(|server| (*server, "hbone"))
        .chain(near.map(|server| (server, "within_node")))
    {
        let allowed = agree(&mesh.n1, &mesh.a, server)?;
        assert_eq!(allowed["decision"]["result"]["policy"], "shop/only-a", "{allowed:#}");
        assert_eq!(allowed["decision"]["attempts"][0]["transport"], transport, "{allowed:#}");
        assert_eq!(allowed["decision"]["identity"], mesh.a.identity().as_str());

        let denied = agree(&mesh.n1, &mesh.c, server)?;
        let result = &denied["decision"]["result"];
        assert_eq!(result["reason"], "not_allowed", "{denied:#}");
        assert_eq!(result["policy"], "shop/only-a", "{denied:#}");
    }
    // The refusals in both logs say the same, also within the node.
    for (server, pod, node) in [(vip4(10, 80), "b", &mesh.n2), (vip4(20, 80), "d", &mesh.n1)] {
        let explained = mesh.n1.explain(&mesh.c, server)?;
        let because = explained["decision"]["result"]["because"].as_str().context("no words")?;
        let line = |node: &FairleadNode, direction: &str| {
            node.wait_for_access(|line| {
                line.is("src.workload", "c")
                    && line.is("dst.workload", pod)
                    && line.is("direction", direction)
            })
        };
        let source = line(&mesh.n1, "outbound")?;
        assert!(source.is("policy", "shop/only-a"), "{source:?}");
        assert!(source.get("error").is_some_and(|error| error.ends_with(because)), "{source:?}");
        let destination = line(node, "inbound")?;
        assert!(destination.is("error", because), "{destination:?}");
    }
    Ok(())
}

#[test]
fn what_lies_outside_the_mesh_is_said_to() -> Result<()> {
    let mut mesh = Mesh::new("explainout")?;
    let stranger = mesh.lab.node(2).add_pod(PodSpec::new("stranger"))?;
    mesh.serve(&stranger, "http_server.py", HTTP)?;
    mesh.config
        .peer_authentications
        .push(PeerAuthentication::of_namespace("shop", PeerMode::Strict));
    mesh.apply()?;
    let unknown = agree(&mesh.n1, &mesh.a, stranger.v4(HTTP))?;
    assert_eq!(unknown["decision"]["destination"]["kind"], "unknown", "{unknown:#}");
    let plain = agree(&mesh.n1, &mesh.a, mesh.outsider.v4(HTTP))?;
    assert_eq!(plain["decision"]["attempts"][0]["transport"], "plaintext", "{plain:#}");
    let strict = agree(&mesh.n1, &mesh.a, vip4(10, 80))?;
    assert_eq!(strict["decision"]["destination"]["kind"], "service", "{strict:#}");
    let lacking = agree(&mesh.n1, &mesh.a, vip4(10, 81))?;
    assert_eq!(lacking["decision"]["result"]["reason"], "no_healthy_endpoint", "{lacking:#}");
    let left_out = &lacking["decision"]["endpoints"]["left_out"][0];
    assert_eq!(left_out["because"], "without that port", "{lacking:#}");
    for own in [mesh.d.v4(HTTP), mesh.d.v6(HTTP), (Ipv4Addr::LOCALHOST, HTTP).into()] {
        let itself = agree(&mesh.n1, &mesh.d, own)?;
        assert_eq!(itself["decision"]["destination"]["kind"], "itself", "{itself:#}");
    }
    let illegal = agree(&mesh.n1, &mesh.d, mesh.d.v4(15001))?;
    assert_eq!(illegal["decision"]["result"]["reason"], "illegal_port", "{illegal:#}");
    // A pod that is not in the mesh.
    let outside = mesh.n1.explain(&mesh.outsider, vip4(10, 80));
    let error = outside.err().map(|error| format!("{error:#}")).unwrap_or_default();
    assert!(error.contains("no pod tools/outsider is known"), "{error}");
    Ok(())
}

#[test]
fn a_waypoint_that_is_absent_is_named_before_anybody_misses_it() -> Result<()> {
    let mut mesh = Mesh::new("explainwp")?;
    for service in mesh.config.services.iter_mut().filter(|service| service.name == "b") {
        service.waypoint = Some(Waypoint { address: vip4(99, 0).ip() });
    }
    mesh.apply()?;
    for server in [vip4(10, 80), vip6(10, 80)] {
        let absent = agree(&mesh.n1, &mesh.a, server)?;
        let decision = &absent["decision"];
        assert_eq!(decision["waypoint"], "10.96.0.99:15008", "{absent:#}");
        assert_eq!(decision["result"]["reason"], "waypoint_unavailable", "{absent:#}");
        let line = mesh.n1.wait_for_access(|line| line.is("dst.addr", &server.to_string()))?;
        assert_eq!(decision["result"]["because"].as_str(), line.get("error").as_deref());
    }
    // For people.
    let text = mesh.n1.explain_as(&mesh.a, vip4(10, 80), "table")?;
    for part in [
        "from         shop/a, ready as spiffe://",
        "service shop/b.shop",
        "10.96.0.99:15008",
        "result       refused (waypoint_unavailable): no instance",
    ] {
        assert!(text.contains(part), "{part}:\n{text}");
    }
    Ok(())
}
