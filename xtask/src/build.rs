//! Builds the BPF objects, then the host crates that embed them.

use crate::process::Step;
use crate::setup::{self, Group};
use crate::workspace;
use anyhow::{Context, Result};
use std::fs;
use std::process::Command;

const NEEDS: [Group; 1] = [Group::Build];

/// The BPF objects: what captures connections, and what takes profiles.
const BPF_OBJECTS: [&str; 2] = ["capture", "profile"];

/// What `cargo build` and `cargo clippy` need in order to compile the BPF programs.
pub(crate) const BPF_SELECTION: [&str; 9] = [
    "--package",
    "fairlead-ebpf",
    "--bins",
    "--features",
    "programs",
    "--target",
    "bpfel-unknown-none",
    "-Z",
    "build-std=core",
];

/// Arguments of `cargo xtask build`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Builds the host crates with optimisation.
    #[arg(long, conflicts_with = "bpf_only")]
    release: bool,
    /// Builds the BPF objects only.
    #[arg(long)]
    bpf_only: bool,
}

/// Builds what the arguments ask for.
pub(crate) fn run(args: &Args) -> Result<()> {
    setup::ensure(&NEEDS)?;
    bpf_objects("build")?;
    if args.bpf_only {
        return Ok(());
    }
    let mut cargo =
        if args.release { workspace::release_build() } else { workspace::cargo(&["build"]) };
    cargo.args(["--workspace", "--exclude", "xtask"]);
    Step { command: "build", what: "compiling the host crates" }.run_shown(&mut cargo)
}

/// Builds the BPF objects and puts them where node-proxy's build script finds them.
pub(crate) fn bpf_objects(command: &'static str) -> Result<()> {
    let mut cargo = bpf_cargo("build");
    cargo.arg("--release").args(BPF_SELECTION);
    Step { command, what: "compiling the BPF objects" }.run_logged("build-bpf", &mut cargo)?;
    BPF_OBJECTS.iter().try_for_each(|name| embed(name))
}

/// Puts an object where node-proxy's build script finds it.
fn embed(name: &str) -> Result<()> {
    let built = workspace::target(&format!("bpf/bpfel-unknown-none/release/{name}"));
    let object = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    let embedded = workspace::target(&format!("bpf/{name}.o"));
    // Writing an equal file would make cargo build node-proxy again.
    if fs::read(&embedded).is_ok_and(|present| present == object) {
        return Ok(());
    }
    fs::write(&embedded, object).with_context(|| format!("cannot write {}", embedded.display()))
}

/// A cargo command for the BPF target, in a target folder of its own so that it neither waits for
/// the host build nor makes it start afresh.
pub(crate) fn bpf_cargo(subcommand: &str) -> Command {
    let flags = format!("-Clinker={}\x1f-Clink-arg=--btf", setup::bpf_linker().display());
    let mut cargo = workspace::cargo(&[subcommand, "--target-dir", "target/bpf"]);
    cargo
        // The pinned stable compiler builds `core` for a tier-3 target.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags)
        // bpf-linker does the link-time optimisation; BTF is made from full debug information.
        .env("CARGO_PROFILE_RELEASE_LTO", "false")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "2");
    cargo
}
