//! Each kind of condition, on the wire.

use anyhow::Result;
use fairlead_lab::{Policy, PolicyAction};
use serde_json::{Value, json};

use crate::{
    clients::{curl, run_python},
    mesh::{ECHO, HTTP, Mesh, vip4, vip6},
};

/// A condition of a DENY policy, and whom it refuses at the HTTP port.
struct Case {
    condition: Value,
    refuses_a: bool,
    refuses_c: bool,
}

#[test]
fn every_condition_is_the_same_on_every_path() -> Result<()> {
    let mut mesh = Mesh::new("cond")?;
    for Case { condition, refuses_a, refuses_c } in cases(&mesh) {
        mesh.config.policies = vec![deny(&condition)];
        mesh.apply()?;
        for server in [vip4(10, 80), mesh.b.v4(HTTP), vip4(20, 80), mesh.d.v4(HTTP)] {
            for (pod, refused) in [(&mesh.a, refuses_a), (&mesh.c, refuses_c)] {
                let answer = curl(pod, server)?;
                let as_expected = if refused { answer.is_refused() } else { answer.is_ok() };
                assert!(as_expected, "{condition} for {} to {server}: {answer:?}", pod.name());
            }
        }
    }
    Ok(())
}

#[test]
fn a_port_condition_leaves_other_ports_alone() -> Result<()> {
    let mut mesh = Mesh::new("ports")?;
    for pod in [mesh.b.clone(), mesh.d.clone()] {
        mesh.serve_echo(&pod)?;
    }
    mesh.config.policies = vec![deny(&json!({ "destination_ports": [HTTP] }))];
    mesh.apply()?;
    for number in [10, 20] {
        assert!(curl(&mesh.a, vip6(number, 80))?.is_refused());
        let (host, port) = (vip6(number, 0).ip().to_string(), ECHO.to_string());
        run_python(&mesh.a, "timing.py", &["ping-pong", &host, &port, "1", "10"])?;
    }
    Ok(())
}

#[test]
fn address_blocks_are_those_of_the_family_in_use() -> Result<()> {
    let mut mesh = Mesh::new("blocks")?;
    mesh.config.policies = vec![deny(&json!({ "source_ips": [format!("{}/128", mesh.a.ipv6())] }))];
    mesh.apply()?;
    for number in [10, 20] {
        assert!(curl(&mesh.a, vip6(number, 80))?.is_refused());
        assert!(curl(&mesh.c, vip6(number, 80))?.is_ok());
        assert!(curl(&mesh.a, vip4(number, 80))?.is_ok());
    }
    Ok(())
}

/// The clients are on node 1: `a` in namespace `shop`, `c` in `tools`.
fn cases(mesh: &Mesh) -> Vec<Case> {
    let principal = mesh.a.identity().trim_start_matches("spiffe://").to_owned();
    let account = json!([{ "namespace": "shop", "service_account": "a" }]);
    let address = format!("{}/32", mesh.a.ipv4());
    let both = mesh.lab.node(1).pods_v4().trunc().to_string();
    let b_and_d = [format!("{}/32", mesh.b.ipv4()), format!("{}/32", mesh.d.ipv4())];
    let case = |condition, refuses_a, refuses_c| Case { condition, refuses_a, refuses_c };
    vec![
        case(json!({ "principals": [{ "exact": principal }] }), true, false),
        case(json!({ "not_principals": [{ "exact": principal }] }), false, true),
        case(json!({ "principals": [{ "suffix": "/sa/c" }] }), false, true),
        case(json!({ "not_principals": [{ "presence": {} }] }), false, false),
        case(json!({ "namespaces": [{ "exact": "tools" }] }), false, true),
        case(json!({ "not_namespaces": [{ "prefix": "to" }] }), true, false),
        case(json!({ "service_accounts": account }), true, false),
        case(json!({ "not_service_accounts": account }), false, true),
        case(json!({ "source_ips": [address] }), true, false),
        case(json!({ "source_ips": [both] }), true, true),
        case(json!({ "not_source_ips": [address] }), false, true),
        case(json!({ "destination_ips": b_and_d }), true, true),
        case(json!({ "not_destination_ips": b_and_d }), false, false),
        case(json!({ "destination_ports": [HTTP] }), true, true),
        case(json!({ "not_destination_ports": [HTTP] }), false, false),
        case(json!({ "destination_ports": [80] }), false, false),
    ]
}

fn deny(condition: &Value) -> Policy {
    Policy::new(PolicyAction::Deny, "shop", "case").rule([condition.clone()])
}
