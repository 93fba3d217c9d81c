//! Realistic documents, and the resources that proxies are told because of them.
//!
//! Each folder of `tests/golden` holds objects and the expected `resources.txt`. To accept another
//! outcome, run with `FAIRLEAD_ACCEPT=1` and read the difference.

use std::{env, fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use fairlead_control::{
    mesh::{Enrolment, Mesh, Options},
    resource::{Kind, Resource},
    source::directory::Directory,
};
use mesh_api::proto::{l7, security::Authorization, workload};
use prost::Message as _;

const EXPECTED: &str = "resources.txt";

#[test]
fn the_documents_of_a_shop_become_its_resources() -> Result<()> {
    check("shop")
}

#[test]
fn documents_with_a_waypoint_bind_to_it() -> Result<()> {
    check("waypoint")
}

#[test]
fn documents_of_what_is_outside_the_cluster_become_resources() -> Result<()> {
    check("external")
}

fn check(name: &str) -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let changes = Directory::new(folder.clone()).refresh()?;
    ensure!(changes.errors.is_empty(), "{:?}", changes.errors);
    let options = Options { enrolment: Enrolment::Declared, ..Options::default() };
    let mut mesh = Mesh::new(options);
    mesh.apply(changes.events);
    let computed = text(&mesh)?;
    let path = folder.join(EXPECTED);
    if env::var_os("FAIRLEAD_ACCEPT").is_some() {
        fs::write(&path, &computed)?;
    }
    let expected = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    ensure!(computed == expected, "{name} computes\n{computed}\ninstead of\n{expected}");
    Ok(())
}

/// Writes all resources and warnings, sorted.
fn text(mesh: &Mesh) -> Result<String> {
    let mut resources: Vec<_> = mesh.resources().collect();
    resources.sort_by_key(|resource| (resource.kind, resource.name.clone()));
    let mut text = String::new();
    for resource in resources {
        let aliases = resource.aliases.join(" ");
        writeln!(text, "{:?} {} [{aliases}]", resource.kind, resource.name)?;
        writeln!(text, "{}\n", fields(&message(resource)?))?;
    }
    for (object, warnings) in mesh.warnings() {
        for warning in warnings {
            writeln!(text, "warning: {object}: {warning}")?;
        }
    }
    Ok(text)
}

/// Leaves out the lines of fields that are not set.
fn fields(message: &str) -> String {
    let unset = ["\"\",", "[],", "{},", "None,", "false,"].map(|value| format!(": {value}"));
    let is_set = |line: &&str| !unset.iter().any(|end| line.ends_with(end));
    message.lines().filter(is_set).collect::<Vec<_>>().join("\n")
}

fn message(resource: &Resource) -> Result<String> {
    let body = resource.body.clone();
    Ok(match resource.kind {
        Kind::Workload => format!("{:#?}", workload::Workload::decode(body)?),
        Kind::Service => format!("{:#?}", workload::Service::decode(body)?),
        Kind::Authorization => format!("{:#?}", Authorization::decode(body)?),
        Kind::L7 => format!("{:#?}", l7::Resource::decode(body)?),
    })
}
