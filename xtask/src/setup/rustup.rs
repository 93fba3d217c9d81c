//! Components of the pinned Rust toolchain.

use super::{Group, find_program, is_executable};
use crate::process::Step;
use crate::workspace;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

struct Component {
    name: &'static str,
    group: Group,
    /// A path below the toolchain's folder that exists when the component is installed.
    evidence: &'static str,
}

const COMPONENTS: [Component; 3] = [
    Component {
        name: "rust-src",
        group: Group::Build,
        evidence: "lib/rustlib/src/rust/library/core/src/lib.rs",
    },
    Component { name: "clippy", group: Group::Lint, evidence: "bin/cargo-clippy" },
    Component { name: "rustfmt", group: Group::Lint, evidence: "bin/rustfmt" },
];

pub(super) fn ensure(groups: &[Group]) -> Result<()> {
    let toolchain = toolchain()?;
    let missing: Vec<&str> = COMPONENTS
        .iter()
        .filter(|component| groups.contains(&component.group))
        .filter(|component| !toolchain.join(component.evidence).exists())
        .map(|component| component.name)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    install(&missing, &toolchain)
}

fn install(missing: &[&str], toolchain: &Path) -> Result<()> {
    let list = missing.join(" ");
    if find_program("rustup").is_none() || !is_executable(&toolchain.join("bin/rustc")) {
        bail!(
            "the Rust toolchain in {} has no {list}, and there is no rustup that could add it; \
             install Rust with https://rustup.rs",
            toolchain.display()
        );
    }
    let mut rustup = Command::new("rustup");
    rustup.current_dir(workspace::root()).args(["component", "add"]).args(missing);
    Step { command: "setup", what: &format!("adding Rust components {list}") }
        .run_logged("setup-rustup", &mut rustup)
}

/// The folder of the toolchain that builds this workspace.
fn toolchain() -> Result<PathBuf> {
    let output = Command::new("rustc")
        .current_dir(workspace::root())
        .args(["--print", "sysroot"])
        .output()
        .context("cannot start rustc; install Rust with https://rustup.rs")?;
    if !output.status.success() {
        bail!("rustc --print sysroot: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
}
