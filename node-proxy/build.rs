//! Embeds the BPF objects, which `cargo xtask build` makes.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

/// Names of the objects.
const OBJECTS: [&str; 2] = ["capture.o", "profile.o"];

fn main() -> io::Result<()> {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    OBJECTS
        .iter()
        .try_for_each(|name| embed(&manifest.join("../target/bpf").join(name), &out.join(name)))
}

fn embed(object: &Path, embedded: &Path) -> io::Result<()> {
    println!("cargo::rerun-if-changed={}", object.display());
    if !object.exists() {
        println!(
            "cargo::error=the BPF object {} is missing: run `cargo xtask build` once; it installs \
             the BPF tool chain and builds the objects",
            object.display()
        );
        return Ok(());
    }
    fs::copy(object, embedded)?;
    Ok(())
}
