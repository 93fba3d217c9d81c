//! Realistic documents, and the resources that proxies are told because of them.
//!
//! Each folder of `tests/golden` holds objects and the expected `resources.txt`; that of single
//! manifests has what waypoints are told because of each of them beside it. To accept another outcome, run with `FAIRLEAD_ACCEPT=1` and read the difference.

use std::{
    env,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use fairlead_control::{
    mesh::{Enrolment, Mesh, Options},
    resource::{Kind, Resource},
    source::directory::Directory,
};
use mesh_api::proto::{l7, security::Authorization, workload};
use prost::Message as _;
use tempfile::TempDir;

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

#[test]
fn each_manifest_about_traffic_becomes_what_waypoints_are_told() -> Result<()> {
    let folder = golden("manifests");
    let objects = TempDir::new()?;
    for entry in fs::read_dir(folder.join("base"))? {
        let entry = entry?;
        fs::copy(entry.path(), objects.path().join(entry.file_name()))?;
    }
    let mut checked = 0;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let copy = objects.path().join("manifest.yaml");
            fs::copy(&path, &copy)?;
            let mesh = read(objects.path()).with_context(|| path.display().to_string())?;
            compare(&path.with_extension("txt"), &text(&mesh, for_waypoints)?)?;
            checked += 1;
        }
    }
    ensure!(checked > 0, "there are no manifests");
    Ok(())
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn check(name: &str) -> Result<()> {
    let folder = golden(name);
    let computed = text(&read(&folder)?, |_| true)?;
    compare(&folder.join(EXPECTED), &computed)
}

/// Reads the objects of a folder.
fn read(folder: &Path) -> Result<Mesh> {
    let changes = Directory::new(folder.to_owned()).refresh()?;
    ensure!(changes.errors.is_empty(), "{:?}", changes.errors);
    let options = Options { enrolment: Enrolment::Declared, ..Options::default() };
    let mut mesh = Mesh::new(options);
    mesh.apply(changes.events);
    Ok(mesh)
}

fn compare(path: &Path, computed: &str) -> Result<()> {
    if env::var_os("FAIRLEAD_ACCEPT").is_some() {
        fs::write(path, computed)?;
    }
    let name = path.display().to_string();
    let expected = fs::read_to_string(path).with_context(|| name.clone())?;
    ensure!(computed == expected, "{name} would be\n{computed}\ninstead of\n{expected}");
    Ok(())
}

/// Writes resources of some kinds and all warnings, sorted.
fn text(mesh: &Mesh, is_shown: impl Fn(Kind) -> bool) -> Result<String> {
    let mut resources: Vec<_> =
        mesh.resources().filter(|resource| is_shown(resource.kind)).collect();
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

/// Returns whether only waypoints are told.
fn for_waypoints(kind: Kind) -> bool {
    match kind {
        Kind::L7 | Kind::Credential => true,
        Kind::Workload | Kind::Service | Kind::Authorization => false,
    }
}

fn message(resource: &Resource) -> Result<String> {
    let body = resource.body.clone();
    Ok(match resource.kind {
        Kind::Workload => format!("{:#?}", workload::Workload::decode(body)?),
        Kind::Service => format!("{:#?}", workload::Service::decode(body)?),
        Kind::Authorization => format!("{:#?}", Authorization::decode(body)?),
        Kind::L7 => format!("{:#?}", l7::Resource::decode(body)?),
        Kind::Credential => format!("{:#?}", l7::Credential::decode(body)?),
    })
}
