//! Files that are broken.

use anyhow::Result;
use fairlead_lab::{manifest, mesh::ControlledMesh, wait_for};

use super::wait_for_answer;
use crate::{
    clients::{Answer, SOON, curl},
    mesh::vip4,
};

#[test]
fn a_broken_file_is_named_and_its_last_good_version_stays_in_force() -> Result<()> {
    let mesh = ControlledMesh::new("cpbroken")?;
    let policy = manifest::deny(["shop", "not-c"], &[&mesh.c]);
    mesh.plane.write("policy.yaml", &policy)?;
    wait_for_answer(&mesh.c, vip4(10, 80), Answer::is_refused)?;

    for (broken, named) in [
        (policy.replace("DENY", "MAYBE"), "spec.action"),
        (policy.replace("principals", "principles"), "principles"),
        (policy.replace("spec:", "spec: ["), "policy.yaml"),
    ] {
        mesh.plane.write("policy.yaml", &broken)?;
        wait_for(&format!("a complaint about {named}"), SOON, || {
            let log = mesh.plane.log()?;
            let complains = |line: &str| line.contains("policy.yaml") && line.contains(named);
            Ok(log.lines().any(complains).then_some(()))
        })?;
        // What comes after it is applied.
        mesh.plane.write("more.yaml", &manifest::deny(["shop", "not-a"], &[&mesh.a]))?;
        wait_for_answer(&mesh.a, vip4(10, 80), Answer::is_refused)?;
        assert!(curl(&mesh.c, vip4(10, 80))?.is_refused(), "{named}");
        mesh.plane.remove("more.yaml")?;
        wait_for_answer(&mesh.a, vip4(10, 80), Answer::is_ok)?;
    }

    mesh.plane.write("policy.yaml", &manifest::deny(["shop", "not-a"], &[&mesh.a]))?;
    wait_for_answer(&mesh.c, vip4(10, 80), Answer::is_ok)?;
    wait_for_answer(&mesh.a, vip4(10, 80), Answer::is_refused)?;
    Ok(())
}
