//! `protoc`, with the field tables of the reference as schemas.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

const TABLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/protocol/tables");

/// Returns a message as text. What the schema does not know has a number in place of a name.
pub(crate) fn decode(file: &str, message: &str, bytes: &[u8]) -> Result<String> {
    let text = String::from_utf8(run(file, &format!("--decode={message}"), bytes)?)?;
    Ok(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Returns the message that a text stands for.
pub(crate) fn encode(file: &str, message: &str, text: &str) -> Result<Vec<u8>> {
    run(file, &format!("--encode={message}"), text.as_bytes())
}

fn run(file: &str, action: &str, input: &[u8]) -> Result<Vec<u8>> {
    let mut command = Command::new("protoc");
    command.arg(action).arg("--proto_path").arg(TABLES).arg(Path::new(TABLES).join(file));
    let mut protoc = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("no protoc: run `cargo xtask setup`")?;
    protoc.stdin.take().context("no input")?.write_all(input)?;
    let output = protoc.wait_with_output()?;
    ensure!(output.status.success(), "protoc: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}
