//! Checks what a compiler does not: format, lints, dependencies and file lengths.

mod length;

use crate::build::{self, BPF_SELECTION};
use crate::process::Step;
use crate::setup::{self, Group};
use crate::workspace;
use anyhow::{Result, bail};
use std::process::Command;

const NEEDS: [Group; 2] = [Group::Build, Group::Lint];

/// Installs the tools, builds the BPF objects that node-proxy embeds, and checks everything.
pub(crate) fn run() -> Result<()> {
    setup::ensure(&NEEDS)?;
    build::bpf_objects("check")?;
    all()
}

/// Runs every check, also after one has failed, so that one run shows everything.
pub(crate) fn all() -> Result<()> {
    let mut failures: Vec<String> = checks().iter_mut().filter_map(Check::failure).collect();
    failures.extend(length::too_long(workspace::root())?);
    if !failures.is_empty() {
        bail!("{} checks failed:\n{}", failures.len(), failures.join("\n"));
    }
    Ok(())
}

struct Check {
    what: &'static str,
    log: &'static str,
    program: Command,
}

// === impl Check ===

impl Check {
    fn failure(&mut self) -> Option<String> {
        let step = Step { command: "check", what: self.what };
        step.run_logged(self.log, &mut self.program).err().map(|error| format!("{error:#}"))
    }
}

fn checks() -> [Check; 4] {
    let mut clippy_bpf = build::bpf_cargo("clippy");
    clippy_bpf.args(BPF_SELECTION).args(["--", "--deny", "warnings"]);
    [
        Check {
            what: "format",
            log: "check-format",
            program: workspace::cargo(&["fmt", "--all", "--check", "--", "--color", "never"]),
        },
        Check {
            what: "lints of the host crates",
            log: "check-clippy",
            program: workspace::cargo(&[
                "clippy",
                "--workspace",
                "--all-targets",
                "--",
                "--deny",
                "warnings",
            ]),
        },
        Check { what: "lints of the BPF programs", log: "check-clippy-bpf", program: clippy_bpf },
        Check {
            what: "dependencies",
            log: "check-deny",
            program: workspace::cargo(&["deny", "check", "bans", "licenses", "sources"]),
        },
    ]
}
