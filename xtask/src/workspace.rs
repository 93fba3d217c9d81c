//! Where things are in this checkout.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder of the workspace's root manifest.
pub(crate) fn root() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest)
}

/// A path below the workspace's target folder.
pub(crate) fn target(path: &str) -> PathBuf {
    root().join("target").join(path)
}

/// A cargo command that runs in the workspace and writes to its target folder.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    // build.rs files and tests look for what is built here, so a target folder elsewhere is no use.
    command.current_dir(root()).env_remove("CARGO_TARGET_DIR").args(arguments);
    command
}

/// A cargo command that builds optimised programs of which profiles can be taken: those follow frame
/// pointers, which builds without optimisation have anyway.
pub(crate) fn release_build() -> Command {
    let mut command = cargo(&["build", "--release"]);
    command.args(["--config", "build.rustflags=['-Cforce-frame-pointers=yes']"]);
    command
}
