//! Installs the tools that are missing; quick when nothing is.

mod apt;
mod cargo_tools;
mod envoy;
mod rustup;

pub(crate) use cargo_tools::bpf_linker;
pub(crate) use envoy::program as envoy_program;

use crate::process::seconds;
use anyhow::{Result, bail};
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What a command needs tools for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    /// Compiling the BPF object and the host crates.
    Build,
    /// Format, lints and the rules for dependencies.
    Lint,
    /// Unmodified programs that run in the lab's pods or look at its wire.
    Lab,
}

/// Installs the tools of every group.
pub(crate) fn run() -> Result<()> {
    let started = Instant::now();
    ensure(&[Group::Build, Group::Lint, Group::Lab])?;
    eprintln!("setup: all tools are there ({})", seconds(started.elapsed()));
    Ok(())
}

/// Installs what the groups' tools are missing.
pub(crate) fn ensure(groups: &[Group]) -> Result<()> {
    rustup::ensure(groups)?;
    apt::ensure(groups)?;
    cargo_tools::ensure(groups)?;
    if groups.contains(&Group::Lab) {
        envoy::ensure()?;
    }
    Ok(())
}

/// Fails unless this process runs as root; `purpose` completes the sentence of the error.
pub(crate) fn require_root(purpose: &str, command: &str) -> Result<()> {
    if fs::metadata("/proc/self")?.uid() != 0 {
        bail!("{purpose} needs root; run as root: {command}");
    }
    Ok(())
}

/// The path of a program that this user could start, also where the path leaves out system folders.
fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|candidate| is_executable(candidate))
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

/// Where cargo puts the programs that it installs.
fn cargo_bin() -> PathBuf {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let fallback = || env::home_dir().unwrap_or_default().join(".cargo");
    home.filter(|path| path.as_os_str() != OsStr::new("")).unwrap_or_else(fallback).join("bin")
}
