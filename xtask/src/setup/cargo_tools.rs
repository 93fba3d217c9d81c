//! Tools that cargo installs, in pinned versions.

use super::{Group, cargo_bin, find_program, is_executable};
use crate::process::Step;
use anyhow::Result;
use std::path::PathBuf;
use std::process::Command;

/// Where Debian puts the LLVM of the pinned Rust toolchain's major version.
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";

struct Tool {
    name: &'static str,
    version: &'static str,
    features: &'static [&'static str],
    group: Group,
}

const BPF_LINKER: &str = "bpf-linker";

const TOOLS: [Tool; 2] = [
    Tool { name: BPF_LINKER, version: "0.13.0", features: &["llvm-22"], group: Group::Build },
    Tool { name: "cargo-deny", version: "0.20.2", features: &[], group: Group::Lint },
];

/// The linker of the BPF object.
pub(crate) fn bpf_linker() -> PathBuf {
    installed(BPF_LINKER).unwrap_or_else(|| PathBuf::from(BPF_LINKER))
}

pub(super) fn ensure(groups: &[Group]) -> Result<()> {
    TOOLS
        .iter()
        .filter(|tool| groups.contains(&tool.group) && installed(tool.name).is_none())
        .try_for_each(install)
}

fn install(tool: &Tool) -> Result<()> {
    let mut cargo = Command::new("cargo");
    cargo
        .args(["install", tool.name, "--version", tool.version])
        .args(["--locked", "--no-default-features", "--features", &tool.features.join(",")])
        .env("LLVM_PREFIX", LLVM_PREFIX);
    let what = format!("installing {} {} (minutes)", tool.name, tool.version);
    Step { command: "setup", what: &what }.run_logged(&format!("setup-{}", tool.name), &mut cargo)
}

/// The tool's path; the folder of cargo's tools comes first because the versions there are ours.
fn installed(name: &str) -> Option<PathBuf> {
    let ours = cargo_bin().join(name);
    if is_executable(&ours) { Some(ours) } else { find_program(name) }
}
