//! What is on record of the pods is damaged.

use std::fs;

use anyhow::{Result, ensure};
use fairlead_lab::Pod;

use super::assert_refused_at_once;
use crate::{
    bpf::Entries,
    clients::curl,
    mesh::{HTTP, Mesh},
};

/// Starts node 1 anew after the records of `pods` were damaged.
fn restart_without(mut mesh: Mesh, pods: &[&Pod]) -> Result<Mesh> {
    let settings = mesh.n1.settings();
    let records = mesh.n1.run_dir().join("pods");
    mesh.n1.kill()?;
    for pod in pods {
        let record = records.join(format!("{}@{}.json", pod.name(), pod.namespace()));
        ensure!(record.exists(), "{} is no record", record.display());
        fs::write(record, "{\"spec\":")?;
    }
    mesh.n1 = settings.start()?;
    Ok(mesh)
}

#[test]
fn a_pod_whose_record_is_damaged_stays_captured_until_somebody_says_what_it_is() -> Result<()> {
    let mesh = Mesh::new("damaged")?;
    let (a, c, d) = (mesh.a.clone(), mesh.c.clone(), mesh.d.clone());
    let before = Entries::of(&mesh.n1)?;
    let mesh = restart_without(mesh, &[&a, &c])?;
    let wire = mesh.lab.capture_wire()?;
    for pod in [&a, &c] {
        assert_refused_at_once(pod, mesh.b.v4(HTTP))?;
        assert_refused_at_once(pod, mesh.outsider.v4(HTTP))?;
    }
    let dialled = wire.finish()?.ports_dialled()?;
    assert!(!dialled.contains_key(&HTTP), "{dialled:?}");
    assert!(curl(&d, mesh.b.v4(HTTP))?.is_ok());
    let list = mesh.n1.enrolled()?;
    for name in ["shop/a", "tools/c"] {
        assert!(list.contains(&format!("pod remove {name}")), "{list}");
    }

    mesh.n1.enrol(&a)?;
    assert!(curl(&a, mesh.b.v4(HTTP))?.is_ok());
    assert_refused_at_once(&c, mesh.b.v4(HTTP))?;
    mesh.n1.release(&c)?;
    assert!(curl(&c, mesh.outsider.v4(HTTP))?.is_ok());
    let list = mesh.n1.enrolled()?;
    assert!(list.contains("shop/a ") && !list.contains("tools/c"), "{list}");
    mesh.n1.enrol(&c)?;
    assert!(curl(&c, mesh.b.v4(HTTP))?.is_ok());
    assert_eq!(Entries::of(&mesh.n1)?, before);
    Ok(())
}
