//! Embeds the BPF object, which `cargo xtask build` makes.

use std::{env, fs, path::PathBuf};

fn main() {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let object = manifest.join("../target/bpf/capture.o");
    println!("cargo::rerun-if-changed={}", object.display());
    if !object.exists() {
        println!(
            "cargo::error=the BPF object {} is missing: run `cargo xtask build` once; it installs \
             the BPF tool chain and builds the object",
            object.display()
        );
        return;
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("capture.o");
    fs::copy(&object, out).expect("OUT_DIR is writable");
}
