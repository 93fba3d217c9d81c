//! The configuration file: what is good is applied at once, what is broken is refused and named.

use std::{fs, os::unix::fs::symlink};

use anyhow::Result;
use fairlead_lab::{FairleadNode, Lab, MeshConfig, Policy, PolicyAction, wait_for};

use crate::{
    clients::{SOON, curl},
    mesh::{Mesh, reloads, service, vip4},
};

/// Broken files, and what the complaint about each must name.
const BROKEN: [(&str, &str); 6] = [
    ("workloads: [{uid: x, name: x, addresses: [10.300.0.1]}]", "workloads[0].addresses[0]"),
    ("workloads:\n- {uid: x, name: x, colour: red}", "colour"),
    (
        "services: [{name: s, namespace: n, hostname: h, ports: [{service_port: 70000}]}]",
        "ports[0]",
    ),
    ("policies: [{name: p, namespace: n, action: MAYBE}]", "policies[0].action"),
    ("peer_authentications: [{name: p, namespace: n, mode: LAX}]", "peer_authentications[0].mode"),
    ("workloads: [", "line 1"),
];

#[test]
fn a_broken_edit_changes_nothing_and_is_named_in_log_and_metrics() -> Result<()> {
    let mut mesh = Mesh::new("broken")?;
    let deny = Policy::new(PolicyAction::Deny, "shop", "not-c").from_pod(&mesh.c);
    mesh.config.policies.push(deny);
    mesh.apply()?;
    for (text, named) in BROKEN {
        let before = [reloads(&mesh.n1, "rejected")?, reloads(&mesh.n2, "rejected")?];
        MeshConfig::write_text(&mesh.config_path(), text)?;
        for (node, before) in [&mesh.n1, &mesh.n2].into_iter().zip(before) {
            wait_for("the refusal", SOON, || {
                Ok((reloads(node, "rejected")? > before).then_some(()))
            })?;
            wait_for(&format!("a complaint about {named}"), SOON, || {
                let log = node.log()?;
                let complaint = log.lines().rfind(|line| line.contains("not applied"));
                Ok(complaint.filter(|line| line.contains(named)).map(drop))
            })?;
        }
        assert!(curl(&mesh.a, vip4(10, 80))?.is_ok(), "{named}");
        assert!(curl(&mesh.c, vip4(10, 80))?.is_refused(), "{named}");
    }
    Ok(())
}

#[test]
fn a_good_edit_is_applied_without_a_restart() -> Result<()> {
    let mut mesh = Mesh::new("good")?;
    let before = [mesh.n1.pid(), mesh.n2.pid()];
    MeshConfig::write_text(&mesh.config_path(), "workloads: 7")?;
    let address = vip4(50, 80);
    mesh.config.add_service(service("new", 50), [&mesh.b]);
    mesh.apply()?;
    let answer = curl(&mesh.a, address)?;
    assert!(answer.is_ok(), "{answer:?}");
    assert_eq!(answer.seen("own"), mesh.b.ipv4().to_string());

    mesh.config.services.retain(|service| service.name != "new");
    for workload in &mut mesh.config.workloads {
        workload.services.retain(|key, _| !key.contains("/new."));
    }
    mesh.apply()?;
    assert!(!curl(&mesh.a, address)?.is_ok());
    assert!(mesh.n1.is_ready()? && mesh.n2.is_ready()?);
    assert_eq!(before, [mesh.n1.pid(), mesh.n2.pid()]);
    Ok(())
}

#[test]
fn a_file_that_disappears_leaves_the_last_good_state() -> Result<()> {
    let mesh = Mesh::new("gone")?;
    fs::remove_file(mesh.config_path())?;
    wait_for("the refusal", SOON, || Ok((reloads(&mesh.n1, "rejected")? > 0.0).then_some(())))?;
    wait_for("the complaint", SOON, || Ok(mesh.n1.log()?.contains("mesh.yaml").then_some(())))?;
    assert!(curl(&mesh.a, vip4(10, 80))?.is_ok());
    mesh.apply()?;
    assert!(curl(&mesh.a, vip4(20, 80))?.is_ok());
    Ok(())
}

#[test]
fn a_broken_file_at_the_start_is_an_error_that_names_the_field() -> Result<()> {
    let lab = Lab::new("nostart")?;
    let (file, ca) = (lab.dir().join("mesh.yaml"), lab.dir().join("ca"));
    let start = || FairleadNode::on(lab.node(1)).local_config(&file).local_ca(&ca).start();
    let error = format!("{:#}", start().unwrap_err());
    assert!(error.contains("mesh.yaml") && error.contains("exit status: 1"), "{error}");
    for (text, named) in BROKEN {
        MeshConfig::write_text(&file, text)?;
        let error = format!("{:#}", start().unwrap_err());
        assert!(error.contains("fairlead-node ended: exit status: 1"), "{named}: {error}");
        assert!(error.contains(named) && error.contains("mesh.yaml"), "{named}: {error}");
    }
    Ok(())
}

#[test]
fn a_file_swapped_by_a_link_as_a_config_map_is_applied() -> Result<()> {
    let lab = Lab::new("link")?;
    let dir = lab.dir().join("mounted");
    for (version, text) in [("..1", "workloads: []\n"), ("..2", "services: []\n")] {
        fs::create_dir_all(dir.join(version))?;
        MeshConfig::write_text(&dir.join(version).join("mesh.yaml"), text)?;
    }
    symlink("..1", dir.join("..data"))?;
    symlink("..data/mesh.yaml", dir.join("mesh.yaml"))?;
    let settings = FairleadNode::on(lab.node(1)).local_config(&dir.join("mesh.yaml"));
    let node = settings.local_ca(&lab.dir().join("ca")).start()?;
    let before = reloads(&node, "applied")?;
    symlink("..2", dir.join("..data_tmp"))?;
    fs::rename(dir.join("..data_tmp"), dir.join("..data"))?;
    wait_for("the new version", SOON, || Ok((reloads(&node, "applied")? > before).then_some(())))
}
