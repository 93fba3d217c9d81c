//! Runs other programs, with a line of progress for each and a log of what it wrote.

use crate::workspace;
use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How much of a failed program's log is shown: enough for a few compiler errors on one screen.
const SHOWN_LOG_LINES: usize = 60;

/// A piece of work that is announced, timed and, where it is quiet, logged.
pub(crate) struct Step<'a> {
    /// The xtask command that it belongs to.
    pub(crate) command: &'static str,
    /// What is being done, for a reader.
    pub(crate) what: &'a str,
}

// === impl Step ===

impl Step<'_> {
    /// Runs a program with its output in `target/xtask/LOG.log`; a failure shows the log's end.
    pub(crate) fn run_logged(&self, log: &str, program: &mut Command) -> Result<()> {
        let path = workspace::target("xtask").join(format!("{log}.log"));
        eprint!("{}: {} ... ", self.command, self.what);
        let started = Instant::now();
        let status = spawn_logged(&path, program);
        eprintln!("{}", seconds(started.elapsed()));
        let status = status?;
        if !status.success() {
            show_end(&path)?;
            bail!("{} failed ({status}); the whole output is in {}", self.what, path.display());
        }
        Ok(())
    }

    /// Runs a program with its output on this process's standard output.
    pub(crate) fn run_shown(&self, program: &mut Command) -> Result<()> {
        eprintln!("{}: {} ...", self.command, self.what);
        let started = Instant::now();
        let status = program.status().with_context(|| cannot_start(program))?;
        eprintln!("{}: {} ... {}", self.command, self.what, seconds(started.elapsed()));
        if !status.success() {
            bail!("{} failed ({status})", self.what);
        }
        Ok(())
    }
}

/// A duration as people read it in progress lines.
pub(crate) fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

fn spawn_logged(path: &Path, program: &mut Command) -> Result<ExitStatus> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let log = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    program
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .status()
        .with_context(|| cannot_start(program))
}

fn cannot_start(program: &Command) -> String {
    format!("cannot start {}", program.get_program().display())
}

fn show_end(path: &Path) -> Result<()> {
    let log = String::from_utf8_lossy(&fs::read(path)?).into_owned();
    let lines: Vec<&str> = log.lines().collect();
    let first = lines.len().saturating_sub(SHOWN_LOG_LINES);
    eprintln!("{}", lines[first..].join("\n"));
    Ok(())
}
