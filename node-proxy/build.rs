//! Embeds the BPF object, which `cargo xtask build` makes.

use std::{env, fs, io, path::PathBuf};

fn main() -> io::Result<()> {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let object = manifest.join("../target/bpf/capture.o");
    println!("cargo::rerun-if-changed={}", object.display());
    if !object.exists() {
        println!(
            "cargo::error=the BPF object {} is missing: run `cargo xtask build` once; it installs \
             the BPF tool chain and builds the object",
            object.display()
        );
        return Ok(());
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    fs::copy(&object, out.join("capture.o"))?;
    Ok(())
}
